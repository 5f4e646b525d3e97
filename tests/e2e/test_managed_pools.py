"""Managed pools: a real server that works them by itself, and what becomes of runs, worker and server."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from headrace.client import get_client
from headrace.client.deployments import deployment_key
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.ids import new_id
from headrace.flows import Flow
from headrace.settings import temporary_settings
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import Run, RunKind
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import State, StateType
from headrace.v1.work_pool_pb2 import WorkPool
from headrace.v1.worker_pb2 import Worker, WorkerStatus
from headrace_workers.managed.interpreters import find_pip
from headrace_workers.process.cgroups import find_hierarchies
from tests.support.servers import ServerProcess
from tests.support.worker_processes import is_running, until

FLOWS = """
import json, os, pathlib, sys, time
from headrace import flow

def note(folder, name, **facts):
    partial = pathlib.Path(folder, name + ".partial")
    partial.write_text(json.dumps({"pid": os.getpid(), "parent": os.getppid(), **facts}))
    partial.rename(pathlib.Path(folder, name))

@flow
def facts(folder):
    note(folder, "facts", env=dict(os.environ), cwd=os.getcwd())

@flow
def packaged(folder):
    import tiny
    note(folder, "packaged", prefix=sys.prefix, answer=tiny.ANSWER, env=dict(os.environ))

@flow
def leave(folder):
    os._exit(3)

@flow
def swell(folder):
    return len(b"x" * (10 * 1024 ** 3))

@flow
def breed(folder):
    made = []
    try:
        while len(made) < 1000:
            pid = os.fork()
            if pid == 0:
                os.setsid()
                time.sleep(600)
                os._exit(0)
            made.append(pid)
    finally:
        note(folder, "breed", made=made)
        for pid in made[:20]:  # its own threads need some room
            os.kill(pid, 9)
            os.waitpid(pid, 0)

@flow
def wait(folder):
    note(folder, "began")
    while not pathlib.Path(folder, "go").exists():
        time.sleep(0.02)
