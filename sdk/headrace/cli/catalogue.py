"""Every command: its names, the line that says what it does, and where its code is.

Help for `headrace` and for a noun is written from this table alone, so it imports none of the code. The
nouns of other packages come from the entry points of the group `headrace.commands`, each naming a
`cyclopts.App`; they too are imported only when used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["CATALOGUE", "Command", "Noun", "Plugin", "find", "plugins"]

ENTRY_POINTS = "headrace.commands"


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to do.

    Attributes:
        name: the word typed.
        target: `module:function` of its code.
        help: one line; the first line of the function's docstring says the same.
    """

    name: str
    target: str
    help: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)


@dataclass(frozen=True, slots=True)
class Noun:
    """A kind of thing, and what can be done with it.

    Attributes:
        names: the words typed; the first is shown, the others work too.
        help: one line.
        commands: what can be done.
    """

    names: tuple[str, ...]
    help: str
    commands: tuple[Command, ...]

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A noun of another package.

    Attributes:
        name: the word typed.
        target: `module:attribute` of its `cyclopts.App`.
        help: one line.
    """

    name: str
    target: str
    help: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)


def _noun(names: str, module: str, help: str, **commands: str) -> Noun:
    """A noun whose commands are the functions of one module; `delete_` is spelled so for `delete`."""
    return Noun(
        tuple(names.split()),
        help,
        tuple(
            Command(function.rstrip("_").replace("_", "-"), f"headrace.cli.{module}:{function}", line)
            for function, line in commands.items()
        ),
    )


CATALOGUE: tuple[Command | Noun, ...] = (
    Command("run", "headrace.cli.run:run", "Run a flow in this process."),
    Command("init", "headrace.cli.init:init", "Write headrace.yaml for the project in this folder."),
    Command(
        "deploy", "headrace.cli.deploy:deploy", "Deploy flows: of headrace.yaml, or one by its entrypoint."
    ),
    Command(
        "diff",
        "headrace.cli.diff:diff",
        "Show what deploying headrace.yaml would change; nothing is changed.",
    ),
    _noun(
        "flow-run flow-runs",
        "flow_runs",
        "Flow runs: what ran, what is running, and what came of it.",
        ls="List flow runs, newest first.",
        inspect="Show everything about one flow run.",
        watch="Follow a flow run until it ends.",
        logs="Show the logs of a flow run and of every run below it.",
        states="Show the states a flow run went through.",
        graph="Show the runs below a flow run as a tree.",
        spans="Show the OpenTelemetry spans of a flow run and of every run below it.",
        cancel="End flow runs before their bodies do.",
        pause="Have a flow run begin no further task until it is resumed.",
        resume="Let a paused flow run go on, with what it asks for.",
        suspend="Have a flow run of a deployment leave its process until it is resumed.",
        execute="Execute a flow run that the server has on record, in this process.",
        retry="Run flow runs of deployments again that have ended.",
        reschedule="Give flow runs that nobody executes another time to start.",
        explain="Say why a flow run does not run, and what would help.",
        delete="Delete flow runs with everything below them.",
    ),
    _noun(
        "task-run task-runs",
        "task_runs",
        "Task runs: the steps of flow runs.",
        ls="List task runs, newest first.",
        inspect="Show everything about one task run.",
        logs="Show the logs of a task run and of every run below it.",
    ),
    _noun(
        "task tasks",
        "tasks",
        "Tasks: serve those whose runs others ask for.",
        serve="Run what others ask of tasks with delay(), until told to stop.",
    ),
    _noun(
        "flow flows",
        "flows",
        "Flows: what has been run at least once.",
        ls="List flows by name.",
        inspect="Show a flow and how its runs ended.",
        serve="Serve a flow as a deployment, until told to stop.",
        delete="Delete flows with all their runs.",
    ),
    _noun(
        "schedule schedules",
        "schedules",
        "Schedules: when runs of deployments are made.",
        ls="List schedules, oldest first.",
        upcoming="List the next runs of all schedules, soonest first.",
        inspect="Show everything about one schedule, and its next fires.",
        create="Make a schedule of a deployment.",
        preview="Show when a schedule fires: one that exists, or one that is only thought of.",
        trigger="Make one run now, with the schedule's parameters; the schedule may be paused.",
        backfill="Make the runs that a schedule would have made in a range of time.",
        skip="Have no run made for single instants to come.",
        unskip="Have runs made for instants that were skipped, those that are past excepted.",
        pause="Have schedules make no more runs; those that nobody has begun with go.",
        resume="Have schedules make runs again, from now on.",
        delete="Delete schedules; runs that have begun stay.",
    ),
    _noun(
        "backfill backfills",
        "backfills",
        "Backfills: ranges of the past of schedules, made up for.",
        ls="List backfills, newest first.",
        inspect="Show everything about one backfill, and how its runs have ended.",
        runs="List the instants that a backfill has come to, oldest first.",
        pause="Make no more runs of backfills for now; those that were made go on.",
        resume="Go on with backfills that were paused.",
        cancel="Make no more runs of backfills, and cancel those that have not started.",
    ),
    _noun(
        "deployment deployments",
        "deployments",
        "Deployments: flows made runnable elsewhere.",
        ls="List deployments by flow and name.",
        inspect="Show everything about one deployment.",
        run="Ask for a run of a deployment.",
        backfill="Make the runs that a schedule of a deployment would have made in a range of time.",
        apply="Make deployments what a file says: messages of the API.",
        versions="List the versions of a deployment, newest first.",
        rollback="Make a deployment what it was in an older version.",
        pause="Let the schedules of deployments make no runs.",
        resume="Let the schedules of deployments make runs again.",
        delete="Delete deployments with their schedules and every run that never started.",
    ),
    _noun(
        "work-pool work-pools",
        "work_pools",
        "Work pools: where runs wait for workers.",
        create="Make a work pool.",
        ls="List work pools by name.",
        inspect="Show everything about one work pool.",
        update="Change a work pool.",
        pause="Hand out no more runs of work pools.",
        resume="Hand out runs of work pools again.",
        preview="List the runs that wait in a work pool, the next one first.",
        set_concurrency_limit="Let at most so many runs of a work pool run at once.",
        clear_concurrency_limit="Let any number of runs of a work pool run at once.",
        get_default_base_job_template="Print the base job template of a type of worker.",
        delete="Delete work pools with their queues.",
    ),
    _noun(
        "work-queue work-queues",
        "work_queues",
        "Work queues: the lines within work pools.",
        create="Make a work queue.",
        ls="List work queues by pool and priority.",
        inspect="Show everything about one work queue.",
        update="Change a work queue.",
        pause="Hand out no more runs of work queues.",
        resume="Hand out runs of work queues again.",
        set_concurrency_limit="Let at most so many runs of a work queue run at once.",
        clear_concurrency_limit="Let any number of runs of a work queue run at once.",
        delete="Delete work queues; their runs wait in the pool's default one.",
    ),
    _noun(
        "fairness-rule fairness-rules",
        "fairness_rules",
        "Rules of fairness keys: weights and limits in work pools.",
        ls="List the rules of fairness keys, by work pool and key.",
        set="Give a fairness key a weight and a limit in a work pool.",
        unset="Give a fairness key weight 1 and no limit again.",
    ),
    _noun(
        "cache",
        "cache",
        "Cached results that flows share through the server.",
        ls="List the results that later calls may use, by key.",
        invalidate="Have the next calls compute their results anew.",
    ),
    _noun(
        "lock locks",
        "locks",
        "Locks that processes hold in the server.",
        ls="List locks by key: who has them, and until when.",
        release="Take a lock away from its holder, which may still be at work.",
    ),
    _noun(
        "config configs",
        "config",
        "Settings of the active profile.",
        view="Show the settings in force.",
        set="Set values in the active profile.",
        unset="Remove values from the active profile.",
        validate="Check the configuration files and the environment.",
    ),
    _noun(
        "profile profiles",
        "profiles",
        "Profiles: named sets of settings.",
        ls="List profiles.",
        create="Create a profile.",
        use="Make a profile the active one.",
        inspect="Show the settings of a profile.",
        rename="Rename a profile.",
        delete="Delete profiles.",
    ),
    _noun(
        "spool spools",
        "spools",
        "What processes have recorded that no server has yet.",
        ls="List spools.",
        flush="Hand every spool of this home to its server.",
    ),
    Noun(
        ("git-sync",),
        "Deploying what is pushed to a branch.",
        (
            Command(
                "start",
                "headrace_workers.git_sync.cli:start",
                "Deploy what is pushed: follow a branch, and apply its headrace.yaml.",
            ),
            Command(
                "ls",
                "headrace_workers.git_sync.cli:ls",
                "List what was synced from this home, and what came of it last.",
            ),
        ),
    ),
    Command("dev", "headrace_workers.dev:dev", "Run a server and a process worker together, for daily work."),
    Command("version", "headrace.cli.version:version", "Show the versions of client, server and database."),
    _noun(
        "completion",
        "completion",
        "Completion of commands by the shell.",
        install="Install completion for a shell.",
        show="Print the completion script of a shell.",
    ),
)

# What an entry point does not say: one line for `headrace --help`.
_PLUGIN_HELP = {
    "server": "The server: start it, stop it, see how it is.",
    "db": "The server's database.",
    "worker": "Workers, which run deployments.",
}


def plugins() -> Iterator[Plugin]:
    """The nouns that other packages bring, by name, not imported."""
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
        yield Plugin(point.name, point.value, _PLUGIN_HELP.get(point.name, f"From {point.value}."))


def find(word: str) -> Command | Noun | Plugin | None:
    """The entry called `word`, if there is one."""
    for entry in CATALOGUE:
        if word in entry.names:
            return entry
    return next((p for p in plugins() if word == p.name), None)
