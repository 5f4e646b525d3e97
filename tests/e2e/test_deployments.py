"""A deployment, a pool and a worker, from the command line and from a flow, all as real processes."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import pytest

from headrace import flow
from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.deployments import run_deployment
from headrace.settings import temporary_settings
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.run_pb2 import RunFilter
from headrace.v1.work_pool_pb2 import WorkPool
from tests.support.servers import ServerProcess, run_headrace
from tests.support.worker_processes import WorkerProcess

CODE = """
import os, pathlib
from headrace import flow

@flow
def etl(folder: str, number: int = 0) -> None:
    line = f"{os.environ['LEVEL']} {os.environ.get('OTHER')} {number} %s\\n"
    with open(pathlib.Path(folder) / "journal", "a") as journal:
        journal.write(line)
"""
SCHEMA = {"properties": {"folder": {"type": "string"}, "number": {"type": "integer"}}, "required": ["folder"]}


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "server") as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SyncHeadraceClient]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        yield client


def deployed(client: SyncHeadraceClient, folder: pathlib.Path, code: str) -> Deployment:
    (folder / code).mkdir(exist_ok=True)
    (folder / code / "flows.py").write_text(CODE % code)
    said = Deployment(
        flow_name="etl",
        name="nightly",
        work_pool="p",
        work_queue="fast",
        path=str(folder / code),
        entrypoint="flows.py:etl",
        parameters=json.dumps({"folder": str(folder)}),
        parameter_schema=json.dumps(SCHEMA),
    )
    said.job_variables.update({"env": {"LEVEL": "low", "OTHER": "kept"}})
    return client.apply_deployment(said).deployment


@flow
def nightly() -> str:
    run = run_deployment("etl/nightly", {"number": 3}, timeout=60)
    assert run.state is not None and run.state.is_completed()
    return run.id


def test_versions_of_code_run_on_a_worker(
    server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path
) -> None:
    client.create_work_pool(WorkPool(name="p", type="process"))
    deployed(client, tmp_path, "one")
    environment = {**server.environment, "HEADRACE_API_URL": server.address}

    def ask(*words: str) -> str:
        answer = run_headrace(*words, environment=environment)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    waits = ask("deployment", "run", "etl/nightly", "-p", "number=1").strip()
    deployed(client, tmp_path, "two")
    with WorkerProcess(environment, tmp_path):
        ask("flow-run", "watch", waits)
        ask("deployment", "run", "nightly", "-p", "number=2", "--job-variable", "env.LEVEL=debug", "--watch")
        ask("deployment", "rollback", "nightly")
        child = nightly()
    # A run keeps the version it was made with, and says of the environment only what it says.
    journal = (tmp_path / "journal").read_text().splitlines()
    assert journal == ["low kept 1 one", "debug kept 2 two", "low kept 3 one"]
    [parent] = client.iter_runs(RunFilter(flow_names=["nightly"]))
    assert client.get_run(child).parent_run_id == parent.id
