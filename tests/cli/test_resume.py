"""`headrace run --resume`: a run is taken up again from the command line."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from headrace.client import get_client
from headrace.settings import temporary_settings
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.run_service_pb2 import ListRunsRequest
from headrace.v1.state_pb2 import STATE_TYPE_COMPLETED, STATE_TYPE_CRASHED, STATE_TYPE_RUNNING
from tests.support.servers import ServerProcess, run_headrace

FLOWS = """
import os, pathlib, signal
from headrace import flow, task

def enter(line):
    with pathlib.Path("journal").open("a") as lines:
        lines.write(line + "\\n")

@task
def step(x: int) -> int:
    enter(f"step {x}")
    return 2 * x

@task
def last(x: int) -> int:
    enter("last")
    if pathlib.Path("kill").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return x

@flow(durable=True)
def pipeline(n: int, scale: int = 1) -> int:
    return scale * last(sum(step(i) for i in range(n)))

@flow
def other() -> None: ...
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


class Shell:
    """Runs commands in a folder with flows."""

    def __init__(self, server: ServerProcess, folder: pathlib.Path) -> None:
        self._server = server
        self.folder = folder
        (folder / "flows.py").write_text(FLOWS)

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run_headrace(*words, environment=self._server.environment, cwd=self.folder)

    def journal(self) -> list[str]:
        path = self.folder / "journal"
        lines = path.read_text().splitlines()
        path.unlink()
        return lines

    def newest(self, state: int) -> Run:
        """The newest run of the pipeline, once it is in that state."""
        request = ListRunsRequest(filter=RunFilter(flow_names=["pipeline"], top_level_only=True), page_size=1)
        until = time.monotonic() + 60
        with temporary_settings({"api_url": self._server.address}), get_client(sync_client=True) as client:
            while not (runs := client.list_runs(request).runs) or runs[0].state.type != state:
                assert time.monotonic() < until, runs
                time.sleep(0.05)
        return runs[0]


@pytest.fixture
def shell(server: ServerProcess, tmp_path: pathlib.Path) -> Shell:
    return Shell(server, tmp_path)


def test_a_killed_run_is_taken_up_again(shell: Shell) -> None:
    (shell.folder / "kill").touch()
    killed = shell("run", "flows.py:pipeline", "-p", "n=3")
    assert killed.returncode == -signal.SIGKILL
    assert shell.journal() == ["step 0", "step 1", "step 2", "last"]
    run = shell.newest(STATE_TYPE_CRASHED)
    (shell.folder / "kill").unlink()
    resumed = shell("run", "flows.py:pipeline", "--resume", run.id[:30], "-p", "scale=100", "-o", "json")
    assert resumed.returncode == 0, resumed.stderr
    assert shell.journal() == ["last"]
    shown = json.loads(resumed.stdout)
    assert (shown["id"], shown["attempt"], shown["state"]["type"]) == (run.id, 2, "COMPLETED")
    assert (shown["name"], shown["state"]["data"]) == (run.name, 600)
    assert f"Flow run {run.name} ({run.id}) is Completed" in resumed.stderr
    again = shell("run", "flows.py:pipeline", "--resume", run.name)
    assert again.returncode == 1
    assert "cannot be taken up again. The run has completed" in again.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["flows.py:pipeline", "--resume", "no-such-run"], 3, "There is no flow run 'no-such-run'"),
        (["flows.py:pipeline", "--force", "-p", "n=1"], 2, "--force goes with --resume"),
        (["flows.py:pipeline", "--resume", "x", "--name", "y"], 2, "keeps its name and its tags"),
    ],
)
def test_what_is_refused(words: list[str], code: int, message: str, shell: Shell) -> None:
    refused = shell("run", *words)
    assert (refused.returncode, message in refused.stderr) == (code, True), refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_run_of_another_flow_and_parameters_that_do_not_fit(shell: Shell) -> None:
    (shell.folder / "kill").touch()
    shell("run", "flows.py:pipeline", "-p", "n=1")
    run = shell.newest(STATE_TYPE_CRASHED)
    refused = shell("run", "flows.py:other", "--resume", run.id)
    assert refused.returncode == 2
    assert "is one of the flow 'pipeline', not of 'other'" in refused.stderr
    refused = shell("run", "flows.py:pipeline", "--resume", run.id, "-p", "m=1")
    assert refused.returncode == 2 and "m: there is no such parameter" in refused.stderr
    assert shell.newest(STATE_TYPE_CRASHED).attempt == 1


def test_a_run_that_is_being_executed_needs_force(shell: Shell, server: ServerProcess) -> None:
    slow = FLOWS.replace('enter("last")', 'enter("last"); input()')
    (shell.folder / "slow.py").write_text(slow)
    command = [sys.executable, "-m", "headrace", "run", "slow.py:pipeline", "-p", "n=1"]
    with subprocess.Popen(
        command,
        env=server.environment,
        cwd=shell.folder,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as living:
        run = shell.newest(STATE_TYPE_RUNNING)
        refused = shell("run", "flows.py:pipeline", "--resume", run.id)
        assert refused.returncode == 1 and "Give --force to do so." in refused.stderr
        taken = shell("run", "flows.py:pipeline", "--resume", run.id, "--force")
        assert taken.returncode == 0, taken.stderr
        living.communicate(b"\n", timeout=60)
    assert shell.newest(STATE_TYPE_COMPLETED).attempt == 2
