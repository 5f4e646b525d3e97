"""Makes the runs of schedules when they are due, and lets those start that waited for earlier ones.

Every replica does both. Each claims the schedules that it makes runs for, and what it makes is one commit
with what the schedule says of it, so several of them do what one does.
"""

from __future__ import annotations

from typing import Final

from headrace.core.clock import Clock
from headrace_services.loops.batch_size import BatchSize
from headrace_services.loops.loop import Loop
from headrace_services.storage.database import Database
from headrace_services.storage.schedule_firing import BATCH_SCHEDULES, FireSchedules, ReleaseOverlaps

__all__ = ["Overlaps", "Scheduler"]

_LOOK_SECONDS: Final = 1.0
_SOONEST_SECONDS: Final = 0.02
_ALONE_SECONDS: Final = 0.03
"""How long a transaction may take that nobody else waits for, or only by chance; a tenth of a second must not
be reached."""
_SHARED_SECONDS: Final = 0.01
"""The same where others write as well: so long each of them has to wait more than usual."""
_SHARED_BATCHES: Final = 8
"""So many transactions after one of somebody else there may be another one."""
_LEAST_SCHEDULES: Final = 10
_OVERLAPS_SECONDS: Final = 0.1
"""Between two looks while runs wait, however busy the server is."""


class Scheduler:
    """Makes runs.

    Attributes:
        loop: its pace: once a second, and at the instant when the next schedule is due.
        made: runs that this server has made, for tests and metrics.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._reader = database.reader.schedules
        self._writer = database.writer
        self._clock = clock
        self._size = BatchSize(_LEAST_SCHEDULES, BATCH_SCHEDULES)
        self._seen_batches = self._shared = 0
        self.made = 0
        self.loop = Loop("scheduler", _LOOK_SECONDS, self.look, clock)

    async def look(self) -> None:
        """Make what is due.

        Raises:
            DatabaseUnavailable, StorageFull: try again later.
        """
        self._seen_batches = self._writer.batches
        while (due := await self._reader.next_due()) is not None and due <= self._clock.now():
            asked = self._size.count
            command = FireSchedules(asked, self._clock.monotonic)
            fired = await self._writer.do(command)
            self.made += fired.runs
            self._size.took(self._clock.monotonic() - command.began, fired.schedules, self._allowed())
            if fired.schedules < asked:
                due = await self._reader.next_due()  # another server may be at the rest
                break
        self.loop.interval_seconds = self._until(due)

    def _allowed(self) -> float:
        """How long the next transaction may take, seconds."""
        batches = self._writer.batches
        others, self._seen_batches = batches - self._seen_batches - 1, batches
        self._shared = _SHARED_BATCHES if others > 0 else max(self._shared - 1, 0)
        return _SHARED_SECONDS if self._shared else _ALONE_SECONDS

    def _until(self, due: int | None) -> float:
        if due is None:
            return _LOOK_SECONDS
        seconds = (due - self._clock.now()) / 1e6
        return min(max(seconds, _SOONEST_SECONDS), _LOOK_SECONDS)


class Overlaps:
    """Lets runs start that waited for earlier ones to end.

    Attributes:
        loop: its pace: with every commit while there are such runs, else once a second.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._reader = database.reader.schedules
        self._writer = database.writer
        self._signals = database.signals
        self.loop = Loop("runs that wait for earlier ones", _LOOK_SECONDS, self.look, clock)

    async def look(self) -> None:
        """Let those start whose turn it is.

        Raises:
            DatabaseUnavailable, StorageFull: try again later.
        """
        seen = self._signals.count
        if not await self._reader.has_overlap_waits():
            self.loop.interval_seconds = _LOOK_SECONDS
            return
        self.loop.interval_seconds = _OVERLAPS_SECONDS
        if not await self._writer.do(ReleaseOverlaps()):
            await self._signals.wait(seen, _LOOK_SECONDS)
