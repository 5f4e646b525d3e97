"""Deploying what is pushed: a real `headrace git-sync`, a real server, worker and repository."""

from __future__ import annotations

import asyncio
import http.client
import json
import pathlib
import re
import signal
from collections.abc import Iterator
from typing import Any

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
from headrace_workers.git_sync.apply import LABEL
from headrace_workers.git_sync.applying import Applier, ApplyOptions
from headrace_workers.git_sync.store import Target
from tests.support.git_repositories import PushedRepository
from tests.support.servers import ServerProcess, run_headrace
from tests.support.webhooks import SECRET, post, push_request
from tests.support.worker_processes import WorkerProcess, is_running, until

FLOW = """
from headrace import flow

@flow
def {name}(region: str = "north") -> str:
    return region
"""
FILE = """
environments:
  prod: {{"+tags": [prod]}}
deployments:
  - {{name: nightly, entrypoint: "flows.py:orders", work_pool: p, tags: [{tag}]}}
"""
PINNED = """
build:
  - run_shell_script: {{id: commit, script: git rev-parse HEAD}}
pull:
  - git_clone: {{repository: "{url}", commit_sha: "{{{{ commit.stdout }}}}"}}
"""
TWO = """
deployments:
  - {name: nightly, entrypoint: "flows.py:orders", work_pool: p, labels: {team: shop}}
  - {name: weekly, entrypoint: "other.py:reports", work_pool: p}
"""
ENDED = {StateType.STATE_TYPE_COMPLETED, StateType.STATE_TYPE_FAILED, StateType.STATE_TYPE_CRASHED}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SyncHeadraceClient]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPool(name="p", type="process"), return_existing=True)
        for deployment in client.iter_deployments():
            client.delete_deployment(deployment.id)
        yield client


def kept(client: SyncHeadraceClient) -> dict[str, Deployment]:
    return {f"{one.flow_name}/{one.name}": one for one in client.iter_deployments()}


