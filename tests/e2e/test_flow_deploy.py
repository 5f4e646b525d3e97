"""`flow.deploy` and `flow.from_source`: what they refuse, and what a real worker makes of them."""

from __future__ import annotations

import asyncio
import inspect
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from headrace import deploy, flow
from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.errors import ConfigurationError, ObjectNotFound
from headrace.deployments import GitRepository, LocalStorage, RemoteStorage, run_deployment
from headrace.deployments.git import GitError
from headrace.deployments.sources import storage_of
from headrace.exceptions import MissingFlowError
from headrace.flows import Flow
from headrace.runner import RunnerDeployment
from headrace.settings import temporary_settings
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.work_pool_pb2 import WorkPool
from tests.support.servers import ServerProcess
from tests.support.tools import ROOT
from tests.support.worker_processes import WorkerProcess

CODE = """
import pathlib
from headrace import flow
{extra}
@flow
def etl(folder: str, word: str = "{word}") -> None:
    with open(pathlib.Path(folder) / "journal", "a") as journal:
        journal.write(word + " ")

if __name__ == "__main__":
    etl.deploy("local", "p", parameters={{"folder": {folder!r}}}, cron="0 2 * * *", tags=["t"])
"""


@flow
def here(n: int = 1) -> None:
    pass


def write(folder: pathlib.Path, word: str, journal: pathlib.Path, extra: str = "") -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    path = folder / "etl.py"
    path.write_text(CODE.format(word=word, folder=str(journal), extra=extra))
    return path


def git(folder: pathlib.Path, *words: str) -> str:
    login = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *login, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SyncHeadraceClient]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        known = {pool.name for pool in client.iter_work_pools()}
        for name, kind in {"p": "process", "boxes": "docker"}.items():
            if name not in known:
                client.create_work_pool(WorkPool(name=name, type=kind))
        yield client


def names(client: SyncHeadraceClient) -> set[str]:
    return {one.name for one in client.iter_deployments()}


def test_the_program_of_a_flow_deploys_it_and_a_worker_runs_it(
    server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path
) -> None:
    script = write(tmp_path / "code", "here", tmp_path)
    environment = {**server.environment, "HEADRACE_API_URL": server.address}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Deployed etl/local to pool p." in done.stderr
    assert done.stdout == "", "standard output is the program's own"
    deployment = client.get_deployment("etl/local")
    assert [schedule.cron.cron for schedule in deployment.schedules] == ["0 2 * * *"]
    assert (deployment.work_pool, list(deployment.tags)) == ("p", ["t"])
    with WorkerProcess(environment, tmp_path):
        run = run_deployment("etl/local", timeout=60)
    assert run.state is not None
    assert run.state.is_completed(), run.state.message
    assert (tmp_path / "journal").read_text() == "here "


def test_a_flow_from_git_is_fetched_anew_for_each_run(
    server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path
) -> None:
    origin = tmp_path / "origin.git"
    write(origin, "one", tmp_path)
    git(origin, "init", "--quiet", "--initial-branch=main")
    git(origin, "add", ".")
    git(origin, "commit", "--quiet", "-m", "one")
    loaded = flow.from_source(str(origin), "etl.py:etl").with_options(description="From git.")
    loaded.deploy("git", "p", parameters={"folder": str(tmp_path)}, print_next_steps=False)
    write(origin, "two", tmp_path)
    git(origin, "commit", "--quiet", "-am", "two")
    environment = {**server.environment, "HEADRACE_API_URL": server.address}
    with WorkerProcess(environment, tmp_path):
        run = run_deployment("etl/git", timeout=60)
    assert run.state is not None
    assert run.state.is_completed(), run.state.message
    # The parameter's default is the new commit's, though the flow was deployed from the old one.
    assert (tmp_path / "journal").read_text() == "two "
    assert client.get_run(run.id).labels["git.commit"] == git(origin, "rev-parse", "HEAD")


def test_nothing_is_made_when_one_deployment_cannot_be(client: SyncHeadraceClient) -> None:
    good = here.to_deployment("good", work_pool_name="p")
    with pytest.raises(ObjectNotFound, match=r"no work pool 'boxs'\. Did you mean 'boxes'\?"):
        deploy(good, here.to_deployment("bad"), work_pool_name="boxs")
    with pytest.raises(ValueError, match="'boxes', of type docker, do not see the files"):
        deploy(good, here.to_deployment("bad", work_pool_name="boxes"))
    with pytest.raises(ConfigurationError, match="No work pool is named for deployment 'bad'"):
        deploy(good, here.to_deployment("bad"))
    secret = GitRepository("https://example.org/a.git", credentials={"access_token": "s3cret"})
    with pytest.raises(ValueError, match="Credentials"):
        deploy(good, RunnerDeployment("bad", "f", "x.py:f", work_pool_name="p", storage=secret))
    with pytest.raises(ValueError, match="at least one"):
        deploy()
    assert names(client).isdisjoint({"good", "bad"})


