"""`headrace deploy`: the deployments of a project file, or one that the options describe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from headrace.cli.deployed import show
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.options import Output
from headrace.cli.output import say
from headrace.cli.parameters import read_parameters
from headrace.cli.projects import (
    Environment,
    Names,
    ProjectFile,
    YesTo,
    agree,
    carry_out,
    read_project,
    with_options,
)
from headrace.cli.prompts import can_ask, choose
from headrace.cli.scripts import load_flow
from headrace.deployments.deploying import Deployed, Failed, select
from headrace.deployments.project import DeploymentEntry, Project, ProjectError, find_project

__all__ = ["deploy"]

Repeated = tuple[str, ...]


async def deploy(
    entrypoint: Annotated[
        str | None, Parameter(name="ENTRYPOINT", help="path/file.py:flow, for a deployment of that flow.")
    ] = None,
    /,
    *,
    name: Names = (),
    all_: Annotated[bool, Parameter(name="--all", help="Every deployment of the file.")] = False,
    file: ProjectFile = None,
    env: Environment = None,
    yes_to: YesTo = None,
    dry_run: Annotated[bool, Parameter(help="Show what would change, change nothing, run no step.")] = False,
    description: Annotated[str | None, Parameter(help="Shown beside the deployment.")] = None,
    version: Annotated[str | None, Parameter(help="Version of the code, as free text.")] = None,
    version_type: Annotated[str | None, Parameter(help="Where to read the version, e.g. vcs:github.")] = None,
    tag: Annotated[Repeated, Parameter(name=["--tag", "-t"], help="A tag. Repeatable.")] = (),
    pool: Annotated[str | None, Parameter(name=["--pool", "-p"], help="Work pool its runs go to.")] = None,
    work_queue: Annotated[
        str | None, Parameter(name=["--work-queue", "-q"], help="Queue of the pool; made when missing.")
    ] = None,
    fairness_key: Annotated[
        str | None,
        Parameter(help="Runs of equal keys take turns with those of others, e.g. '{{ parameters.tenant }}'."),
    ] = None,
    job_variable: Annotated[
        Repeated, Parameter(help="NAME=VALUE, or a JSON object, for the job. Repeatable.")
    ] = (),
    cron: Annotated[Repeated, Parameter(help="A schedule: five fields. Repeatable.")] = (),
    interval: Annotated[Repeated, Parameter(help="A schedule: seconds, or 01:30:00. Repeatable.")] = (),
    rrule: Annotated[Repeated, Parameter(help="A schedule: RFC 5545. Repeatable.")] = (),
    anchor_date: Annotated[str | None, Parameter(help="An instant that the intervals go through.")] = None,
    timezone: Annotated[str | None, Parameter(help="Zone of the schedules, e.g. Europe/Oslo.")] = None,
    concurrency_limit: Annotated[int | None, Parameter(help="Runs of the deployment at once.")] = None,
    collision_strategy: Annotated[
        Literal["ENQUEUE", "CANCEL_NEW"] | None, Parameter(help="What becomes of a run when it is full.")
    ] = None,
    param: Annotated[
        Repeated, Parameter(allow_leading_hyphen=True, help="NAME=VALUE, a default of its runs. Repeatable.")
    ] = (),
    params: Annotated[
        str | None, Parameter(help="Defaults as one JSON object; - reads it from stdin.")
    ] = None,
    enforce_parameter_schema: Annotated[
        bool | None,
        Parameter(negative="--no-enforce-parameter-schema", help="Check parameters when a run is asked for."),
    ] = None,
    output: Output = "table",
) -> int:
    """Deploy flows: of headrace.yaml, or one by its entrypoint.

    Build and push steps run first. A deployment that fails does not keep the others from being deployed; the
    exit code is 1 then. Deploying the same again changes nothing.
    """
    if all_ and name:
        raise CliError("--all and --name exclude each other.", code=ExitCode.USAGE)
    schedules = _schedules(cron, interval, rrule, anchor_date, timezone)
    said = {
        "entrypoint": entrypoint,
        "description": description,
        "version": version,
        "version_type": version_type,
        "tags": list(tag) or None,
        "fairness_key": fairness_key,
        "work_pool": _set(name=pool, work_queue_name=work_queue, job_variables=_variables(job_variable)),
        "schedules": schedules or None,
        "concurrency_limit": _set(limit=concurrency_limit, collision_strategy=collision_strategy),
        "parameters": read_parameters(param, params) or None,
        "enforce_parameter_schema": enforce_parameter_schema,
    }
    options = {key: value for key, value in said.items() if value is not None}
    path = file or find_project(Path.cwd())
    try:
        project = Project() if path is None else read_project(path, env)
        entries, missed = _chosen(project, entrypoint, name, all_, path)
        entries = with_options(entries, options)
    except ProjectError as error:
        raise CliError(str(error), code=ExitCode.USAGE) from None
    if not dry_run:
        agree(project, yes_to)
    done = await carry_out(project, path, entries, dry_run=dry_run)
    if len(entries) == 1 and isinstance(done[0], Failed) and isinstance(done[0].error, CliError):
        raise done[0].error  # with all that there is to say of it, and its own exit code
    show(done, dry_run, output)
    for message in [*missed, *(_without_pool(one) for one in done)]:
        if message:
            say(message)
    return ExitCode.FAILED if missed or any(isinstance(one, Failed) for one in done) else ExitCode.OK


def _without_pool(one: Deployed | Failed) -> str:
    """What whoever deploys should know of a deployment that no worker will ever be given a run of."""
    if isinstance(one, Failed) or one.response.deployment.work_pool:
        return ""
    return (
        f"{one.name} has no work pool: its runs wait for a program that serves it; --pool says whose workers."
    )


def _chosen(
    project: Project, entrypoint: str | None, names: Sequence[str], all_: bool, path: Path | None
) -> tuple[list[DeploymentEntry], list[str]]:
    """The entries to deploy, and a message for each name that means none."""
    entries = project.deployments
    if entrypoint is not None:
        own = [entry for entry in entries if entry.entrypoint == entrypoint]
        if not own or (names and not select(own, names)[0]):
            if len(names) != 1:
                raise CliError("A new deployment has one name.", "Say --name NAME.", code=ExitCode.USAGE)
            return [_new_entry(entrypoint, names[0])], []
        entries = own
    if not entries:
        where = f"{path} has no deployments." if path else "There is no headrace.yaml here."
        hint = "Say which flow: `headrace deploy path/file.py:flow -n NAME`, or see `headrace init --help`."
        raise CliError(where, hint, code=ExitCode.USAGE)
    if names:
        return select(entries, names)
    if all_ or len(entries) == 1:
        return list(entries), []
    known = [entry.name or "?" for entry in entries]
    if not can_ask():
        raise CliError(
            f"The file has {len(entries)} deployments: {', '.join(known)}.",
            "Say which by --name, or --all.",
            code=ExitCode.USAGE,
        )
    return [entries[choose("Which deployment?", known)]], []


def _new_entry(entrypoint: str, name: str) -> DeploymentEntry:
    """A deployment that is in no file.

    Args:
        entrypoint: of its flow.
        name: its own, or that of the flow before it.
    """
    flow, _, own = name.rpartition("/")
    entry = DeploymentEntry(name=own, entrypoint=entrypoint)
    if flow and not select([entry], [name])[0] and load_flow(entrypoint).name != flow:
        raise CliError(
            f"{name} names another flow than {entrypoint}.", f"Say --name {own}.", code=ExitCode.USAGE
        )
    return entry


def _schedules(
    crons: Repeated, intervals: Repeated, rrules: Repeated, anchor: str | None, timezone: str | None
) -> list[dict[str, Any]]:
    zone = {} if timezone is None else {"timezone": timezone}
    anchored = {} if anchor is None else {"anchor_date": anchor}
    if anchor is not None and not intervals:
        raise CliError("--anchor-date goes with --interval.", code=ExitCode.USAGE)
    if timezone is not None and not (crons or intervals or rrules):
        raise CliError("--timezone goes with --cron, --interval or --rrule.", code=ExitCode.USAGE)
    said = [{"cron": text, **zone} for text in crons]
    said += [{"interval": _number(text), **anchored, **zone} for text in intervals]
    return said + [{"rrule": text, **zone} for text in rrules]


def _number(text: str) -> Any:
    return float(text) if text.replace(".", "", 1).isdigit() else text


def _variables(given: Repeated) -> dict[str, Any] | None:
    objects = [text for text in given if text.lstrip().startswith("{")]
    said: dict[str, Any] = {}
    for text in objects:
        said |= read_parameters((), text)
    return said | read_parameters([text for text in given if text not in objects], None) or None


def _set(**values: Any) -> dict[str, Any] | None:
    return {key: value for key, value in values.items() if value is not None} or None
