"""Deployments whose code is in a git repository, on a real worker."""

from __future__ import annotations

import json
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from headrace.client import get_client
from headrace.client.deployments import deployment_key
from headrace.client.sync_client import SyncHeadraceClient
from headrace.settings import temporary_settings
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest
from headrace.v1.run_pb2 import Run
from headrace.v1.state_pb2 import StateType
from headrace.v1.work_pool_pb2 import WorkPool
from tests.support.servers import ServerProcess
from tests.support.worker_processes import WorkerProcess, until

CODE = """
import pathlib
from headrace import flow

@flow
def etl(folder: str) -> None:
    with open(pathlib.Path(folder) / "journal", "a") as journal:
        journal.write("{word}\\n")
"""
FINAL = {
    StateType.STATE_TYPE_COMPLETED,
    StateType.STATE_TYPE_FAILED,
    StateType.STATE_TYPE_CRASHED,
    StateType.STATE_TYPE_CANCELLED,
}
CLONE = "headrace.deployments.steps.git_clone"


class Repository:
    """A git repository on this machine."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._git("init", "--quiet", "--initial-branch=main")

    def commit(self, word: str) -> str:
        """Commit a flow that writes `word`; the commit."""
        (self.folder / "flows").mkdir(exist_ok=True)
        (self.folder / "flows" / "etl.py").write_text(CODE.replace("{word}", word))
        self._git("add", ".")
        login = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        self._git(*login, "commit", "--quiet", "-m", word)
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SyncHeadraceClient]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        yield client


@pytest.fixture(scope="module")
def worker(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    environment = {**server.environment, "HEADRACE_API_URL": server.address}
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPool(name="p", type="process"))
    with WorkerProcess(environment, tmp_path_factory.mktemp("worker")) as running:
        yield running


def ended(client: SyncHeadraceClient, deployment: str) -> Run:
    """A new run of the deployment, once it has ended."""
    request = CreateDeploymentRunRequest(deployment=deployment_key(deployment))
    run_id = client.create_deployment_run(request).run.id
    until(lambda: client.get_run(run_id).state.type in FINAL, 60)
    return client.get_run(run_id)


def from_git(name: str, origin: str, folder: pathlib.Path) -> Deployment:
    said = Deployment(
        flow_name="etl",
        name=name,
        work_pool="p",
        entrypoint="flows/etl.py:etl",
        parameters=json.dumps({"folder": str(folder)}),
        labels={"team": "shop"},
    )
    said.pull_steps.steps.add().update({CLONE: {"repository": origin, "branch": "main"}})
    return said


def test_a_run_from_git_says_its_commit_and_the_next_one_follows_the_branch(
    client: SyncHeadraceClient, worker: WorkerProcess, tmp_path: pathlib.Path
) -> None:
    origin = Repository(tmp_path / "origin")
    first = origin.commit("one")
    client.apply_deployment(from_git("git", str(origin.folder), tmp_path))
    run = ended(client, "etl/git")
    assert run.state.type == StateType.STATE_TYPE_COMPLETED, run.state.message
    assert run.labels["git.commit"] == first
    assert run.labels["team"] == "shop", "the deployment's own labels stay"
    second = origin.commit("two")
    assert ended(client, "etl/git").labels["git.commit"] == second
    assert (tmp_path / "journal").read_text().split() == ["one", "two"]


def test_a_pull_step_that_fails_ends_the_run_with_its_words(
    client: SyncHeadraceClient, worker: WorkerProcess, tmp_path: pathlib.Path
) -> None:
    client.apply_deployment(from_git("lost", str(tmp_path / "nowhere"), tmp_path))
    run = ended(client, "etl/lost")
    assert run.state.type == StateType.STATE_TYPE_CRASHED
    assert "git_clone failed" in run.state.message
    assert "nowhere" in run.state.message
    assert "git.commit" not in run.labels
