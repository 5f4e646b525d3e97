"""Runs that outlive their worker, on the simplest infrastructure that does: processes of their own."""

from __future__ import annotations

import json
import os
import pathlib
import signal
from collections.abc import Iterator

import pytest

from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import Run, RunKind
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import State, StateType
from tests.support.detached import install, remove_all
from tests.support.servers import ServerProcess
from tests.support.worker_processes import WorkerProcess, until

FLOWS = """
import os, pathlib, signal, sys, time
from headrace import flow, get_run_logger

@flow
def wait(folder):
    get_run_logger().info("to the log")
    print("before")
    (pathlib.Path(folder) / "began").write_text(str(os.getpid()))
    while not (pathlib.Path(folder) / "go").exists():
        time.sleep(0.02)
    print("after")

@flow
def leave(folder):
    print("the last words")
    sys.stdout.flush()
    os._exit(3)
"""
FINAL = (
    StateType.STATE_TYPE_COMPLETED,
    StateType.STATE_TYPE_FAILED,
    StateType.STATE_TYPE_CANCELLED,
    StateType.STATE_TYPE_CRASHED,
)


class Place:
    """A server, a folder with code and infrastructure, and a pool of its own."""

    def __init__(self, server: ServerProcess, client: SyncHeadraceClient, folder: pathlib.Path) -> None:
        self.client = client
        self.folder = folder
        self.pool = f"pool-{new_id()}"
        self.environment = {
            **server.environment,
            "HEADRACE_API_URL": server.address,
            "PYTHONUNBUFFERED": "1",
            **install(folder),
        }
        (folder / "flows.py").write_text(FLOWS)

    def worker(self, *words: str) -> WorkerProcess:
        command = ("worker", "start", "--pool", self.pool, "--type", "detached", *words)
        worker = WorkerProcess(self.environment, self.folder, command)
        worker.says("Connected")
        return worker

    def queue(self, flow: str) -> str:
        run = Run(id=new_id(), kind=RunKind.RUN_KIND_FLOW, name="r", flow_name=flow, work_pool=self.pool)
        run.state.CopyFrom(State(id=new_id(), type=StateType.STATE_TYPE_SCHEDULED, name="Scheduled"))
        run.state.event_time.GetCurrentTime()
        run.parameters.encoding = "json"
        run.parameters.inline = json.dumps({"folder": str(self.folder)}).encode()
        code = {"HEADRACE__ENTRYPOINT": f"{self.folder}/flows.py:{flow}"}
        run.job_variables.update({"env": code})
        self.client.create_run(CreateRunRequest(run=run))
        return run.id

    def begun(self) -> int:
        """The process that is in the body of `wait`."""
        began = self.folder / "began"
        return int(until(lambda: began.exists() and began.read_text(), 60, "a body to begin"))

    def go(self) -> None:
        (self.folder / "go").touch()

    def rest(self) -> None:
        """For another run of `wait`."""
        (self.folder / "go").unlink()
        (self.folder / "began").unlink()

    def ended(self, run_id: str) -> Run:
        until(lambda: self.client.get_run(run_id).state.type in FINAL, 60, "the end of the run")
        return self.client.get_run(run_id)

    def printed(self, run_id: str) -> list[str]:
        wanted = LogFilter(run_ids=[run_id], loggers=["stdout", "stderr"])
        return [entry.message for entry in self.client.iter_logs(wanted)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[SyncHeadraceClient]:
    with (
        temporary_settings({"home": str(server.home), "api_url": server.address}),
        get_client(sync_client=True) as opened,
    ):
        yield opened


@pytest.fixture
def place(server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path) -> Iterator[Place]:
    yield Place(server, client, tmp_path)
    remove_all(tmp_path)


def test_a_run_goes_on_when_its_worker_is_killed_and_another_sees_it_through(place: Place) -> None:
    with place.worker() as first:
        run_id = place.queue("wait")
        process = place.begun()
        until(lambda: place.printed(run_id) == ["before"], 30, "what it prints")
        first.process.kill()
        first.leaves()
    with place.worker() as second:
        second.says("goes on in")
        place.go()
        run = place.ended(run_id)
        assert (run.state.type, run.attempt) == (StateType.STATE_TYPE_COMPLETED, 1)
        assert place.begun() == process
        second.says("has ended with exit code 0")
        second.says("to the log")
    # Its own log lines are on record once, by itself.
    assert place.printed(run_id)[-1] == "after"


def test_a_worker_that_leaves_in_a_hurry_leaves_its_runs_as_they_are(place: Place) -> None:
    with place.worker() as first:
        run_id = place.queue("wait")
        place.begun()
        first.send(signal.SIGTERM)
        first.says("Draining")
        first.send(signal.SIGTERM)
        assert first.leaves() == 0
        first.says("goes on without this worker")
    with place.worker() as second:
        second.says("goes on in")
        place.go()
        assert place.ended(run_id).attempt == 1


def test_an_engine_that_is_away_ends_no_run_and_ends_are_explained(place: Place) -> None:
    away = place.folder / "engine" / "away"
    with place.worker() as worker:
        run_id = place.queue("wait")
        place.begun()
        away.touch()
        worker.says("The engine does not answer. Trying again")
        place.go()
        assert place.ended(run_id).state.type == StateType.STATE_TYPE_COMPLETED
        away.unlink()
        worker.says("has ended with exit code 0")
        state = place.ended(place.queue("leave")).state
        worker.says("has ended with exit code 3")
        assert state.type == StateType.STATE_TYPE_CRASHED
        assert "exit code 3" in state.message
        assert "the last words" in state.message
        # It does not obey: it does not move.
        place.rest()
        run_id = place.queue("wait")
        os.kill(place.begun(), signal.SIGSTOP)
        place.client.cancel_run(run_id, grace_seconds=1)
        assert place.ended(run_id).state.type == StateType.STATE_TYPE_CANCELLED
        worker.says("has ended with exit code 137")