def test_deploying_again_leaves_it_paused_that_is(client: SyncHeadraceClient) -> None:
    def deployed(**options: Any) -> Deployment:
        here.deploy("kept", "p", cron="0 9 * * *", print_next_steps=False, **options)
        return client.get_deployment("here/kept")

    assert not deployed().paused
    client.pause_deployment("here/kept")
    labelled = Deployment(flow_name="here", name="kept", labels={"team": "blue"})
    client.apply_deployment(labelled, ["labels"])
    again = deployed(description="Another text.")
    assert (again.paused, again.description) == (True, "Another text.")
    assert dict(again.labels) == {"team": "blue"}, "code does not speak of them"
    assert not deployed(paused=False).paused
    assert deployed(paused=True).paused


def test_pools_whose_workers_are_elsewhere(
    client: SyncHeadraceClient, capsys: pytest.CaptureFixture[str]
) -> None:
    here.deploy("module", "boxes", entrypoint_type="module", job_variables={"image": "shop:7"})
    made = client.get_deployment("here/module")
    assert (made.path, made.entrypoint) == ("", f"{__name__}:here")
    assert made.job_variables["image"] == "shop:7"
    assert "headrace deployment run here/module" in capsys.readouterr().err
    here.deploy("anyway", "boxes", ignore_warnings=True, print_next_steps=False)
    assert client.get_deployment("here/anyway").path
    assert capsys.readouterr().err == ""


async def test_on_an_event_loop(
    server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path
) -> None:
    write(tmp_path / "code", "loop", tmp_path)
    pool = WorkPool(name="p", type="process")
    await asyncio.to_thread(client.create_work_pool, pool, return_existing=True)
    loaded = await flow.afrom_source(tmp_path / "code", "etl.py:etl")
    with temporary_settings({"api_url": server.address, "default_work_pool_name": "p"}):
        made = await loaded.adeploy("loop", print_next_steps=False)
    deployment = await asyncio.to_thread(client.get_deployment, made)
    [step] = deployment.pull_steps.steps
    step_name = "headrace.deployments.steps.set_working_directory"
    assert MessageToDict(step) == {step_name: {"directory": str(tmp_path / "code")}}


def test_the_program_of_the_page(
    server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path
) -> None:
    page = (ROOT / "docs" / "deploying.md").read_text()
    [program] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "orders.py").write_text(program)
    environment = {**server.environment, "HEADRACE_API_URL": server.address}
    if "default" not in {pool.name for pool in client.iter_work_pools()}:
        client.create_work_pool(WorkPool(name="default", type="process"))
    done = subprocess.run(
        [sys.executable, "orders.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert client.get_deployment("orders/nightly").entrypoint == "orders.py:orders"


def test_sources() -> None:
    assert isinstance(storage_of("https://example.org/a/b"), GitRepository)
    assert isinstance(storage_of("git@example.org:a/b"), GitRepository)
    assert isinstance(storage_of("file:///srv/a.git"), GitRepository)
    assert isinstance(storage_of("s3://bucket/flows"), RemoteStorage)
    local = storage_of("file:///srv/a%20b")
    assert isinstance(local, LocalStorage)
    assert local.path == pathlib.Path("/srv/a b")
    assert isinstance(storage_of("flows"), LocalStorage)
    with pytest.raises(TypeError, match="not 5"):
        storage_of(5)  # type: ignore[arg-type]


def test_what_cannot_be_loaded(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "code", "x", tmp_path)
    with pytest.raises(NotADirectoryError, match="nowhere"):
        flow.from_source(tmp_path / "nowhere", "etl.py:etl")
    with pytest.raises(GitError, match="nowhere"):
        flow.from_source(str(tmp_path / "nowhere.git"), "etl.py:etl")
    with pytest.raises(MissingFlowError, match="'elt' not found"):
        Flow.from_source(tmp_path / "code", "etl.py:elt")


def test_credentials_are_not_recorded() -> None:
    storage = GitRepository("https://example.org/a.git", credentials={"access_token": "s3cret"})
    deployment = RunnerDeployment("a", "f", "x.py:f", storage=storage)
    with pytest.raises(ValueError, match="environment variable of the workers") as raised:
        deployment.to_message()
    assert "s3cret" not in str(raised.value)


def test_options_that_there_are_not_are_no_options() -> None:
    assert "triggers" not in inspect.signature(here.deploy).parameters
