"""Goes on with backfills: makes their next runs, and notes which of them have ended.

Every replica does so. Each step claims the backfill that it is of and is one commit, so several of them do
what one does, and one that dies leaves nothing half done.
"""

from __future__ import annotations

from typing import Final

from headrace.core.clock import Clock
from headrace_services.loops.loop import Loop
from headrace_services.storage.backfilling import AdvanceBackfill
from headrace_services.storage.database import Database

__all__ = ["Backfiller"]

_LOOK_SECONDS: Final = 1.0
_BUSY_SECONDS: Final = 0.1
"""Between two looks while backfills go on, so that other writes have their turn."""


class Backfiller:
    """Goes on with backfills.

    Attributes:
        loop: its pace: with every commit while a backfill has not ended, else once a second.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._reader = database.reader.backfills
        self._writer = database.writer
        self._signals = database.signals
        self.loop = Loop("backfills", _LOOK_SECONDS, self.look, clock)

    async def look(self) -> None:
        """One step of each backfill that has something to do.

        Raises:
            DatabaseUnavailable, StorageFull: try again later.
        """
        seen = self._signals.count
        if not await self._reader.has_live():
            self.loop.interval_seconds = _LOOK_SECONDS
            return
        self.loop.interval_seconds = _BUSY_SECONDS
        if not await self.step():
            await self._signals.wait(seen, _LOOK_SECONDS)

    async def step(self) -> bool:
        """One step of each backfill; whether there was one to take."""
        has_stepped = False
        for backfill_id, news in (await self._reader.steps()).items():
            has_stepped |= await self._writer.do(AdvanceBackfill(backfill_id, news))
        return has_stepped
