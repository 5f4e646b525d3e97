"""A server process that lives no longer than the tests that it serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from headrace.core.errors import ServerUnavailable
from headrace.recorder.options import read_server_file

__all__ = ["LocalServer"]

_STOP_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.01
_LOG_LINES: Final = 15
# Reads a line when the tests end as they should, or the end of the pipe when their process is killed.
_GUARD: Final = 'read -r _ || { kill "$0"; sleep 2; rm -rf "$1"; }'


class LocalServer:
    """A server on an empty home, on a free port; a context manager that gives its address.

    Args:
        home: its home folder. Should this process be killed, a shell that waits for its end removes it.
        start_seconds: how long it may take until it is healthy.
    """

    def __init__(self, home: Path, start_seconds: float) -> None:
        self._home = home
        self._log = home / "server.log"
        self._start_seconds = start_seconds
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> str:
        try:
            return self._start()
        except BaseException:
            self._stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> str:
        with self._log.open("ab") as log:
            # In a session of its own: Ctrl-C is for the tests, which end the server after their last word.
            self._server = subprocess.Popen(
                [sys.executable, "-m", "headrace.cli", "server", "start", "--port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                env=_environment(self._home),
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, str(self._server.pid), str(self._home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self._await_address(self._server)

    def _await_address(self, server: subprocess.Popen[bytes]) -> str:
        """The address, once the server says that it is healthy."""
        deadline = time.monotonic() + self._start_seconds
        while (noted := read_server_file(self._home)) is None:
            if server.poll() is not None:
                raise ServerUnavailable(
                    f"The test server ended at its start (exit code {server.returncode}).{self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise ServerUnavailable(
                    f"The test server was not healthy after {self._start_seconds:g} s.{self._log_tail()}"
                )
            time.sleep(_POLL_SECONDS)
        return noted.address

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:]
        return "\n".join([" The end of its log:", *(f"  {line}" for line in lines)]) if lines else ""

    def _stop(self) -> None:
        guard, server = self._guard, self._server
        self._guard = self._server = None
        if guard is not None:
            guard.communicate(b"\n")
        if server is not None:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _environment(home: Path) -> dict[str, str]:
    """What the server may know of ours: no setting, lest it use another database or another home."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**bare, "HEADRACE_HOME": str(home)}
