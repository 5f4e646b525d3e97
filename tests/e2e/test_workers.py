"""Workers, servers and runs as real processes: killed, frozen, stopped and started again."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import LostAttemptPolicy, Run, RunKind
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import State, StateType
from headrace.v1.worker_pb2 import WorkerStatus
from tests.support.servers import ServerProcess
from tests.support.worker_processes import WorkerProcess, is_running, until

FLOWS = """
import os, pathlib, signal, sys, time
from headrace import flow, get_run_logger

def note(folder, word):
    with open(pathlib.Path(folder) / "journal", "a") as journal:
        journal.write(f"{word} {os.getpid()}\\n")

@flow
def noop(folder):
    note(folder, "ran")

@flow
def wait(folder):
    note(folder, "began")
    while not (pathlib.Path(folder) / "go").exists():
        time.sleep(0.02)
    note(folder, "ended")

def gone(flow, run, state):
    get_run_logger().warning("%s of %s is %s", run.name, flow.name, state.name)
    note(run.parameters["folder"], "hooked")

@flow(on_crashed=[gone])
def watched(folder):
    note(folder, "began")
    while not (pathlib.Path(folder) / "go").exists():
        time.sleep(0.02)
    raise SystemExit(3)

@flow(on_cancellation=[gone])
def stubborn(folder):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(folder, "began")
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass
"""
LEASE_SECONDS = 3.0
HEARTBEAT = {
    "HEADRACE_SERVER_WORKER_HEARTBEAT_SECONDS": str(LEASE_SECONDS / 6),
    "HEADRACE_SERVER_RECORDER_LEASE_SECONDS": str(LEASE_SECONDS),
    "HEADRACE_SERVER_RECORDER_RENEW_SECONDS": str(LEASE_SECONDS / 3),
}
FINAL = {
    StateType.STATE_TYPE_COMPLETED,
    StateType.STATE_TYPE_FAILED,
    StateType.STATE_TYPE_CANCELLED,
    StateType.STATE_TYPE_CRASHED,
}


class Place:
    """A server, a folder of code, and runs."""

    def __init__(self, server: ServerProcess, client: SyncHeadraceClient, folder: pathlib.Path) -> None:
        self.server = server
        self.client = client
        self.folder = folder
        self.pool = f"pool-{new_id()}"
        self.environment = {**server.environment, "HEADRACE_API_URL": server.address}
        (folder / "flows.py").write_text(FLOWS)

    def worker(self, *words: str) -> WorkerProcess:
        return WorkerProcess(self.environment, self.folder, ("worker", "start", "--pool", self.pool, *words))

    def queue(self, flow: str, name: str = "a run", *, again: bool = False) -> str:
        """Queue a run; its id. `again`: it may be run again when its process is lost."""
        run = Run(id=new_id(), kind=RunKind.RUN_KIND_FLOW, name=name, flow_name=flow, work_pool=self.pool)
        run.state.CopyFrom(State(id=new_id(), type=StateType.STATE_TYPE_SCHEDULED, name="Scheduled"))
        run.state.event_time.GetCurrentTime()
        run.parameters.encoding = "json"
        run.parameters.inline = json.dumps({"folder": str(self.folder)}).encode()
        if again:
            run.retry_policy.on_lost = LostAttemptPolicy.LOST_ATTEMPT_POLICY_RESCHEDULE
        code = {"HEADRACE__ENTRYPOINT": f"{self.folder}/flows.py:{flow}"}
        run.job_variables.update({"env": code})
        self.client.create_run(CreateRunRequest(run=run))
        return run.id

    def state(self, run_id: str) -> State:
        return self.client.get_run(run_id).state

    def ended(self, run_id: str, seconds: float = 60.0) -> State:
        """The state of the run once that is final."""
        until(lambda: self.state(run_id).type in FINAL, seconds, f"the end of {run_id}")
        return self.state(run_id)

    def journal(self, word: str) -> list[int]:
        """The processes that have noted a word."""
        try:
            lines = (self.folder / "journal").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [int(line.split()[1]) for line in lines if line.startswith(word)]

    def began(self) -> int:
        """The process of the newest run, once it is in its body."""
        return until(lambda: self.journal("began"), 60, "a body to begin")[-1]

    def go(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), settings=HEARTBEAT) as process:
        yield process


@pytest.fixture
def place(server: ServerProcess, tmp_path: pathlib.Path) -> Iterator[Place]:
    with (
        temporary_settings({"home": str(server.home), "api_url": server.address}),
        get_client(sync_client=True) as client,
    ):
        yield Place(server, client, tmp_path)


def test_a_run_goes_from_the_queue_to_its_end(place: Place) -> None:
    with place.worker("--name", "one") as worker:
        run_id = place.queue("noop", name="first")
        assert place.ended(run_id).type == StateType.STATE_TYPE_COMPLETED
        assert place.client.get_run(run_id).run_count == 1
        [known] = list(place.client.iter_workers(place.pool))
        assert (known.name, known.status) == ("one", WorkerStatus.WORKER_STATUS_ONLINE)
        worker.says("Run first")
        worker.send(signal.SIGTERM)
        assert worker.leaves() == 0
    assert [w.status for w in place.client.iter_workers(place.pool)] == [WorkerStatus.WORKER_STATUS_OFFLINE]


def test_a_killed_run_process_is_noticed_and_its_signal_named(place: Place) -> None:
    with place.worker():
        run_id = place.queue("wait")
        os.kill(place.began(), signal.SIGKILL)
        state = place.ended(run_id, 60)
        assert state.type == StateType.STATE_TYPE_CRASHED
        # The server may have seen before the worker said how that the process is gone.
        until(lambda: "SIGKILL" in place.client.get_run(run_id).state.message, 60, "the signal")


@pytest.mark.parametrize(("how", "state"), [(signal.SIGKILL, "Scheduled"), (signal.SIGTERM, "AwaitingRetry")])
def test_a_run_that_may_be_run_again_is_when_its_process_is_killed(
    place: Place, how: signal.Signals, state: str
) -> None:
    with place.worker():
        run_id = place.queue("wait", again=True)
        os.kill(place.began(), how)
        until(lambda: len(place.journal("began")) == 2, 60, "the second attempt")
        place.go()
        assert place.ended(run_id).type == StateType.STATE_TYPE_COMPLETED
    run = place.client.get_run(run_id)
    assert run.attempt == 2
    first = ["Scheduled", "Pending", "Running"]
    names = [one.name for one in place.client.iter_states(run_id)]
    assert names == [*first, state, "Pending", "Running", "Completed"]


def test_a_worker_that_leaves_in_a_hurry_gives_such_a_run_to_another(place: Place) -> None:
    with place.worker("--grace-seconds", "0.2") as leaving:
        run_id = place.queue("wait", again=True)
        first = place.began()
        with place.worker() as staying:
            staying.says("Connected")
            leaving.send(signal.SIGTERM)
            assert leaving.leaves() == 0
            until(lambda: len(place.journal("began")) == 2, 30, "the second attempt")
            assert not is_running(first)
            place.go()
            assert place.ended(run_id).type == StateType.STATE_TYPE_COMPLETED


def test_the_runs_of_a_killed_worker_die_with_it_and_crash(place: Place) -> None:
    with place.worker() as worker:
        run_id = place.queue("wait")
        process = place.began()
        worker.process.kill()
        until(lambda: not is_running(process), 2, "the run process to die")
        state = place.ended(run_id, LEASE_SECONDS + 15)
    assert state.type == StateType.STATE_TYPE_CRASHED


def test_a_server_that_is_away_disturbs_nothing(place: Place) -> None:
    port = {"HEADRACE_SERVER_API_PORT": place.server.address.rpartition(":")[2]}
    with place.worker() as worker:
        run_id = place.queue("wait")
        process = place.began()
        place.server.kill()
        worker.says("Trying again")
        place.go()
        until(lambda: place.journal("ended"), 30, "the body to end without a server")
        place.server.settings = {**HEARTBEAT, **port}
        place.server.start()
        assert place.ended(run_id).type == StateType.STATE_TYPE_COMPLETED
        assert place.journal("began") == [process], "executed once"
        assert place.ended(place.queue("noop")).type == StateType.STATE_TYPE_COMPLETED


def test_a_frozen_worker_is_given_up_and_serves_again_when_it_thaws(place: Place) -> None:
    with place.worker() as worker:
        run_id = place.queue("wait")
        process = place.began()
        # The run's own process would keep the run: it is frozen too.
        os.kill(process, signal.SIGSTOP)
        worker.send(signal.SIGSTOP)
        assert place.ended(run_id, 60).type == StateType.STATE_TYPE_CRASHED
        worker.send(signal.SIGCONT)
        os.kill(process, signal.SIGCONT)
        assert place.ended(place.queue("noop")).type == StateType.STATE_TYPE_COMPLETED
        until(lambda: not is_running(process), 60, "the run process to be killed: its run is given up")
        assert place.state(run_id).type == StateType.STATE_TYPE_CRASHED
        assert not place.journal("ended")
        assert place.journal("began") == [process], "nobody was given it a second time"


def test_a_worker_that_is_told_to_leave_finishes_what_it_has(place: Place) -> None:
    with place.worker() as worker:
        run_id = place.queue("wait")
        place.began()
        worker.send(signal.SIGTERM)
        worker.says("Draining")
        waiting = place.queue("noop")
        place.go()
        assert worker.leaves() == 0
    assert place.state(run_id).type == StateType.STATE_TYPE_COMPLETED
    assert place.state(waiting).type == StateType.STATE_TYPE_SCHEDULED, "left for another worker"


def test_the_second_signal_ends_what_runs(place: Place) -> None:
    with place.worker() as worker:
        place.queue("wait")
        process = place.began()
        worker.send(signal.SIGINT)
        worker.says("Draining")
        worker.send(signal.SIGINT)
        assert worker.leaves() == 0
        until(lambda: not is_running(process), 5)


def test_a_cancelled_run_ends_in_its_process(place: Place) -> None:
    with place.worker():
        run_id = place.queue("wait")
        process = place.began()
        place.client.cancel_run(run_id)
        assert place.ended(run_id, 20).type == StateType.STATE_TYPE_CANCELLED
        until(lambda: not is_running(process), 10)


def test_a_run_that_does_not_obey_is_killed_after_the_grace(place: Place) -> None:
    with place.worker():
        run_id = place.queue("stubborn")
        process = place.began()
        place.client.cancel_run(run_id, grace_seconds=2)
        assert place.ended(run_id, 7).type == StateType.STATE_TYPE_CANCELLED
        until(lambda: not is_running(process), 7, "the process to be killed")
        [hooked] = until(lambda: place.journal("hooked"), 60, "the hook that it could not call")
        assert hooked != process


def test_run_once_takes_what_is_there_and_leaves(place: Place) -> None:
    with place.worker("--run-once") as idle:
        assert idle.leaves() == 0
    runs = [place.queue("noop") for _ in range(3)]
    with place.worker("--run-once") as worker:
        assert worker.leaves() == 0
    assert {place.state(run_id).type for run_id in runs} == {StateType.STATE_TYPE_COMPLETED}


def test_health_is_served_when_that_is_wanted(place: Place) -> None:
    with place.worker("--with-healthcheck", "--health-address", "127.0.0.1:0") as worker:
        worker.says("Health is served on port")
        worker.says("Connected")
        port = re.search(r"served on port (\d+)", worker.log)
        assert port is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/ready", timeout=60) as answer:
            assert json.load(answer) == {"message": "OK"}


def _headrace(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_workers_are_listed_shown_drained_and_forgotten(place: Place) -> None:
    with place.worker("--name", "lister", "--limit", "3", "--label", "region=eu") as worker:
        worker.says("Connected")

        def rows() -> list[dict[str, Any]]:
            listed: list[dict[str, Any]] = json.loads(
                _headrace(place.environment, "worker", "ls", "-p", place.pool, "-o", "json").stdout
            )
            return listed

        assert [(row["name"], row["status"], row["labels"]) for row in rows()] == [
            ("lister", "ONLINE", {"region": "eu"})
        ]
        assert "3 of run" in _headrace(place.environment, "worker", "inspect", "lister").stdout
        wrong = _headrace(place.environment, "worker", "inspect", "lisper")
        assert (wrong.returncode, "Did you mean 'lister'?" in wrong.stderr) == (3, True)
        assert _headrace(place.environment, "worker", "drain", "lister").returncode == 0
        assert worker.leaves() == 0
        assert [row["status"] for row in rows()] == ["OFFLINE"]
        assert _headrace(place.environment, "worker", "delete", "lister").returncode == 0
        assert rows() == []


def test_a_pool_of_another_type_is_refused_and_a_missing_one_can_be(place: Place) -> None:
    missing = _headrace(
        place.environment, "worker", "start", "--pool", "none", "--no-create-pool-if-not-found"
    )
    assert (missing.returncode, "Traceback" in missing.stderr) == (3, False)
    wrong = _headrace(place.environment, "worker", "start", "--pool", "q", "--type", "proces")
    assert (wrong.returncode, "Did you mean 'process'?" in wrong.stderr) == (2, True)
    label = _headrace(place.environment, "worker", "start", "--pool", "q", "--label", "x")
    assert label.returncode == 2


def test_crash_hooks_of_a_process_that_was_killed(place: Place) -> None:
    """Called once, by another process: the run's own calls them where it can."""
    with place.worker():
        killed = place.queue("watched", "the killed one")
        own = place.began()
        os.kill(own, signal.SIGKILL)
        [hooked] = until(lambda: place.journal("hooked"), 60, "the hook")
        assert hooked != own
        assert place.state(killed).type == StateType.STATE_TYPE_CRASHED
        told = "the killed one of watched is Crashed"
        until(lambda: told in [line.message for line in place.client.iter_logs(log_filter(killed))], 60)
        (place.folder / "go").touch()
        left = place.queue("watched")
        place.ended(left)
    # The worker has waited for the hooks that it has had called.
    assert place.journal("hooked")[1:] == place.journal("began")[1:]


def log_filter(run_id: str) -> LogFilter:
    return LogFilter(run_ids=[run_id])
