"""Runs as jobs, from a real server by real worker processes: what is kept of them, and what outlives whom."""

from __future__ import annotations

import json
import os
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import Run, RunKind
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import State, StateType
from headrace_workers.kubernetes.manifest import SETTLED_LABEL
from tests.support.kubernetes import StubCluster
from tests.support.kubernetes.server import read_rules
from tests.support.servers import ServerProcess
from tests.support.tools import ROOT
from tests.support.worker_processes import WorkerProcess, until

FLOWS = """
import os, pathlib, time
from headrace import flow, get_run_logger

@flow
def wait(folder, name):
    get_run_logger().info("to the log")
    print("before")
    (pathlib.Path(folder) / name).write_text(str(os.getpid()))
    while not (pathlib.Path(folder) / (name + "-go")).exists():
        time.sleep(0.02)
    print("after")
"""
FINAL = (
    StateType.STATE_TYPE_COMPLETED,
    StateType.STATE_TYPE_FAILED,
    StateType.STATE_TYPE_CANCELLED,
    StateType.STATE_TYPE_CRASHED,
)


class Place:
    """A server, a cluster, and a pool of its own."""

    def __init__(
        self, server: ServerProcess, cluster: StubCluster, client: SyncHeadraceClient, folder: pathlib.Path
    ) -> None:
        self.cluster = cluster
        self.client = client
        self.folder = folder
        self.pool = f"Pool {new_id()}"
        config = cluster.write_kubeconfig(folder / "kubeconfig")
        address = {"HEADRACE_API_URL": server.address, "KUBECONFIG": str(config)}
        self.environment = {**server.environment, **address}
        (folder / "flows.py").write_text(FLOWS)

    def worker(self) -> WorkerProcess:
        command = ("worker", "start", "--pool", self.pool, "--type", "kubernetes")
        worker = WorkerProcess(self.environment, self.folder, command)
        worker.says("Connected")
        return worker

    def queue(self, name: str, **variables: Any) -> str:
        run = Run(id=new_id(), kind=RunKind.RUN_KIND_FLOW, name=name, flow_name="wait", work_pool=self.pool)
        run.state.CopyFrom(State(id=new_id(), type=StateType.STATE_TYPE_SCHEDULED, name="Scheduled"))
        run.state.event_time.GetCurrentTime()
        run.parameters.encoding = "json"
        run.parameters.inline = json.dumps({"folder": str(self.folder), "name": name}).encode()
        env = {"HEADRACE__ENTRYPOINT": f"{self.folder}/flows.py:wait", "PYTHONUNBUFFERED": "1"}
        run.job_variables.update({"image": "flows:1", "env": env, **variables})
        self.client.create_run(CreateRunRequest(run=run))
        return run.id

    def begun(self, name: str, run_id: str) -> int:
        """The process that is in the body."""
        began = self.folder / name

        def there() -> str:
            state = self.client.get_run(run_id).state
            assert state.type not in FINAL, state
            return began.read_text() if began.exists() else ""

        return int(until(there, 60, "a body to begin"))

    def go(self, name: str) -> None:
        (self.folder / f"{name}-go").touch()

    def ended(self, run_id: str) -> Run:
        until(lambda: self.client.get_run(run_id).state.type in FINAL, 60, "the end of the run")
        return self.client.get_run(run_id)

    def printed(self, run_id: str) -> list[str]:
        wanted = LogFilter(run_ids=[run_id], loggers=["stdout", "stderr"])
        return [entry.message for entry in self.client.iter_logs(wanted)]

    def job(self, run_id: str) -> dict[str, Any] | None:
        jobs = self.cluster.jobs()
        return next((j for j in jobs if j["metadata"]["labels"]["headrace.dev/flow-run-id"] == run_id), None)

    def pod(self, run_id: str) -> dict[str, Any]:
        pods = self.cluster.pods()
        return next(p for p in pods if p["metadata"]["labels"]["headrace.dev/flow-run-id"] == run_id)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def place(server: ServerProcess, tmp_path: pathlib.Path) -> Iterator[Place]:
    rules = read_rules(ROOT / "deploy" / "kubernetes" / "worker-rbac.yaml")
    pods = tmp_path / "pods"
    pods.mkdir()
    with (
        temporary_settings({"home": str(server.home), "api_url": server.address}),
        get_client(sync_client=True) as client,
        StubCluster(pods, rules) as cluster,
    ):
        yield Place(server, cluster, client, tmp_path)


def test_runs_are_jobs_that_end_as_they_end_and_bear_an_api_server_that_is_away(place: Place) -> None:
    with place.worker() as worker:
        typo = place.queue("typo", image="flosw:1", pod_watch_timeout_seconds=1)
        hog, guest = place.queue("hog"), place.queue("guest")
        place.begun("hog", hog)
        place.begun("guest", guest)
        place.cluster.oom(place.pod(hog))
        crashed = place.ended(hog).state
        assert crashed.type == StateType.STATE_TYPE_CRASHED
        assert "used up its memory limit (OOMKilled)" in crashed.message
        assert "before" in crashed.message
        never = place.ended(typo).state
        assert never.type == StateType.STATE_TYPE_CRASHED
        assert 'did not start within 1 s: ImagePullBackOff: Back-off pulling image "flosw:1"' in never.message
        assert place.job(typo) is None

        place.cluster.hang_up()
        worker.says("does not answer")
        place.go("guest")
        assert place.ended(guest).state.type == StateType.STATE_TYPE_COMPLETED
        place.cluster.listen()
        worker.says("(" + guest + ") has ended with exit code 0.")
        until(lambda: place.printed(guest) == ["before", "after"], 60, "what it has printed")
        worker.says("guest | ")
        assert _is_settled(place, guest)


def _is_settled(place: Place, run_id: str) -> bool:
    def labelled() -> bool:
        job = place.job(run_id)
        assert job is not None
        return SETTLED_LABEL in job["metadata"]["labels"]

    return until(labelled, 60, "the label of a job that everything is known of")


def test_a_killed_worker_changes_nothing_for_its_runs_and_the_next_one_sees_to_them(place: Place) -> None:
    with place.worker() as first:
        kept, hung = place.queue("kept"), place.queue("hung")
        process = place.begun("kept", kept)
        os.kill(place.begun("hung", hung), signal.SIGSTOP)
        until(lambda: place.printed(kept) == ["before"], 60, "what it prints")
        first.process.kill()
        first.leaves()
    # Nobody is there to obey: the server itself ends the run.
    place.client.cancel_run(hung, grace_seconds=1)
    assert place.ended(hung).state.type == StateType.STATE_TYPE_CANCELLED
    assert place.job(hung) is not None
    with place.worker() as second:
        second.says("goes on in")
        assert place.begun("kept", kept) == process
        place.go("kept")
        run = place.ended(kept)
        assert (run.state.type, run.attempt) == (StateType.STATE_TYPE_COMPLETED, 1)
        second.says("(" + kept + ") has ended with exit code 0.")
        until(lambda: place.printed(kept)[1:], 60, "what it has printed since")
        assert place.printed(kept) == ["before", "after"]
        until(lambda: place.job(hung) is None, 60, "the job of the cancelled run to be torn down")
        assert _is_settled(place, kept)