def status(port: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/status")
    said: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return said


def ended(client: SyncHeadraceClient, deployment: str) -> Run:
    """A new run of the deployment, once it has ended."""
    request = CreateDeploymentRunRequest(deployment=deployment_key(deployment))
    run_id = client.create_deployment_run(request).run.id
    until(lambda: client.get_run(run_id).state.type in ENDED, 60)
    return client.get_run(run_id)


def test_what_is_pushed_is_what_runs(
    server: ServerProcess, client: SyncHeadraceClient, tmp_path: pathlib.Path
) -> None:
    repository = PushedRepository(tmp_path)
    first = repository.pushed({"flows.py": FLOW.format(name="orders"), "headrace.yaml": FILE.format(tag="a")})
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    environment = {**server.environment, "GITHUB_SHA": "f" * 40}  # of a job that has nothing to do with it
    words = ["git-sync", "start", repository.url, "--secret-file", str(tmp_path / "secret"), "--port", "0"]
    with WorkerProcess(environment, tmp_path) as worker, WorkerProcess(environment, tmp_path, words) as sync:
        sync.says("Applied")
        port = int(re.findall(r"127\.0\.0\.1:(\d+)/webhook", sync.log)[0])
        nightly = kept(client)["orders/nightly"]
        assert (nightly.version, nightly.version_info["branch"]) == (first, "main")
        assert nightly.labels[LABEL].startswith("shop-main-")
        worker.says("pool p")
        run = ended(client, "orders/nightly")
        assert run.state.type == StateType.STATE_TYPE_COMPLETED, run.state.message
        assert run.labels["git.commit"] == first

        second = repository.pushed(
            {"headrace.yaml": FILE.format(tag="b") + PINNED.format(url=repository.url)}
        )
        assert post(port, *push_request("github", second, first))[0] == 202
        sync.says(f"Applied {second[:12]}")
        nightly = kept(client)["orders/nightly"]
        assert (nightly.version, nightly.version_number, list(nightly.tags)) == (second, 2, ["b"])
        assert "orders/nightly: changed, now version 2" in sync.log and "tags" in sync.log

        broken = repository.pushed({"headrace.yaml": FILE.format(tag="c").replace("tags", "tagz")})
        assert post(port, *push_request("gitlab", broken, second))[0] == 202
        sync.says("Did you mean tags?")
        until(lambda: status(port)["trouble"], 60)
        said = status(port)
        assert said["applied_commit"] == second and not said["last_attempt"]["is_applied"]
        assert kept(client)["orders/nightly"] == nightly, "it is as it was"
        assert ended(client, "orders/nightly").labels["git.commit"] == second, "and so is what it runs"
        sync.process.send_signal(signal.SIGTERM)
        assert sync.process.wait(60) == 0, sync.log
    listed = run_headrace("git-sync", "ls", "-o", "json", environment=server.environment)
    [one] = json.loads(listed.stdout)
    assert (one["applied_commit"], one["last"]["commit"]) == (second, broken)
    assert SECRET not in sync.log + listed.stdout


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> PushedRepository:
    return PushedRepository(tmp_path)


class Applying:
    """Applies what is pushed to a repository, without a process of `git-sync` around it."""

    def __init__(self, server: ServerProcess, repository: PushedRepository, folder: pathlib.Path) -> None:
        self.environment = {**server.environment, "HEADRACE_API_URL": server.address}
        self.repository = repository
        self.folder = folder / "sync"
        self.told: list[str] = []

    async def __call__(self, files: dict[str, str], *, target: Target | None = None, **options: Any) -> Any:
        commit = self.repository.pushed(files)
        target = target or Target(self.repository.url, "main")
        applier = Applier(target, self.folder, ApplyOptions(**options), self.environment, self.told.append)
        return await applier.apply(commit)


@pytest.fixture
def applying(server: ServerProcess, repository: PushedRepository, tmp_path: pathlib.Path) -> Applying:
    return Applying(server, repository, tmp_path)


async def test_what_the_file_has_no_more_is_told_and_goes_if_that_is_wanted(
    client: SyncHeadraceClient, applying: Applying
) -> None:
    by_hand = Deployment(flow_name="orders", name="by-hand", work_pool="p", entrypoint="x.py:y")
    client.apply_deployment(by_hand, ["work_pool", "entrypoint"])
    theirs = Deployment(flow_name="orders", name="theirs", labels={LABEL: "another"})
    client.apply_deployment(theirs, ["labels"])
    weekly = Deployment(flow_name="reports", name="weekly", labels={"kept": "yes"}, work_pool="p")
    client.apply_deployment(weekly, ["labels", "work_pool"])
    flows = {"flows.py": FLOW.format(name="orders"), "other.py": FLOW.format(name="reports")}

    done = await applying({**flows, "headrace.yaml": TWO})
    assert (done.is_applied, done.message) == (True, "1 created, 1 changed")
    labels = {name: dict(one.labels) for name, one in kept(client).items()}
    sync_id = Target(applying.repository.url, "main").id
    assert labels["orders/nightly"] == {"team": "shop", LABEL: sync_id}
    assert labels["reports/weekly"] == {"kept": "yes", LABEL: sync_id}, "the server's own stay"

    only = {"headrace.yaml": FILE.format(tag="a")}
    done = await applying(only)
    assert {one["name"]: one["outcome"] for one in done.deployments}["reports/weekly"] == "kept"
    assert any("reports/weekly: no longer in the file, and kept" in line for line in applying.told)
    done = await applying(only, prune=True)
    assert {one["name"]: one["outcome"] for one in done.deployments}["reports/weekly"] == "deleted"
    assert set(kept(client)) == {"orders/nightly", "orders/by-hand", "orders/theirs"}


async def test_some_of_the_deployments_of_a_folder_in_an_environment(
    client: SyncHeadraceClient, applying: Applying
) -> None:
    target = Target(applying.repository.url, "main", "team/etl", "prod")
    file = FILE.format(tag="a") + '  - {name: hourly, entrypoint: "flows.py:orders", work_pool: p}\n'
    files = {"team/etl/flows.py": FLOW.format(name="orders"), "team/etl/headrace.yaml": file}
    done = await applying(files, target=target, names=("night*",), prune=True)
    assert done.is_applied and set(kept(client)) == {"orders/nightly"}
    assert list(kept(client)["orders/nightly"].tags) == ["a", "prod"]
    assert (await applying({}, target=target, prune=True)).message == "1 created, 1 changed"
    done = await applying({}, target=target, names=("nightli",), prune=True)
    assert not done.is_applied and "Did you mean nightly?" in done.message
    assert set(kept(client)) == {"orders/nightly", "orders/hourly"}, "what a name leaves out stays"
    done = await applying({}, target=Target(target.repository, "main", "elsewhere"))
    assert "no folder elsewhere" in done.message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import not_there", "not_there"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("import os; print('the last words', flush=True); os._exit(7)", "ended with code 7"),
    ],
    ids=["import", "killed", "exit"],
)
async def test_code_that_breaks_takes_nothing_with_it(
    client: SyncHeadraceClient, applying: Applying, code: str, reason: str
) -> None:
    files = {"flows.py": FLOW.format(name="orders"), "other.py": code, "headrace.yaml": TWO}
    done = await applying(files)
    assert not done.is_applied and reason in done.message
    assert "exit" not in code or any("the last words" in line for line in applying.told)
    # Those before it are deployed, as `headrace deploy --all` would.
    assert ("orders/nightly" in kept(client)) is True


