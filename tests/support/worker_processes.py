"""Real `headrace worker start` processes for tests."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["WorkerProcess", "is_running", "until"]

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 30.0, what: str = "it") -> T:
    """What `condition` gives once that is true.

    Raises:
        AssertionError: it was not in time.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return found


def is_running(pid: int) -> bool:
    """Whether the process is there, and not only its entry."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class WorkerProcess:
    """One worker in a process of its own; it is killed at the end if it still runs.

    Args:
        environment: of a client of the server.
        folder: for its log.
        words: of the command, after `headrace`.
        prefix: words before the command.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        folder: pathlib.Path,
        words: Sequence[str] = ("worker", "start", "--pool", "p"),
        prefix: Sequence[str] = (),
    ) -> None:
        self._log = folder / f"worker-{os.urandom(4).hex()}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "headrace", *words],
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def says(self, word: str, seconds: float = 60.0) -> None:
        """Wait until it has printed `word`."""
        try:
            until(lambda: word in self.log or self.process.poll() is not None, seconds)
        finally:
            assert word in self.log, self.log

    def send(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def leaves(self, seconds: float = 60.0) -> int:
        """Its exit code, once it has left."""
        return self.process.wait(seconds)

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        if error is not None:
            print(self.log, file=sys.stderr)
