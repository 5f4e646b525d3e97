"""A durable flow is killed in the middle and taken up again by another process: what has completed stays."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.client import get_client
from headrace.settings import temporary_settings
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run, RunFilter
from headrace.v1.state_pb2 import STATE_TYPE_COMPLETED, STATE_TYPE_CRASHED
from tests.support.scripts import Script
from tests.support.servers import ServerProcess

PROGRAM = pathlib.Path(__file__).parent.parent / "support" / "programs" / "durable_flow.py"
STEPS = 21
"""How many bodies an undisturbed run enters."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Any]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as opened:
        yield opened


def _named(name: str, *inputs: str) -> tuple[str, ...]:
    """A step, for counting; what was given as a future is on record as such."""
    return (name,) if name == "total" else (name, *inputs)


class Story:
    """One run of the program and its attempts."""

    def __init__(self, server: ServerProcess, client: Any, folder: pathlib.Path) -> None:
        self._server = server
        self._client = client
        self._journal = folder / "journal"
        self.commits = folder / "journal.commits"
        self._known = {
            run.id for run in client.iter_runs(RunFilter(kinds=[RUN_KIND_FLOW], flow_names=["durable"]))
        }

    def attempt(self, run_id: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", str(PROGRAM), *([run_id] if run_id else [])],
            env={**self._server.environment, "JOURNAL": str(self._journal), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run(self) -> Run:
        runs = self._client.iter_runs(
            RunFilter(kinds=[RUN_KIND_FLOW], flow_names=["durable"], top_level_only=True)
        )
        (run,) = [run for run in runs if run.id not in self._known]
        return self._client.get_run(run.id)

    def crashed(self) -> Run:
        """The run, once the server has noticed that its process is gone."""
        until = time.monotonic() + 60
        while (run := self.run()).state.type != STATE_TYPE_CRASHED:
            assert time.monotonic() < until, run.state
            time.sleep(0.05)
        return run

    def steps(self, run: Run) -> list[Run]:
        return [one for one in self._client.iter_runs(RunFilter(root_run_ids=[run.id])) if one.id != run.id]

    def names(self, run_id: str) -> list[str]:
        return [state.name for state in self._client.iter_states(run_id)]

    def entered(self) -> Counter[tuple[str, ...]]:
        """How often each body was entered, by its inputs."""
        lines = self._journal.read_text().splitlines() if self._journal.exists() else []
        return Counter(_named(*json.loads(line)[1:]) for line in lines)

    def completed(self, run: Run) -> Counter[tuple[str, ...]]:
        """The same of what has completed on record."""
        found: Counter[tuple[str, ...]] = Counter()
        for step in self.steps(run):
            if step.state.type == STATE_TYPE_COMPLETED:
                parameters = json.loads(self._client.get_run(step.id).parameters.inline)
                found[_named(step.task_name or step.flow_name, *map(str, parameters.values()))] += 1
        return found


@pytest.fixture
def story(server: ServerProcess, client: Any, tmp_path: pathlib.Path) -> Story:
    return Story(server, client, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(
    server: ServerProcess, client: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Counter[tuple[str, ...]], int]:
    """What comes out when nothing happens: the result, the bodies entered, how many runs there are."""
    story = Story(server, client, tmp_path_factory.mktemp("undisturbed"))
    done = story.attempt()
    assert done.returncode == 0, done.stderr
    assert sum(story.entered().values()) == STEPS
    return done.stdout, story.entered(), len(story.steps(story.run()))


@pytest.mark.parametrize("kill_at", [2, 6, 9, 12, 17, 20])
def test_killed_at_any_step(kill_at: int, story: Story, undisturbed: Any) -> None:
    result, bodies, steps = undisturbed
    killed = story.attempt(KILL_AT=str(kill_at))
    assert killed.returncode == -9, killed.stderr
    run = story.crashed()
    before, completed = story.entered(), story.completed(run)
    resumed = story.attempt(run.id)
    assert (resumed.returncode, resumed.stdout) == (0, result), resumed.stderr
    # What had completed was not entered again; everything else was, once. The flaky one is tried twice anew.
    again = story.entered() - before
    expected = bodies - completed
    flaky = ("flaky", "5")
    expected[flaky] = 0 if completed[flaky] else 1 if before[flaky] else 2  # only its very first try fails
    assert again == +expected
    after = story.run()
    assert (after.state.type, after.attempt, after.fence, after.run_count) == (STATE_TYPE_COMPLETED, 2, 2, 2)
    history = ["Pending", "Running", "Crashed", "Pending", "Running", "Completed"]
    assert story.names(run.id) == history
    # One that was killed before it had all its inputs may be left behind, and was never entered.
    entered = [step for step in story.steps(run) if step.run_count]
    assert len(entered) == steps, "one run for each step"
    assert {step.state.type for step in entered} == {STATE_TYPE_COMPLETED}
    assert story.commits.read_text().count("commit") == 2


def test_the_flow_was_edited_meanwhile(story: Story, undisturbed: Any) -> None:
    result, bodies, steps = undisturbed
    assert story.attempt(KILL_AT="12").returncode == -9
    run = story.crashed()
    before, completed = story.entered(), story.completed(run)
    resumed = story.attempt(run.id, VERSION="2")
    assert (resumed.returncode, resumed.stdout) == (0, result), resumed.stderr
    # The step that was not there before runs, and disturbs no other.
    assert story.entered() - before == +(bodies - completed) + Counter({("double", "1000"): 1})
    assert len(story.steps(run)) == steps + 1


def test_replayed_steps_are_undone_with_their_transaction(story: Story) -> None:
    """Killed in a transaction; the next attempt fails in it: what the first has done is rolled back."""
    killed = story.attempt(KILL_AT="9")
    assert killed.returncode == -9 and story.entered()[("write", "1")] == 1, killed.stderr
    run = story.crashed()
    assert story.completed(run)[("write", "0")] == 1
    resumed = story.attempt(run.id, ROLL_BACK="1")
    assert resumed.stdout.strip() == "Failed", resumed.stderr
    assert story.entered()[("write", "0")] == 1
    assert story.commits.read_text().split() == ["rollback", "rollback"]
    written = [step for step in story.steps(run) if step.task_name == "write"]
    assert [story.names(step.id)[-1] for step in written] == ["RolledBack"] * 2


ZOMBIE = """
import pathlib, sys
from headrace import flow, task
from headrace.client import get_client
from headrace.exceptions import Abort
from headrace.execution.attempts import run_flow_attempt

@task
def step(x):
    with pathlib.Path("journal").open("a") as lines:
        lines.write(f"{sys.argv[1:]} {x}\\n")
    return x

@flow(name="zombie", durable=True)
def body():
    first = step(1)
    if len(sys.argv) == 1:
        print("one", flush=True)
        input()
    return [first, step(2)]

try:
    if len(sys.argv) > 1:
        with get_client(sync_client=True) as client:
            run = client.take_over_run(sys.argv[1], force=True)
        print(run_flow_attempt(body, run.id, run.attempt, run.fence).result(_sync=True))
    else:
        body()
except Abort as error:
    print("aborted:", error)
"""


def test_the_process_that_lost_the_run_changes_nothing(
    server: ServerProcess, client: Any, tmp_path: pathlib.Path
) -> None:
    """It was slow, or cut off, and not dead."""
    with Script(tmp_path / "program.py", ZOMBIE, server.environment) as old:
        old.reached("one")
        (run,) = client.iter_runs(RunFilter(flow_names=["zombie"], top_level_only=True))
        taken = subprocess.run(
            [sys.executable, "-W", "error", "program.py", run.id],
            env=server.environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert taken.stdout == "[1, 2]\n"
        before = {one.id: one.etag for one in client.iter_runs(RunFilter(root_run_ids=[run.id]))}
        old.go_on()
        said = old.finish()
    assert said.startswith("aborted:") and "owned by its attempt 2 with fence 2" in said
    after = client.get_run(run.id)
    assert (after.state.type, after.attempt, after.run_count) == (STATE_TYPE_COMPLETED, 2, 2)
    # Not one entry of the old process was taken: no state, and no run of the step that it began.
    assert {one.id: one.etag for one in client.iter_runs(RunFilter(root_run_ids=[run.id]))} == before
    assert len((tmp_path / "journal").read_text().splitlines()) in (2, 3)
