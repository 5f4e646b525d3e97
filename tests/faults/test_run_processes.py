"""Run processes and workers in trouble of their own: a loop that is blocked, a clock that is wrong, a worker
that is gone, credentials that were changed, a database that has forgotten."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.run_pb2 import RUN_KIND_FLOW, RUN_KIND_TASK, AttemptRef, LostAttemptPolicy, Run, RunFilter
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import State, StateType
from headrace.v1.work_pool_pb2 import WorkPool
from headrace.v1.worker_pb2 import WorkerStatus
from tests.faults.ground import lease_settings
from tests.support.clocks import wrong_clock
from tests.support.invariants import Execution
from tests.support.journals import FLOWS, executions, read_journal
from tests.support.servers import ServerProcess
from tests.support.worker_processes import WorkerProcess, until
from tests.support.workers import WireWorker

pytestmark = pytest.mark.xdist_group("faults-processes")  # one server for all of them
LEASE_SECONDS = 2.0
HOUR_SECONDS = 3600
PERMISSION = 4
"""Exit code of a command that the server does not let in."""
COMPLETED = StateType.STATE_TYPE_COMPLETED


class Place:
    """A server, a folder with the journal of its runs, and a pool."""

    def __init__(self, server: ServerProcess, client: SyncHeadraceClient, folder: Path) -> None:
        self.server, self.client, self.folder = server, client, folder
        self.pool = f"pool-{new_id()}"
        (folder / "flows.py").write_text(FLOWS)
        client.create_work_pool(WorkPool(name=self.pool, type="process"))

    @property
    def environment(self) -> dict[str, str]:
        return {**self.server.environment, "HEADRACE_API_URL": self.server.address}

    def worker(self, **environment: str) -> WorkerProcess:
        words = ("worker", "start", "--pool", self.pool)
        return WorkerProcess({**self.environment, **environment}, self.folder, words)

    def queue(self, flow: str, **parameters: object) -> str:
        """Queue a run that is not run again when its process is lost; its id."""
        run = Run(id=new_id(), kind=RUN_KIND_FLOW, name=flow, flow_name=flow, work_pool=self.pool)
        run.parameters.encoding = "json"
        run.parameters.inline = json.dumps({"folder": str(self.folder), **parameters}).encode()
        run.retry_policy.on_lost = LostAttemptPolicy.LOST_ATTEMPT_POLICY_CRASH
        run.job_variables.update({"env": {"HEADRACE__ENTRYPOINT": f"{self.folder}/flows.py:{flow}"}})
        self.client.create_run(CreateRunRequest(run=run))
        return run.id

    def bodies(self, run_id: str) -> list[Execution]:
        return [one for one in executions(read_journal(self.folder / "journal")) if one.run_id == run_id]

    def pids(self, run_id: str) -> list[int]:
        """The processes in which it has begun."""
        lines = read_journal(self.folder / "journal")
        return [line.pid for line in lines if line.run_id == run_id and line.event == "begin"]

    def ended(self, run_id: str) -> State:
        until(lambda: self.client.get_run(run_id).HasField("end_time"), 60, "the end of the run")
        return self.client.get_run(run_id).state

    def statuses(self) -> set[WorkerStatus.ValueType]:
        """Of the pool's workers."""
        return {worker.status for worker in self.client.iter_workers(self.pool)}

    def go(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), settings=lease_settings(LEASE_SECONDS)) as process:
        yield process


@pytest.fixture
def place(server: ServerProcess, tmp_path: Path) -> Iterator[Place]:
    with (
        temporary_settings({"home": str(server.home), "api_url": server.address}),
        get_client(sync_client=True) as client,
    ):
        yield Place(server, client, tmp_path)


def test_a_run_that_blocks_its_loop_is_not_taken_for_dead(place: Place) -> None:
    with place.worker():
        run_id = place.queue("block", seconds=3 * LEASE_SECONDS)
        assert place.ended(run_id).type == COMPLETED
    assert len(place.bodies(run_id)) == 1


def test_a_worker_whose_clock_is_wrong_works_as_others_do(place: Place, tmp_path: Path) -> None:
    with place.worker(**wrong_clock(tmp_path / "clock", HOUR_SECONDS)):
        run_id = place.queue("nap", seconds=1.5 * LEASE_SECONDS)
        assert place.ended(run_id).type == COMPLETED
    assert len(place.bodies(run_id)) == 1
    state = place.client.get_run(run_id).state
    ahead = (state.event_time.ToMicroseconds() - state.record_time.ToMicroseconds()) / 1e6
    assert abs(ahead - HOUR_SECONDS) < 60, "its own time is kept, and the server's beside it"


async def _held_by(place: Place, run_id: str) -> AttemptRef:
    """Have a worker on the wire take the run, and be cut off; what it had."""
    async with (
        grpc.aio.insecure_channel(place.server.address) as channel,
        WireWorker(channel, place.pool, credit=1) as worker,
    ):
        assignment = await worker.assignment()
        await worker.accept(assignment)
        assert assignment.run.id == run_id
        return assignment.attempt


