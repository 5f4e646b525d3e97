"""A worker in Go and a client in TypeScript, both generated from the protos, against a real server."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.settings import temporary_settings
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest, DeploymentKey
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.work_pool_pb2 import WorkPool
from tests.support.servers import ServerProcess, run_headrace
from tests.support.tools import ROOT

WORKER = ROOT / ".tools" / "bin" / "headrace-go-worker"
CLIENT = ROOT / "examples" / "polyglot" / "ts-client"
BUILT = ROOT / ".tools" / "polyglot.made"
FINAL = ["Completed", "Failed", "Cancelled", "Crashed"]
pytestmark = pytest.mark.skipif(not BUILT.exists(), reason="needs examples/polyglot built: run `make setup`")


class GoWorker:
    """The worker's process, and what it says."""

    def __init__(self, address: str, *options: str) -> None:
        self._process = subprocess.Popen(
            [WORKER, "-server", address, *options], stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._news:
                self.said.append(line)
                self._news.notify_all()
        self._process.stderr.close()

    def wait_for(self, word: str, times: int = 1) -> None:
        """Wait until it has said a word so many times."""
        with self._news:
            assert self._news.wait_for(lambda: sum(word in line for line in self.said) >= times, 60), (
                self.said
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end; its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        code = self._process.wait(60)
        self._reader.join()
        return code


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SyncHeadraceClient]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPool(name="go", type="go"))
        file = ROOT / "examples" / "polyglot" / "deployments.yaml"
        done = run_headrace("deployment", "apply", str(file), environment=server.environment)
        assert done.stdout.split("\n")[:2] == ["word-counts/go: created", "count-downs/go: created"], done
        yield client


@pytest.fixture
def worker(client: SyncHeadraceClient, server: ServerProcess) -> Iterator[GoWorker]:
    worker = GoWorker(server.address, "-limit", "2", "-grace", "20s")
    try:
        worker.wait_for("connected")
        yield worker
    finally:
        worker.stop(signal.SIGKILL)


def ask(client: SyncHeadraceClient, name: str, **parameters: object) -> Run:
    return client.create_deployment_run(
        CreateDeploymentRunRequest(deployment=DeploymentKey(name=name), parameters=json.dumps(parameters))
    ).run


def until(client: SyncHeadraceClient, run: Run, *names: str) -> Run:
    """The run once it is in one of the states."""
    for change in client.watch_runs(RunFilter(ids=[run.id])):
        if change.HasField("upsert") and change.upsert.state.name in names:
            return client.get_run(run.id)
    raise AssertionError("the watch ended")


def test_a_client_in_typescript_follows_a_run_of_the_worker_in_go(
    client: SyncHeadraceClient, server: ServerProcess, worker: GoWorker
) -> None:
    parameters = json.dumps({"text": "To be, or not to be: that is the question.", "top": 2})
    done = subprocess.run(
        [
            *("npm", "start", "--silent", "--prefix", str(CLIENT), "--"),
            *("--server", server.address, "word-counts/go", "--parameters", parameters),
        ],
        env={**os.environ, "PATH": f"{ROOT / '.tools' / 'node' / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"word": "be", "count": 2}, {"word": "to", "count": 2}]
    assert done.stderr.splitlines()[-1] == "Completed"
    [run] = client.iter_runs(RunFilter(flow_names=["word-counts"]))
    assert [state.name for state in client.iter_states(run.id)] == [
        "Scheduled",
        "Pending",
        "Running",
        "Completed",
    ]
    [line] = client.iter_logs(LogFilter(run_ids=[run.id]))
    assert line.message == "10 words, 8 different"


def test_a_failure_is_told_with_its_words(client: SyncHeadraceClient, worker: GoWorker) -> None:
    run = until(client, ask(client, "word-counts/go", text=""), *FINAL)
    assert run.state.name == "Failed" and run.state.message == "there is no text to count the words of"


def test_a_run_is_cancelled(client: SyncHeadraceClient, worker: GoWorker) -> None:
    run = ask(client, "count-downs/go", seconds=600)
    until(client, run, "Running")
    client.cancel_run(run.id)
    assert until(client, run, *FINAL).state.name == "Cancelled"


def test_a_worker_that_is_stopped_ends_what_it_holds_and_takes_nothing_new(
    client: SyncHeadraceClient, server: ServerProcess, worker: GoWorker
) -> None:
    first = ask(client, "count-downs/go", seconds=3)
    until(client, first, "Running")
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    worker.wait_for("draining")
    second = ask(client, "word-counts/go", text="later")
    assert until(client, first, *FINAL).state.name == "Completed"
    stopping.join()
    assert client.get_run(second.id).state.name == "Scheduled"
    other = GoWorker(server.address)
    try:
        assert until(client, second, *FINAL).state.name == "Completed"
    finally:
        other.stop()


def test_a_server_that_is_killed_is_outlived(
    client: SyncHeadraceClient, server: ServerProcess, worker: GoWorker
) -> None:
    run = ask(client, "count-downs/go", seconds=6)
    until(client, run, "Running")
    port = {"HEADRACE_SERVER_API_PORT": server.address.rpartition(":")[2]}
    server.kill()
    server.settings = port
    server.start()
    worker.wait_for("connected", 2)
    run = until(client, run, *FINAL)
    assert run.state.name == "Completed" and run.attempt == 1


def test_a_run_that_it_does_not_know_is_refused(client: SyncHeadraceClient, worker: GoWorker) -> None:
    client.apply_deployment(Deployment(flow_name="x", name="go", work_pool="go", entrypoint="go:absent"))
    run = ask(client, "x/go")
    for change in client.watch_runs(RunFilter(ids=[run.id])):
        if change.HasField("upsert") and "refused" in change.upsert.state.message:
            break
    assert 'There is no "go:absent" in this worker.' in change.upsert.state.message


def test_node_is_there() -> None:
    assert shutil.which("npm", path=f"{ROOT / '.tools' / 'node' / 'bin'}:{os.environ['PATH']}")
