"""Programs of users in processes of their own, stopped and continued from outside line by line."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType

__all__ = ["Script"]


class Script:
    """A Python program that tells how far it is on stdout and is told to go on through stdin.

    In the program, `print(word, flush=True)` pairs with `reached(word)`, `input()` with `go_on()`. It is
    killed at the end if it still runs.
    """

    def __init__(self, path: pathlib.Path, code: str, environment: Mapping[str, str]) -> None:
        path.write_text(code)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(path)],
            cwd=path.parent,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def reached(self, word: str) -> None:
        """Wait until the program prints `word`.

        Raises:
            AssertionError: it ended or printed something else.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if line != word:
            self.process.kill()
            raise AssertionError(f"{line!r} instead of {word!r}: {self.process.communicate()[1]}")

    def go_on(self) -> None:
        """Let the program's `input()` return."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it without a word, as `kill -9` does."""
        self.process.kill()
        self.process.communicate()

    def finish(self, timeout_seconds: float = 30) -> str:
        """Wait for its end, which must be a good one; returns what it printed since."""
        printed, complaints = self.process.communicate(timeout=timeout_seconds)
        assert self.process.returncode == 0, complaints
        return printed

    def __enter__(self) -> Script:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