async def test_what_is_ended_ends_with_all_that_it_has_started(
    client: SyncHeadraceClient, applying: Applying, tmp_path: pathlib.Path
) -> None:
    pid = tmp_path / "pid"
    code = (
        f"import pathlib, subprocess; p = subprocess.Popen(['sleep', '600']); f = pathlib.Path({str(pid)!r})"
    )
    code += "\nf.with_suffix('.new').write_text(str(p.pid)); f.with_suffix('.new').rename(f); p.wait()"
    files = {"flows.py": code, "headrace.yaml": FILE.format(tag="a")}
    task = asyncio.ensure_future(applying(files))
    await asyncio.to_thread(until, pid.exists, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_running(int(pid.read_text()))
    done = await applying(files, timeout_seconds=0.01)
    assert "longer than 0.01 s" in done.message and kept(client) == {}


async def test_a_checkout_that_was_left_half_made_is_made_anew(
    client: SyncHeadraceClient, applying: Applying
) -> None:
    half = applying.folder / "checkout" / ".git"
    half.mkdir(parents=True)
    (half / "index.lock").write_text("")
    done = await applying({"flows.py": FLOW.format(name="orders"), "headrace.yaml": FILE.format(tag="a")})
    assert done.is_applied, done.message


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{url}", "--host", "0.0.0.0"], 2, "Say --secret-file"),
        (["{url}", "--no-webhook", "--secret-file", "{secret}"], 2, "--secret-file is for notices"),
        (["{url}", "--secret-file", "{absent}"], 2, "No such file"),
        (["{url}", "--secret-file", "{empty}"], 2, "holds no secret"),
        (["{absent}"], 3, "is not there"),
        (["{url}", "--access-token-file", "{secret}"], 2, "for addresses of http"),
        (["{url}", "--branch", "absent", "--run-once"], 1, "has no branch absent"),
    ],
    ids=["host", "secret", "file", "empty", "folder", "token", "branch"],
)
def test_mistakes(
    repository: PushedRepository,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    message: str,
) -> None:
    from headrace.cli import main

    repository.pushed({"a": "1"})
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "empty").write_text("\n")
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("headrace.settings._process", None)
    places = {name: str(tmp_path / name) for name in ("secret", "empty", "absent")}
    assert main(["git-sync", "start", *(word.format(url=repository.url, **places) for word in words)]) == code
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
