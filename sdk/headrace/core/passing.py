"""How time passes for runs: as on the machine's clock, unless a test skips it."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

__all__ = ["PassingTime", "SkippedTime", "passing_time", "time_replaced"]

_PAUSE_SECONDS: Final = 0.001
"""A skipped delay is a short pause, so that others go on and nobody asks in a tight loop."""


class PassingTime:
    """The machine's time."""

    __slots__ = ()

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1000

    def to_wait(self, seconds: float) -> float:
        """How long to really wait so that `seconds` have passed for runs."""
        return seconds


class SkippedTime(PassingTime):
    """Delays are not waited for: `now` moves on by them instead.

    Attributes:
        skipped: the delays so far, in seconds, in the order in which they began.
    """

    __slots__ = ("_lock", "_micros", "skipped")

    def __init__(self) -> None:
        self.skipped: list[float] = []
        self._lock = threading.Lock()
        self._micros = 0

    def now(self) -> int:
        return super().now() + self._micros

    def to_wait(self, seconds: float) -> float:
        with self._lock:
            self.skipped.append(seconds)
            self._micros += round(seconds * 1_000_000)
        return min(seconds, _PAUSE_SECONDS)

    def skip(self, seconds: float) -> None:
        """Move on by `seconds`, although nobody waits.

        Raises:
            ValueError: `seconds` is negative: time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds!r}")
        with self._lock:
            self._micros += round(seconds * 1_000_000)


_present: PassingTime = PassingTime()


def passing_time() -> PassingTime:
    """How time passes now, in the whole process."""
    return _present


@contextmanager
def time_replaced(other: PassingTime) -> Generator[None]:
    """Time passes as `other` says, in every thread, while inside."""
    global _present
    before, _present = _present, other
    try:
        yield
    finally:
        _present = before