"""
CREDENTIALS = "operator:only-people-have-this"
FINAL = {
    StateType.STATE_TYPE_COMPLETED,
    StateType.STATE_TYPE_FAILED,
    StateType.STATE_TYPE_CANCELLED,
    StateType.STATE_TYPE_CRASHED,
}


def groups() -> str | None:
    """The control group for runs, where this machine lets us have one."""
    found = find_hierarchies(pathlib.Path("/proc/self/mounts").read_text())
    may = found is not None and all(os.access(top, os.W_OK) for top in found.tops)
    return f"headrace-test-{os.getpid()}" if may else None


class Place:
    """A server with a managed pool, a folder of code, and runs."""

    def __init__(self, server: ServerProcess, folder: pathlib.Path) -> None:
        self.server = server
        self.folder = folder
        self.client = self._client()
        self.client.create_work_pool(WorkPool(name="m", type="managed"), return_existing=True)
        (folder / "flows.py").write_text(FLOWS)

    def _client(self) -> SyncHeadraceClient:
        changes = {
            "home": self.server.home,
            "api_url": self.server.address,
            "api_auth_string": CREDENTIALS,
        }
        with temporary_settings(changes):
            return get_client(sync_client=True).__enter__()

    def start_again(self) -> None:
        """The server again, after its end."""
        self.client.__exit__(None, None, None)
        self.server.start()
        self.client = self._client()

    def queue(self, flow: str, **variables: Any) -> str:
        """Queue a run; its id."""
        run = Run(id=new_id(), kind=RunKind.RUN_KIND_FLOW, name=f"a {flow}", flow_name=flow, work_pool="m")
        run.state.CopyFrom(State(id=new_id(), type=StateType.STATE_TYPE_SCHEDULED, name="Scheduled"))
        run.state.event_time.GetCurrentTime()
        run.parameters.encoding = "json"
        run.parameters.inline = json.dumps({"folder": str(self.folder)}).encode()
        code = {"HEADRACE__ENTRYPOINT": f"{self.folder}/flows.py:{flow}"}
        run.job_variables.update({**variables, "env": code})
        self.client.create_run(CreateRunRequest(run=run))
        return run.id

    def ended(self, run_id: str) -> State:
        """The state of the run once that is final."""
        until(lambda: self.client.get_run(run_id).state.type in FINAL, 90, f"the end of {run_id}")
        return self.client.get_run(run_id).state

    def crashes(self, run_id: str, words: str) -> None:
        """Wait until a run is crashed, and that says why: the server may see the end before it knows."""
        assert self.ended(run_id).type == StateType.STATE_TYPE_CRASHED
        until(lambda: words in self.client.get_run(run_id).state.message, 60, words)

    def noted(self, name: str) -> dict[str, Any]:
        """What a flow has noted, once it has."""
        until((self.folder / name).exists, 60, name)
        found: dict[str, Any] = json.loads((self.folder / name).read_text())
        return found

    def worker(self) -> Worker:
        """The worker, once it is online."""

        def online() -> Sequence[Worker]:
            workers = list(self.client.iter_workers("m"))
            return [one for one in workers if one.status == WorkerStatus.WORKER_STATUS_ONLINE]

        return until(online, 60, "a worker")[0]

    def log(self, run_id: str) -> str:
        """The lines of a run."""
        return "\n".join(entry.message for entry in self.client.iter_logs(LogFilter(run_ids=[run_id])))


def _server(home: pathlib.Path) -> ServerProcess:
    cgroup = groups()
    settings = {
        "HEADRACE_SERVER_API_AUTH_STRING": CREDENTIALS,
        "HEADRACE_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/secret-name.db",
        "HEADRACE_SERVER_WORKER_HEARTBEAT_SECONDS": "0.5",
        "AWS_SECRET_ACCESS_KEY": "hush",
        **({} if cgroup is None else {"HEADRACE_SERVER_MANAGED_POOLS_CGROUP": cgroup}),
    }
    return ServerProcess(home, settings=settings)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with _server(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def place(server: ServerProcess, tmp_path: pathlib.Path) -> Iterator[Place]:
    place = Place(server, tmp_path)
    yield place
    place.client.__exit__(None, None, None)


def test_a_deployed_flow_runs_with_nothing_of_the_servers_own(place: Place) -> None:
    place.client.update_work_pool(WorkPool(name="m", concurrency_limit=5), ["concurrency_limit"])
    assert place.client.get_work_pool("m").concurrency_limit == 5
    place.client.update_work_pool(WorkPool(name="m"), ["concurrency_limit"])
    assert place.client.get_work_pool("m").concurrency_limit == os.cpu_count()
    with temporary_settings(
        {"home": place.server.home, "api_url": place.server.address, "api_auth_string": CREDENTIALS}
    ):
        found = Flow.from_source(source=str(place.folder), entrypoint="flows.py:facts")
        deployment = found.deploy(
            "here", work_pool_name="m", parameters={"folder": str(place.folder)}, print_next_steps=False
        )
        with pytest.raises(ValueError, match="'m', of type managed, are not started in images"):
            found.deploy("boxed", work_pool_name="m", image="box:1", build=False)
    asked = CreateDeploymentRunRequest(deployment=deployment_key(str(deployment)))
    run = place.client.create_deployment_run(asked).run
    assert place.ended(run.id).type == StateType.STATE_TYPE_COMPLETED
    worker, facts = place.worker(), place.noted("facts")
    assert worker.type == "managed"
    assert worker.name.startswith("managed-m@")
    assert facts["pid"] != worker.sdk.pid
    seen = json.dumps(facts["env"])
    assert "hush" not in seen
    assert "only-people-have-this" not in seen
    assert "secret-name" not in seen
    assert not [name for name in facts["env"] if name.startswith("HEADRACE_SERVER_")]
    managed = place.server.home / "managed"
    assert pathlib.Path(facts["env"]["HOME"]).parent == managed
    command = pathlib.Path(f"/proc/{worker.sdk.pid}/environ").read_bytes()
    assert b"hush" not in command
    assert b"secret-name" not in command


def wheel(folder: pathlib.Path) -> pathlib.Path:
    """A package with one module, that needs headrace."""
    path = folder / "tiny-1.0-py3-none-any.whl"
    files = {
        "tiny.py": "import headrace\nANSWER = 42\n",
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        "Requires-Dist: headrace\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    names = [*files, "tiny-1.0.dist-info/RECORD"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(names[-1], "".join(f"{name},,\n" for name in names))
    return path


needs_pip = pytest.mark.skipif(find_pip() is None, reason="neither this interpreter nor its base has pip")


@needs_pip
def test_packages_are_installed_once(place: Place, tmp_path: pathlib.Path) -> None:
    packages = ["--no-index", str(wheel(tmp_path))]
    first = place.queue("packaged", pip_packages=packages)
    assert place.ended(first).type == StateType.STATE_TYPE_COMPLETED, place.log(first)
    facts = place.noted("packaged")
    environments = place.server.home / "managed" / "environments"
    assert pathlib.Path(facts["prefix"]).parent == environments
    assert facts["answer"] == 42
    assert facts["env"]["PATH"].startswith(f"{facts['prefix']}/bin:")
    assert "Successfully installed tiny-1.0" in place.log(first)
    (tmp_path / "packaged").unlink()
    second = place.queue("packaged", pip_packages=list(reversed(packages)))
    assert place.ended(second).type == StateType.STATE_TYPE_COMPLETED
    assert place.noted("packaged")["prefix"] == facts["prefix"]
    assert "Successfully" not in place.log(second)


@needs_pip
def test_packages_that_cannot_be_installed_are_the_end_of_the_run(place: Place) -> None:
    state = place.ended(place.queue("packaged", pip_packages=["--no-index", "no-such-package"]))
    assert state.type == StateType.STATE_TYPE_CRASHED
    assert "could not be installed" in state.message
    assert "No matching distribution found for no-such-package" in state.message
    assert len(list((place.server.home / "managed" / "environments").glob("*/requirements.txt"))) <= 1


def test_what_runs_do_to_their_machine_is_told_and_does_not_hurt_the_server(place: Place) -> None:
    left = place.queue("leave")
    swollen = place.queue("swell", memory_limit="256m")
    place.crashes(left, "exit code 3")
    state = place.ended(swollen)
    if groups() is None:
        assert (state.type, "MemoryError" in state.message) == (StateType.STATE_TYPE_FAILED, True)
    else:
        place.crashes(swollen, "had all the memory that it may have")
        state = place.ended(place.queue("breed", process_limit=50))
        assert state.type == StateType.STATE_TYPE_FAILED
        assert "Resource temporarily unavailable" in state.message
        made = place.noted("breed")["made"]
        assert 0 < len(made) < 50
        until(lambda: not [pid for pid in made if is_running(pid)], 30, "the end of what was forked")
    assert place.ended(place.queue("facts")).type == StateType.STATE_TYPE_COMPLETED


def test_a_worker_that_is_killed_is_started_again_and_leaves_with_its_pool(place: Place) -> None:
    first = place.worker()
    os.kill(first.sdk.pid, signal.SIGKILL)
    until(lambda: not is_running(first.sdk.pid))
    assert place.ended(place.queue("facts")).type == StateType.STATE_TYPE_COMPLETED
    second = place.worker()
    assert (second.id, second.sdk.pid == first.sdk.pid) == (first.id, False)
    assert "its worker has ended with exit code -9; starting it again in 1 s" in place.server.log
    place.client.delete_work_pool("m")
    until(lambda: not is_running(second.sdk.pid), 60, "the worker to leave")


def test_a_server_that_stops_lets_runs_end_and_one_that_is_killed_leaves_nothing(
    tmp_path: pathlib.Path,
) -> None:
    server = _server(tmp_path / "server")
    with server:
        place = Place(server, tmp_path)
        run = place.queue("wait")
        place.noted("began")
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "runs that go on: 1" in server.log, 60, "the worker to drain")
        (tmp_path / "go").touch()
        assert server.process.wait(60) == 0
        place.start_again()
        assert place.client.get_run(run).state.type == StateType.STATE_TYPE_COMPLETED
        (tmp_path / "go").unlink()
        (tmp_path / "began").unlink()
        place.queue("wait")
        began, worker = place.noted("began"), place.worker()
        folders = {began["pid"], began["parent"], worker.sdk.pid}
        assert all(is_running(pid) for pid in folders)
        server.kill()
        until(lambda: not [pid for pid in folders if is_running(pid)], 30, "the end of everything")
        place.start_again()
        (tmp_path / "go").touch()
        assert place.ended(place.queue("facts")).type == StateType.STATE_TYPE_COMPLETED
        place.client.__exit__(None, None, None)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs leave no control groups behind."""
    cgroup = groups()
    yield
    if cgroup is not None:
        found = find_hierarchies(pathlib.Path("/proc/self/mounts").read_text())
        assert found is not None
        for top in found.tops:
            if (top / cgroup).exists():
                (top / cgroup).rmdir()
