"""Flows served by their own program: registered, scheduled, run, and paused when nobody serves them."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from headrace.client import get_client
from headrace.client.deployments import deployment_key
from headrace.client.sync_client import SyncHeadraceClient
from headrace.settings import temporary_settings
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest
from headrace.v1.run_pb2 import RunFilter
from headrace.v1.state_pb2 import StateType
from tests.support.servers import ServerProcess
from tests.support.worker_processes import WorkerProcess, until

SCRIPT = """
import sys
from headrace import flow, serve

@flow
def hello(name: str = "you"):
    print("hello", name)

@flow
def other():
    pass

if __name__ == "__main__":
    if sys.argv[1] == "one":
        hello.serve("mine", interval=1, parameters={"name": "interval"}, tags=["served"])
    else:
        serve(hello.to_deployment("a"), other.to_deployment("b"))
"""


class Serving:
    """The script, serving; it is killed at the end if it still does."""

    def __init__(self, folder: pathlib.Path, environment: Mapping[str, str], what: str) -> None:
        (folder / "script.py").write_text(SCRIPT)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "script.py", what],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Serving:
        until(lambda: "Connected" in self.log.read_text() or self.process.poll() is not None, 60)
        assert "Connected" in self.log.read_text(), self.log.read_text()
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def leaves(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {"HEADRACE_SERVER_WORKER_HEARTBEAT_SECONDS": "0.5"}
    with ServerProcess(tmp_path_factory.mktemp("server"), settings=settings) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SyncHeadraceClient]:
    with (
        temporary_settings({"home": str(server.home), "api_url": server.address}),
        get_client(sync_client=True) as opened,
    ):
        yield opened


def test_a_served_flow_is_registered_run_and_paused_at_the_end(
    server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path
) -> None:
    environment = {**server.environment, "HEADRACE_API_URL": server.address}
    for _ in range(2):
        with Serving(tmp_path, environment, "one") as serving:
            deployment = client.get_deployment("hello/mine")
            assert not deployment.paused, "serving again has it scheduled again"
            assert (deployment.entrypoint, deployment.work_pool) == ("script.py:hello", "")
            filter = RunFilter(deployment_ids=[deployment.id])

            def completed(filter: RunFilter = filter) -> list[str]:
                return [
                    run.name
                    for run in client.iter_runs(filter)
                    if run.state.type == StateType.STATE_TYPE_COMPLETED
                ]

            before = len(completed())
            until(lambda before=before: len(completed()) > before, 60, "a scheduled run")  # type: ignore[misc]
            assert serving.leaves() == 0
        assert client.get_deployment("hello/mine").paused
    assert "hello interval" in (tmp_path / "log").read_text()


def test_the_command_serves_a_flow_of_any_file(
    server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path
) -> None:
    environment = {**server.environment, "HEADRACE_API_URL": server.address}
    (tmp_path / "script.py").write_text(SCRIPT)
    words = ("flow", "serve", "script.py:other", "-n", "by-command", "--cron", "0 9 * * *", "-t", "x")
    with WorkerProcess(environment, tmp_path, words) as serving:
        serving.says("Connected")
        deployment = client.get_deployment("other/by-command")
        assert [schedule.cron.cron for schedule in deployment.schedules] == ["0 9 * * *"]
        assert list(deployment.tags) == ["x"]
        request = CreateDeploymentRunRequest(deployment=deployment_key(deployment.id))
        run = client.create_deployment_run(request).run
        until(lambda: client.get_run(run.id).state.type == StateType.STATE_TYPE_COMPLETED, 60)
        serving.send(signal.SIGTERM)
        assert serving.leaves() == 0
    wrong = WorkerProcess(environment, tmp_path, ("flow", "serve", "script.py:other", "--timezone", "UTC"))
    with wrong:
        assert wrong.leaves() == 2
        assert "Give --cron" in wrong.log


def test_two_processes_serve_it_and_the_first_to_leave_does_not_pause_it(
    server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path
) -> None:
    environment = {**server.environment, "HEADRACE_API_URL": server.address}
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with (
        Serving(tmp_path / "first", environment, "two") as first,
        Serving(tmp_path / "second", environment, "two") as second,
    ):
        assert first.leaves() == 0
        assert not client.get_deployment("hello/a").paused
        request = CreateDeploymentRunRequest(deployment=deployment_key("other/b"))
        run = client.create_deployment_run(request).run
        until(lambda: client.get_run(run.id).state.type == StateType.STATE_TYPE_COMPLETED, 60)
        assert second.leaves() == 0
    assert client.get_deployment("hello/a").paused
    assert client.get_deployment("other/b").paused
