"""Whether silence proves anything: only to who has itself been able to hear for long enough."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Final

from headrace.core.clock import Clock

__all__ = ["Amnesty"]

_LONGEST_GAP: Final = 0.5
"""A look that comes later after the one before than this part of the amnesty begins it anew."""


class Amnesty:
    """Begins with the first look that succeeds, and anew with every one that fails or is long in coming.

    A server that was frozen, or whose database has kept it waiting, has seen no failure, and has heard nobody
    all the same.

    Args:
        seconds: how long it lasts.
        clock: what the time is.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._healthy_since: float | None = None
        self._looked_at = 0.0

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Around one look; an exception in it begins the amnesty anew."""
        try:
            yield
        except Exception:
            self._healthy_since = None
            raise

    def is_over(self) -> bool:
        """Whether everything has gone well for long enough. Asked once the database has answered."""
        now = self._clock.monotonic()
        if self._healthy_since is None or now - self._looked_at > self._seconds * _LONGEST_GAP:
            self._healthy_since = now
        self._looked_at = now
        return now - self._healthy_since >= self._seconds