async def _taken_over(place: Place, attempt: AttemptRef) -> bool:
    """A worker comes that says it has the attempt: whether the server says that it is lost."""
    async with grpc.aio.insecure_channel(place.server.address) as channel:
        worker = WireWorker(channel, place.pool)
        worker.hello.held.add(attempt=attempt)
        async with worker:
            ack = await worker.heartbeat(attempt)
            return any(v.lost for v in [*worker.welcome.verdicts, *ack.lost])


def test_a_run_outlives_its_worker_and_is_taken_over_by_the_next(place: Place, one_event_loop: None) -> None:
    """As with a container: what runs the flow does not end with the worker that had it started."""
    run_id = place.queue("wait")
    attempt = asyncio.run(_held_by(place, run_id))
    environment = {
        **place.environment,
        "HEADRACE__FLOW_RUN_ID": run_id,
        "HEADRACE__ATTEMPT": str(attempt.attempt),
        "HEADRACE__FENCE": str(attempt.fence),
        "HEADRACE__ENTRYPOINT": f"{place.folder}/flows.py:wait",
    }
    words = [sys.executable, "-m", "headrace", "flow-run", "execute"]
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until(lambda: place.bodies(run_id), 60, "the body to begin")
            # Its worker is silent for longer than its lease, and given up.
            until(lambda: place.statuses() == {WorkerStatus.WORKER_STATUS_OFFLINE}, 60, "its end")
            assert not asyncio.run(_taken_over(place, attempt))
            place.go()
            assert place.ended(run_id).type == COMPLETED
        finally:
            place.go()
            process.wait(60)
    run = place.client.get_run(run_id)
    assert (run.attempt, run.fence) == (attempt.attempt, attempt.fence)
    assert len(place.bodies(run_id)) == 1


def test_a_worker_with_old_credentials_ends_and_says_why(tmp_path: Path) -> None:
    settings = lease_settings(LEASE_SECONDS)
    old, new = ({"HEADRACE_SERVER_API_AUTH_STRING": f"me:{word}"} for word in ("old", "new"))
    with ServerProcess(tmp_path / "server", settings={**settings, **old}) as server:
        port = {"HEADRACE_SERVER_API_PORT": server.address.rpartition(":")[2]}
        environment = {
            **server.environment,
            "HEADRACE_API_URL": server.address,
            "HEADRACE_API_AUTH_STRING": "me:old",
        }
        with WorkerProcess(environment, tmp_path, ("worker", "start", "--pool", "p")) as worker:
            worker.says("Connected")
            server.stop()
            server.settings = {**settings, **new, **port}
            server.start()
            assert worker.leaves() == PERMISSION
            assert "Traceback" not in worker.log
            assert "HEADRACE_API_AUTH_STRING" in worker.log


def test_what_a_database_has_forgotten_is_sent_again(tmp_path: Path) -> None:
    """As after a fail-over to a copy that lagged behind: the newest commits are gone."""
    (tmp_path / "flows.py").write_text(FLOWS)
    home, copy = tmp_path / "server", tmp_path / "copy.db"
    with ServerProcess(home, settings=lease_settings(LEASE_SECONDS)) as server:
        environment = {**server.environment, "HEADRACE_API_URL": server.address}
        port = {"HEADRACE_SERVER_API_PORT": server.address.rpartition(":")[2]}
        parameters = ["-p", f"folder={tmp_path}", "-p", "count=12"]
        words = [sys.executable, "-m", "headrace", "run", str(tmp_path / "flows.py:steps"), *parameters]
        with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL) as process:
            journal = tmp_path / "journal"
            until(lambda: len(read_journal(journal)) > 2, 60, "the first steps")
            server.kill()
            shutil.copyfile(home / "headrace.db", copy)
            for name in ("headrace.db-wal", "headrace.db-shm"):
                if (home / name).exists():
                    shutil.copyfile(home / name, tmp_path / f"copy.{name[9:]}")
            server.settings = {**lease_settings(LEASE_SECONDS), **port}
            server.start()
            until(lambda: len(read_journal(journal)) == 13, 60, "all steps")
            until(lambda: _count(server) == 13, 60, "all steps to be recorded")
            server.kill()
            for name in ("headrace.db-wal", "headrace.db-shm"):
                (home / name).unlink(missing_ok=True)
            shutil.copyfile(copy, home / "headrace.db")
            for kept in tmp_path.glob("copy.db-*"):
                shutil.copyfile(kept, home / f"headrace.{kept.name[5:]}")
            server.start()
            (tmp_path / "go").touch()
            assert process.wait(60) == 0
        assert _count(server) == 13
        with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
            assert {run.state.type for run in client.iter_runs()} == {COMPLETED}


def _count(server: ServerProcess) -> int:
    """How many runs there are, of flows and tasks."""
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        return len(list(client.iter_runs(RunFilter(kinds=[RUN_KIND_FLOW, RUN_KIND_TASK]))))
