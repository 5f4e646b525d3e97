"""A PostgreSQL server that is this process's own child: to be stopped, killed, frozen and started again."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support import postgres
from tests.support.postgres import Cluster

__all__ = ["PostgresProcess"]

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "shared_buffers": "32MB",
    # A process that is killed loses nothing that the operating system was given.
    "fsync": "off",
}


class PostgresProcess:
    """A cluster of its own; a context manager.

    Attributes:
        cluster: how to make databases on it.
    """

    def __init__(self) -> None:
        owner = postgres.unprivileged_user()
        self._binaries = postgres.find_binaries()
        self._data = pathlib.Path(tempfile.mkdtemp(prefix="headrace-pg-"))
        if owner is not None:
            self._binaries = postgres.reachable(self._binaries, self._data)
            for path in (self._data, *self._data.rglob("*")):
                os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
        self._run_as = postgres.run_as(owner)
        postgres.initialise(self._binaries, self._data, self._run_as)
        self._port = postgres.free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.cluster = Cluster(f"postgresql://headrace@127.0.0.1:{self._port}/postgres")

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self._port}"

    @property
    def log(self) -> str:
        """What it has printed."""
        return (self._data / "server.log").read_text(errors="replace")

    def start(self) -> Self:
        """Start it on what it has, and wait until it takes connections.

        Raises:
            PostgresUnavailable: it does not.
        """
        settings = {**_SETTINGS, "port": str(self._port), "unix_socket_directories": str(self._data)}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        words = [str(self._binaries / "postgres"), "-D", str(self._data / "cluster"), *flags]
        with (self._data / "server.log").open("ab") as log:
            # `setpriv` becomes what it starts, so its parent is this process, which must reap it.
            self._process = subprocess.Popen(
                [*_ends_with_us(self._run_as), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._data,
                start_new_session=True,
            )
        postgres.wait_until_ready(self.cluster, self._process, self._data)
        return self

    def stop_immediately(self) -> None:
        """End it as `pg_ctl stop -m immediate` does: without a checkpoint, so that it must recover."""
        self._end(lambda process: process.send_signal(signal.SIGQUIT))

    def kill(self) -> None:
        """End it and everything it has started without a word."""
        self._end(lambda process: _signal_all(process.pid, signal.SIGKILL))

    def freeze(self) -> None:
        """Nothing of it moves, until `thaw`."""
        assert self._process is not None
        _signal_all(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        _signal_all(self._process.pid, signal.SIGCONT)

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        process, self._process = self._process, None
        if process is not None:
            _signal_all(process.pid, signal.SIGCONT)
            how(process)
            process.wait(30)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_immediately()
        shutil.rmtree(self._data, ignore_errors=True)


def _ends_with_us(run_as: list[str]) -> list[str]:
    """Words before a command that have the kernel stop it when this process is killed, where it can."""
    if shutil.which("setpriv") is None:
        return run_as
    return [*(run_as or ["setpriv", "--"])[:-1], "--pdeathsig", "QUIT", "--"]


def _signal_all(leader: int, signum: signal.Signals) -> None:
    """Signal a server and its processes, each of which leads a session of its own."""
    for pid in [leader, *_children(leader)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def _children(parent: int) -> list[int]:
    try:
        text = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(word) for word in text.split()]
