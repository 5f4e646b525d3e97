"""`flow-run explain`, `retry` and `reschedule`, against a server."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import pytest

from headrace.client import get_client
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import STATE_TYPE_CRASHED, State
from headrace.v1.work_pool_pb2 import WorkPool
from tests.cli.conftest import Cli
from tests.support.servers import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def ask(cli: Cli, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command against the server."""
    monkeypatch.setenv("HEADRACE_API_URL", server.address)
    return cli


@pytest.fixture
def crashed(server: ServerProcess, tmp_path: pathlib.Path) -> str:
    """The id of a run of a deployment that has crashed."""
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPool(name="local", type="process"), return_existing=True)
        made = client.apply_deployment(Deployment(flow_name="etl", name="nightly", work_pool="local"))
        state = State(id=new_id(), type=STATE_TYPE_CRASHED)
        state.event_time.GetCurrentTime()
        run = Run(
            id=new_id(),
            kind=RUN_KIND_FLOW,
            name="otter",
            flow_name="etl",
            deployment_id=made.deployment.id,
            work_pool="local",
            state=state,
        )
        client.create_run(CreateRunRequest(run=run))
    return run.id


def test_a_run_is_retried_rescheduled_and_explained(ask: Cli, crashed: str) -> None:
    assert "has ended: it is Crashed" in ask("flow-run", "explain", crashed).out
    done = ask("flow-run", "retry", crashed)
    assert (done.code, done.err) == (0, "Flow run otter waits for a worker.\n")
    again = ask("flow-run", "retry", crashed)
    assert again.code == 1
    assert "cannot be retried: The run has not ended" in again.err

    table = ask("flow-run", "explain", crashed).out
    assert "no worker" in table
    assert "headrace worker start --pool local" in table
    answer = json.loads(ask("flow-run", "explain", crashed, "-o", "json").out)
    assert answer["cause"].endswith("NO_WORKER")
    assert answer["subject"] == "local"

    moved = ask("flow-run", "reschedule", crashed, "--at", "2999-01-01T00:00+00:00", "-o", "jsonl")
    assert moved.code == 0
    assert json.loads(moved.out)["id"] == crashed
    answer = json.loads(ask("flow-run", "explain", crashed, "-o", "json").out)
    assert answer["cause"].endswith("NOT_DUE")
    assert answer["until"].startswith("2999-01-01")


def test_mistakes_are_told(ask: Cli, crashed: str) -> None:
    wrong = ask("flow-run", "reschedule", crashed, "--at", "tomorrow")
    assert wrong.code == 2
    assert "'tomorrow' is no date and time" in wrong.err
    assert ask("flow-run", "explain", "nobody").code == 3
