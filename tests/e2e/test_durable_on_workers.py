"""Durable flows on workers: what has completed is not run again, whichever process goes on."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Iterator

import pytest

from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.flow_runs import resume_flow_run
from headrace.settings import temporary_settings
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest, DeploymentKey
from headrace.v1.run_pb2 import Run
from headrace.v1.state_pb2 import StateType
from headrace.v1.work_pool_pb2 import WorkPool
from tests.support.servers import ServerProcess, run_headrace
from tests.support.worker_processes import WorkerProcess, until

FLOWS = """
import os, pathlib, time
from headrace import flow, suspend_flow_run, task

FOLDER = pathlib.Path(__file__).parent

def note(word):
    with open(FOLDER / "journal", "a") as journal:
        journal.write(f"{word} {os.getpid()}\\n")

@task(persist_result=True)
def step(n):
    note(f"step-{n}")
    return n

@flow(durable=True)
def long():
    first = [step(n) for n in range(3)]
    note("three")
    while not (FOLDER / "go").exists():
        time.sleep(0.02)
    return first + [step(n) for n in range(3, 5)]

@flow(durable=True)
def careful():
    first = step(0)
    suspend_flow_run(key="once")
    return first + step(1)
"""
LEASE_SECONDS = 3.0
SETTINGS = {
    "HEADRACE_SERVER_WORKER_HEARTBEAT_SECONDS": str(LEASE_SECONDS / 6),
    "HEADRACE_SERVER_RECORDER_LEASE_SECONDS": str(LEASE_SECONDS),
    "HEADRACE_SERVER_RECORDER_RENEW_SECONDS": str(LEASE_SECONDS / 3),
}
PROJECT = """
deployments:
  - {name: here, entrypoint: "flows.py:long", work_pool: here}
  - {name: here, entrypoint: "flows.py:careful", work_pool: here}
"""
COMPLETED = StateType.STATE_TYPE_COMPLETED


class Place:
    """A server, a folder with a project, and what was noted in it."""

    def __init__(self, server: ServerProcess, client: SyncHeadraceClient, folder: pathlib.Path) -> None:
        self.client = client
        self.folder = folder
        self.environment = {**server.environment, "HEADRACE_API_URL": server.address}
        (folder / "flows.py").write_text(FLOWS)
        (folder / "headrace.yaml").write_text(PROJECT)
        client.create_work_pool(WorkPool(name="here", type="process"))
        done = run_headrace("deploy", "--all", environment=self.environment, cwd=folder)
        assert done.returncode == 0, done

    def worker(self) -> WorkerProcess:
        return WorkerProcess(self.environment, self.folder, ("worker", "start", "--pool", "here"))

    def ask(self, flow: str) -> str:
        key = DeploymentKey(name=f"{flow}/here")
        return self.client.create_deployment_run(CreateDeploymentRunRequest(deployment=key)).run.id

    def noted(self, word: str) -> list[int]:
        """The processes that have noted a word."""
        path = self.folder / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == word]

    def completed(self, run_id: str) -> Run:
        """The run, once it has completed."""
        until(lambda: self.client.get_run(run_id).state.type >= COMPLETED, 60, f"the end of {run_id}")
        run = self.client.get_run(run_id)
        assert run.state.type == COMPLETED, run.state
        return run


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Iterator[Place]:
    folder = tmp_path / "project"
    folder.mkdir()
    with (
        ServerProcess(tmp_path / "server", settings=SETTINGS) as server,
        temporary_settings({"api_url": server.address}),
        get_client(sync_client=True) as client,
    ):
        yield Place(server, client, folder)


def test_a_run_whose_process_is_killed_goes_on_where_it_was(place: Place) -> None:
    with place.worker():
        run_id = place.ask("long")
        [first] = until(lambda: place.noted("three"), 60, "three steps")
        os.kill(first, signal.SIGKILL)
        (place.folder / "go").touch()
        run = place.completed(run_id)
    assert [len(place.noted(f"step-{n}")) for n in range(5)] == [1, 1, 1, 1, 1]
    assert place.noted("step-4") != [first] and run.attempt == 2


def test_another_worker_goes_on_with_the_runs_of_one_that_is_killed(place: Place) -> None:
    with place.worker() as worker:
        run_id = place.ask("long")
        until(lambda: place.noted("three"), 60, "three steps")
        worker.send(signal.SIGKILL)
    (place.folder / "go").touch()
    with place.worker():
        run = place.completed(run_id)
    assert [len(place.noted(f"step-{n}")) for n in range(5)] == [1, 1, 1, 1, 1]
    assert run.attempt == 2


def test_a_run_that_was_suspended_comes_back(place: Place) -> None:
    with place.worker():
        run_id = place.ask("careful")
        until(lambda: place.client.get_run(run_id).state.name == "Suspended", 60, "the suspension")
        resume_flow_run(run_id)
        place.completed(run_id)
    assert [len(place.noted(f"step-{n}")) for n in range(2)] == [1, 1]
    assert place.noted("step-0") != place.noted("step-1"), "another process"
