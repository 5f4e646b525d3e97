"""What all loops of the server share: a pace, a way to wake them, and signs of life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from headrace.core.clock import Clock
from headrace.core.errors import ServiceError

__all__ = ["Loop"]

_log = logging.getLogger(__name__)


class Loop:
    """Does one thing again and again, and survives its failures.

    Args:
        name: for the log.
        interval_seconds: the longest time between two rounds.
        work: one round.
        clock: what the time is.

    Attributes:
        rounds: how many rounds have ended, well or not.
    """

    def __init__(
        self, name: str, interval_seconds: float, work: Callable[[], Awaitable[None]], clock: Clock
    ) -> None:
        self.name = name
        self.interval_seconds = interval_seconds
        self.rounds = 0
        self._work = work
        self._clock = clock
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._succeeded_at = clock.monotonic()
        self._failing = False

    def wake(self) -> None:
        """Do the next round now."""
        self._wake.set()

    @property
    def last_success_age_seconds(self) -> float:
        """How long ago a round last ended well; counted from the start before the first."""
        return self._clock.monotonic() - self._succeeded_at

    async def finished(self, rounds: int) -> None:
        """Waits until `rounds` more rounds have ended that began after this call. For tests."""
        # The one that is under way now may have begun before.
        target = self.rounds + rounds + 1
        while self.rounds < target:
            self.wake()
            await self._ended.wait()

    async def run(self) -> None:
        """Rounds until cancelled."""
        while True:
            await self._round()
            try:
                await asyncio.wait_for(self._wake.wait(), self.interval_seconds)
            except TimeoutError:
                pass
            self._wake.clear()

    async def _round(self) -> None:
        try:
            await self._work()
        except ServiceError as error:
            if not self._failing:
                _log.warning("%s: %s Trying again.", self.name, error.message)
            self._failing = True
        except Exception:
            _log.exception("%s failed; trying again.", self.name)
            self._failing = True
        else:
            if self._failing:
                _log.info("%s works again.", self.name)
            self._failing = False
            self._succeeded_at = self._clock.monotonic()
        self.rounds += 1
        self._ended.set()
        self._ended = asyncio.Event()
