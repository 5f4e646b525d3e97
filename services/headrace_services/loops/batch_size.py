"""How much one transaction of a loop does: as much as fits into the time that it may take."""

from __future__ import annotations

from typing import Final

__all__ = ["BatchSize"]

_GROWTH: Final = 8


class BatchSize:
    """A size that follows what the batches before took.

    Args:
        least: a smaller one costs more by itself than it holds, and is not made.
        most: nor is a larger one.

    Attributes:
        count: of the next batch.
    """

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self.count = least

    def took(self, seconds: float, items: int, allowed_seconds: float) -> None:
        """A batch of so many items took so long.

        One that took too long halves the next one at most: once may be the disk's fault.

        Args:
            seconds: how long it took.
            items: how many it had.
            allowed_seconds: how long one may take.
        """
        if seconds > allowed_seconds:
            self.count = max(self._least, int(self.count * max(allowed_seconds / seconds, 0.5)))
        elif items >= self.count:
            self.count = min(self._most, self.count + max(self.count // _GROWTH, 1))
