"""Lines for whoever looks at a worker, written by a thread of their own.

A terminal that is held up, or a pipe that nobody reads, must not hold up the heartbeats.
"""

from __future__ import annotations

import queue
import sys
import threading
from typing import Final, TextIO

__all__ = ["LineWriter"]

_MOST: Final = 10_000


class LineWriter:
    """Writes lines in their order. Above a backlog of 10,000 lines some are left out, and counted.

    Args:
        stream: where to; the process's standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lines: queue.Queue[str | None] = queue.Queue(_MOST)
        self._left_out = 0
        self._thread = threading.Thread(target=self._write, name="headrace-lines", daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        """Write a line, soon."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._left_out += 1

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Write what is left, for as long as that takes at most."""
        try:
            self._lines.put(None, timeout=timeout_seconds)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            left_out, self._left_out = self._left_out, 0
            try:
                if left_out:
                    self._stream.write(f"({left_out} lines are left out here)\n")
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):
                return  # nobody looks any more
