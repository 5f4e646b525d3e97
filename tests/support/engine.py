"""A container engine for tests: podman, which speaks Docker's API on a socket of its own.

No image has to be fetched: the only one is empty, and what containers need of Python comes from this machine.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from types import TracebackType
from typing import Any, Final, Self

import pytest

from tests.support.tools import ROOT
from tests.support.worker_processes import until

__all__ = ["IMAGE", "ContainerEngine", "require_podman"]

IMAGE: Final = "localhost/empty:1"
_FOLDERS: Final = ("bin", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sys", "tmp", "usr", "var")
_CONFIGURATION: Final = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/tmp"
"""


def require_podman() -> None:
    """Skip the test where there is no engine."""
    if shutil.which("podman") is None or shutil.which("runc") is None:
        pytest.skip("podman and runc are not installed: `make setup` does it on Debian")
    if os.geteuid() != 0:
        pytest.skip("podman is used as root here")


class ContainerEngine:
    """One engine with a store of its own; at its end nothing is left.

    Args:
        plain_registry: `host:port` of a registry that speaks plain HTTP.

    Attributes:
        environment: what podman needs besides that of this process.
    """

    def __init__(self, plain_registry: str = "") -> None:
        # Not below the folders of the tests: podman takes paths of at most 50 characters.
        self._folder = folder = pathlib.Path(tempfile.mkdtemp(prefix="engine-", dir="/tmp"))
        self.environment = {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }
        self._plain_registry = plain_registry
        self._service: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What DOCKER_HOST is to be."""
        return f"unix://{self._folder}/engine.sock"

    def command(self) -> list[str]:
        """What a command line of podman on the same store begins with; it needs `environment`, too."""
        store = ["--root", f"{self._folder}/root", "--runroot", f"{self._folder}/run"]
        return ["podman", *store, "--storage-driver", "vfs"]

    def podman(self, *words: str, **more: Any) -> str:
        """Run podman on the same store; what it prints."""
        command = [*self.command(), *words]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **more,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        """Answer on the socket."""
        socket = self._folder / "engine.sock"
        socket.unlink(missing_ok=True)
        command = [*self.command(), "system", "service", "--time=0", self.address]
        with (self._folder / "engine.log").open("ab") as log:
            self._service = subprocess.Popen(
                command,
                cwd=self._folder,  # where the keeper of a container notes that memory ran out
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(socket.exists, 60, "the engine")

    def stop(self) -> None:
        """Do not answer any more; containers go on."""
        if self._service is not None:
            self._service.kill()
            self._service.wait()

    def __enter__(self) -> Self:
        (self._folder / "containers.conf").write_text(_CONFIGURATION.format(folder=self._folder))
        location = f'[[registry]]\nlocation = "{self._plain_registry}"\ninsecure = true\n'
        (self._folder / "registries.conf").write_text(location if self._plain_registry else "")
        archive = self._folder / "empty.tar"
        with tarfile.open(archive, "w") as tar:
            for name in _FOLDERS:
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
        self.podman("import", str(archive), IMAGE)
        self._require_containers()
        self.start()
        return self

    def _require_containers(self) -> None:
        """Skip the tests where the kernel does not let this process make containers, as inside of some."""
        volumes = [word for volume in python_volumes() for word in ("--volume", volume)]
        try:
            self.podman("run", "--rm", "--network", "host", *volumes, IMAGE, sys.executable, "-c", "pass")
        except AssertionError as refused:
            shutil.rmtree(self._folder, ignore_errors=True)
            pytest.skip(f"podman is installed, but no container runs here: {str(refused).splitlines()[0]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.podman("rm", "--all", "--force", "--time", "0")
        shutil.rmtree(self._folder, ignore_errors=True)


def python_volumes() -> list[str]:
    """What a container needs to run this machine's Python with this project.

    Only the project can be written to, so that Python keeps there what it has compiled: without that, each
    container would compile all that it imports.
    """
    folders = {"/usr", "/lib", "/lib64", "/bin", "/etc/ssl", sys.prefix, sys.base_prefix, str(ROOT)}
    executable = pathlib.Path(sys.executable).resolve()
    folders.add(str(executable.parents[1]))
    kept = sorted(name for name in folders if pathlib.Path(name).is_dir())
    outermost = [name for name in kept if not any(_is_below(name, other) for other in kept)]
    writable = {str(ROOT), sys.prefix}
    return [f"{name}:{name}:{'rw' if name in writable else 'ro'}" for name in outermost]


def _is_below(name: str, other: str) -> bool:
    return name != other and pathlib.Path(name).is_relative_to(other)
