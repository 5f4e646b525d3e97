"""A machine that loses its network, both ways or one: a worker in a network namespace of its own, whose link
is taken down, or whose kernel drops what comes or what goes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.client import get_client
from headrace.settings import temporary_settings
from headrace.v1.state_pb2 import CrashedDetails, StateType
from tests.faults.ground import lease_settings
from tests.faults.test_run_processes import Place
from tests.support.servers import ServerProcess
from tests.support.worker_processes import WorkerProcess, is_running, until

pytestmark = pytest.mark.xdist_group("faults-partitions")  # one server and one network for all of them
LEASE_SECONDS = 3.0
AUTH = "me:secret"


@dataclass(frozen=True)
class Namespace:
    """A network of its own, linked to this one by a pair of interfaces.

    Attributes:
        name: of the namespace.
        link: our end of the pair.
        host: our address on it.
    """

    name: str
    link: str
    host: str

    def set_link(self, state: str) -> None:
        """Take the link `up` or `down`."""
        _ip("link", "set", self.link, state)

    def cut(self, way: str) -> None:
        """Cut it off: the whole `link`, or only what it says (`OUTPUT`) or hears (`INPUT`)."""
        if way == "link":
            self.set_link("down")
        else:
            self._drop("-A", way)

    def mend(self, way: str) -> None:
        """Undo `cut`."""
        if way == "link":
            self.set_link("up")
        else:
            self._drop("-D", way)

    def _drop(self, what: str, way: str) -> None:
        _ip("netns", "exec", self.name, "iptables", what, way, "-p", "tcp", "-j", "DROP")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _require_iptables(namespace: Namespace) -> None:
    if shutil.which("iptables") is None:
        pytest.skip("dropping what goes one way needs the command `iptables`")
    try:
        namespace.cut("INPUT")
        namespace.mend("INPUT")
    except OSError as error:
        pytest.skip(f"packets cannot be dropped here: {error}")


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command `ip`")
    number = os.getpid() % 250
    name, link, peer = f"headrace{os.getpid()}", f"hr{os.getpid()}a", f"hr{os.getpid()}b"
    made = Namespace(name, link, f"10.213.{number}.1")
    try:
        _ip("netns", "add", name)
    except OSError as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    try:
        _ip("link", "add", link, "type", "veth", "peer", "name", peer, "netns", name)
        _ip("address", "add", f"{made.host}/24", "dev", link)
        _ip("-n", name, "address", "add", f"10.213.{number}.2/24", "dev", peer)
        _ip("-n", name, "link", "set", peer, "up")
        made.set_link("up")
        yield made
    finally:
        _ip("netns", "delete", name)  # and the pair with it


@pytest.fixture(scope="module")
def server(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {
        **lease_settings(LEASE_SECONDS),
        "HEADRACE_SERVER_API_HOST": "0.0.0.0",
        "HEADRACE_SERVER_API_AUTH_STRING": AUTH,
    }
    with ServerProcess(tmp_path_factory.mktemp("server"), settings=settings) as process:
        yield process


@pytest.mark.parametrize("way", ["link", "OUTPUT", "INPUT"])
def test_a_worker_that_loses_its_network_ends_what_was_given_up(
    namespace: Namespace, server: ServerProcess, tmp_path: Path, way: str
) -> None:
    if way != "link":
        _require_iptables(namespace)
    port = server.address.rpartition(":")[2]
    # A home of its own, as on another machine.
    environment = {
        **server.environment,
        "HEADRACE_HOME": str(tmp_path / "elsewhere"),
        "HEADRACE_API_URL": f"{namespace.host}:{port}",
        "HEADRACE_API_AUTH_STRING": AUTH,
    }
    client_settings = {"api_url": f"127.0.0.1:{port}", "api_auth_string": AUTH}
    with temporary_settings(client_settings), get_client(sync_client=True) as client:
        place = Place(server, client, tmp_path)
        inside = ("ip", "netns", "exec", namespace.name)
        words = ("worker", "start", "--pool", place.pool)
        with WorkerProcess(environment, tmp_path, words, prefix=inside) as worker:
            run_id = place.queue("wait")
            (body,) = until(lambda: place.bodies(run_id), 60, "the body to begin")
            pid = place.pids(run_id)[0]
            namespace.cut(way)
            state = place.ended(run_id)
            assert state.type == StateType.STATE_TYPE_CRASHED
            assert state.crashed.cause == CrashedDetails.CAUSE_LEASE_EXPIRED
            assert is_running(pid), "it goes on: nobody has told it otherwise"
            namespace.mend(way)
            until(lambda: not is_running(pid), 60, "its worker to hear that the run is given up")
            worker.says("is ended here")
    assert body.end is None
