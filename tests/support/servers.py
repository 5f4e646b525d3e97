"""Real `headrace server start` processes for tests, each on a free port and a home folder of its own."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

__all__ = ["ServerProcess", "run_headrace"]

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


@dataclass
class ServerProcess:
    """One server in a process of its own; use it as a context manager.

    Attributes:
        home: its home folder.
        database_url: its database; the home's SQLite file when None.
        settings: more environment variables.
        prefix: words before the command, e.g. of a program that limits what it may use.
        python: the interpreter, with headrace in its environment.
    """

    home: pathlib.Path
    database_url: str | None = None
    settings: Mapping[str, str] | None = None
    prefix: Sequence[str] = ()
    python: str = sys.executable
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """`host:port` of the gRPC API."""
        return str(self._announced()["address"])

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a client of this server: its home folder, which names the server."""
        return {**_bare_environment(), "HEADRACE_HOME": str(self.home)}

    @property
    def log(self) -> str:
        """What the server has printed so far."""
        return self._log_path.read_text(errors="replace")

    def start(self) -> ServerProcess:
        """Start it and wait until it says that it is ready.

        Raises:
            RuntimeError: it ended or was not ready in time; the text holds what it printed.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        environment = {**self.environment, "HEADRACE_SERVER_API_PORT": "0", **(self.settings or {})}
        if self.database_url is not None:
            environment["HEADRACE_SERVER_DATABASE_CONNECTION_URL"] = self.database_url
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, self.python, "-m", "headrace", "server", "start"],
                env=environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait_until_ready(self.process)
        return self

    def stop(self) -> int:
        """Ask it to end, as SIGTERM does, and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End it without a word, as a power cut does, and return its exit code."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(how)
        try:
            return self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"the server did not end:\n{self.log}") from None
        finally:
            self.process = None

    @property
    def _log_path(self) -> pathlib.Path:
        return self.home / "test-server.log"

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while self._announced().get("pid") != process.pid:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise RuntimeError(f"the server did not start:\n{self.log}")
            time.sleep(0.02)

    def _announced(self) -> dict[str, object]:
        try:
            said: dict[str, object] = json.loads((self.home / "server.json").read_text())
        except FileNotFoundError:
            return {}
        return said

    def __enter__(self) -> ServerProcess:
        return self if self.process else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def run_headrace(
    *words: str,
    environment: Mapping[str, str],
    cwd: pathlib.Path | None = None,
    timeout_seconds: float = 60,
    python: str = sys.executable,
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does; the caller looks at the exit code."""
    return subprocess.run(
        [python, "-m", "headrace", *words],
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def _bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
