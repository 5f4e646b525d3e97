"""Child processes of a measurement: servers, and client programs that take commands."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = [
    "BenchmarkError",
    "Program",
    "free_port",
    "running",
    "scratch_folder",
    "wait_until",
    "wait_until_healthy",
]

_STOP_SECONDS = 20.0
_TAIL_CHARACTERS = 2000
_T = TypeVar("_T")


class BenchmarkError(RuntimeError):
    """A measurement did not come about; the message says why."""


def free_port() -> int:
    """A TCP port of the loopback address that nothing uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def scratch_folder() -> Generator[pathlib.Path]:
    """A folder on the disk that is being measured (HEADRACE_BENCH_DIR, else the temporary folder)."""
    parent = os.environ.get("HEADRACE_BENCH_DIR")
    with tempfile.TemporaryDirectory(
        prefix="headrace-bench-", dir=parent, ignore_cleanup_errors=True
    ) as name:
        yield pathlib.Path(name)


def wait_until(poll: Callable[[], _T | None], seconds: float, what: str, pause: float = 0.002) -> _T:
    """Call `poll` until it returns something.

    Raises:
        BenchmarkError: it returned None for `seconds`.
    """
    deadline = time.monotonic() + seconds
    while (found := poll()) is None:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(pause)
    return found


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: pathlib.Path
) -> Generator[subprocess.Popen[bytes]]:
    """A process for the time of the block, output in `log`; ended with SIGTERM, then SIGKILL."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_healthy(
    process: subprocess.Popen[bytes], poll: Callable[[], _T | None], log: pathlib.Path, seconds: float
) -> _T:
    """Call `poll` until a server that was just started answers.

    Raises:
        BenchmarkError: it ended, or did not answer for `seconds`; with the end of its log.
    """

    def look() -> _T | None:
        if process.poll() is not None:
            raise BenchmarkError(f"the server ended with code {process.returncode}:\n{_tail(log)}")
        return poll()

    return wait_until(look, seconds, f"the server to be healthy ({log})")


class Program:
    """A client program: one JSON command per line in, one JSON answer per line out."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: pathlib.Path) -> None:
        self._log = log
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                cwd=log.parent,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, work: str, **arguments: object) -> Any:
        """Have the program do `work` and return its answer.

        Raises:
            BenchmarkError: the program ended instead of answering.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps({"work": work, **arguments}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"the client program ended while it did {work!r}:\n{_tail(self._log)}")
        return json.loads(line)

    def close(self) -> None:
        """Let the program end by itself; kill it if it does not."""
        try:
            self._process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _tail(log: pathlib.Path) -> str:
    return log.read_text(errors="replace")[-_TAIL_CHARACTERS:]
