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
        until = time.monotonic() + 20
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
    assert len(story.steps(run)) == steps, "one run for each step"
    assert {step.state.type for step in story.steps(run)} == {STATE_TYPE_COMPLETED}
    assert story.commits.read_text().count("commit") == 2
