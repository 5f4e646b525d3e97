"""How much one transaction of a loop does: as much as fits into the time that it may take."""

from __future__ import annotations

from typing import Final

__all__ = ["BatchSize"]

_GROWTH: Final = 8


class BatchSize:
    """A size that follows what the batches before took.

    Args:
        seconds: how long a batch may take.
        least: a smaller one costs more by itself than it holds, and is not made.
        most: nor is a larger one.

    Attributes:
        count: of the next batch.
    """

    def __init__(self, seconds: float, least: int, most: int) -> None:
        self._seconds = seconds
        self._least = least
        self._most = most
        self.count = least

    def took(self, seconds: float, items: int) -> None:
        """A batch of so many items took so long. One that took too long counts for half of it at most:
        once may be the disk's fault."""
        if seconds > self._seconds:
            self.count = max(self._least, int(self.count * max(self._seconds / seconds, 0.5)))
        elif items >= self.count:
            self.count = min(self._most, self.count + max(self.count // _GROWTH, 1))
