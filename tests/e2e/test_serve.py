"""Flows served by their own program: registered, scheduled, run, and paused when nobody serves them."""

from __future__ import annotations

import asyncio
import http.client
import json
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest

from headrace.client import get_client
from headrace.client.deployments import deployment_key
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.ids import new_id
from headrace.deployments import LocalStorage
from headrace.runner import Runner, RunnerDeployment
from headrace.settings import temporary_settings
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.state_pb2 import StateType
from tests.support.servers import ServerProcess
from tests.support.worker_processes import WorkerProcess, until

SCRIPT = """
import pathlib, sys, time
from headrace import flow, serve

@flow
def hello(name: str = "you"):
    print("hello", name)

@flow
def other():
    pass

@flow
def wait(folder: str):
    pathlib.Path(folder, "began").touch()
    while True:
        time.sleep(0.01)

if __name__ == "__main__":
    if sys.argv[1] == "web":
        hello.serve("web", webserver=True)
    elif sys.argv[1] == "one":
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


def asked(port: str, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """Status and answer of an HTTP request."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


def test_a_serving_process_answers_over_http(
    server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path
) -> None:
    environment = {
        **server.environment,
        "HEADRACE_API_URL": server.address,
        "HEADRACE_RUNNER_SERVER_PORT": "0",
    }
    with Serving(tmp_path, environment, "web") as serving:
        port = re.findall(r"served on port (\d+)", serving.log.read_text())[0]
        assert asked(port, "GET", "/health") == (200, {"message": "OK"})
        assert asked(port, "GET", "/run_count") == (200, 0)
        run_path = f"/deployment/{client.get_deployment('hello/web').id}/run"
        status, answer = asked(port, "POST", run_path, {"name": "http"})
        assert status == 201
        run = until(lambda: ended(client, answer["flow_run_id"]), 60, "the run")
        assert run.state.type == StateType.STATE_TYPE_COMPLETED
        assert "hello http" in serving.log.read_text()
        status, answer = asked(port, "POST", run_path, {"nam": "x"})
        assert (status, answer["fields"][0]["field"]) == (422, "parameters.nam")
        assert asked(port, "POST", run_path, ["x"])[0] == 400
        assert asked(port, "GET", run_path)[0] == 405
        assert asked(port, "POST", f"/deployment/{new_id()}/run")[0] == 404
        assert asked(port, "POST", "/shutdown", Origin="https://example.org")[0] == 403
        assert asked(port, "GET", "/nowhere")[0] == 404
        assert asked(port, "POST", "/shutdown") == (200, {"message": "OK"})
        assert serving.process.wait(60) == 0
    assert client.get_deployment("hello/web").paused


def ended(client: SyncHeadraceClient, run_id: str) -> Run | None:
    run = client.get_run(run_id)
    return run if run.HasField("end_time") else None


def test_one_run_is_executed_in_a_process_of_its_own(
    server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path, one_event_loop: None
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    hello = RunnerDeployment.from_storage(LocalStorage(tmp_path), "script.py:hello", "by hand")
    deployed = RunnerDeployment.from_storage(LocalStorage(tmp_path), "script.py:wait", "by hand")

    async def executed() -> list[str]:
        made = [await hello.aapply(), await deployed.aapply()]
        runner = Runner()
        request = CreateDeploymentRunRequest(deployment=deployment_key(made[0]))
        quick = (await asyncio.to_thread(client.create_deployment_run, request)).run.id
        assert await runner.execute_flow_run(quick) == 0
        request = CreateDeploymentRunRequest(
            deployment=deployment_key(made[1]), parameters=json.dumps({"folder": str(tmp_path)})
        )
        endless = (await asyncio.to_thread(client.create_deployment_run, request)).run.id
        executing = asyncio.create_task(runner.execute_flow_run(UUID(endless)))
        await asyncio.to_thread(until, (tmp_path / "began").exists, 60, "the body")
        executing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await executing
        return [quick, endless]

    runs = [client.get_run(id) for id in asyncio.run(executed())]
    assert [run.state.name for run in runs] == ["Completed", "Crashed"]
    assert "termination signal" in runs[1].state.message
