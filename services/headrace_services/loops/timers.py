"""Pauses that nobody ended in time: their runs fail when the time is over.

Every replica looks. Ending a pause is one write on the condition that the run is still in it, so two of
them do what one does.
"""

from __future__ import annotations

import logging
from typing import Final

from headrace.core.clock import Clock
from headrace_services.loops.loop import Loop
from headrace_services.storage.database import Database
from headrace_services.storage.pausing import TimerKind

__all__ = ["PauseTimers"]

_log = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 1.0
_SOONEST_SECONDS: Final = 0.01


class PauseTimers:
    """Ends pauses.

    Attributes:
        loop: its pace: once a second, and at the instant when the next pause ends.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.loop = Loop("timer of pauses", _LOOK_SECONDS, self.look, clock)

    async def look(self) -> None:
        """End the pauses whose time is over.

        Raises:
            DatabaseUnavailable, StorageFull: try again later.
        """
        now = self._clock.now()
        timers = await self._database.reader.due_timers(TimerKind.PAUSE, now + int(_LOOK_SECONDS * 1e6))
        wait = _LOOK_SECONDS
        for run_id, state_id, due in timers:
            if due > now:
                wait = max((due - now) / 1e6, _SOONEST_SECONDS)
                break
            if await self._database.writer.expire_pause(run_id, state_id):
                _log.info("run %s was paused and never resumed", run_id)
        self.loop.interval_seconds = wait
