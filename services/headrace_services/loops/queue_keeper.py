"""What happens to runs that wait for long: they are called late, and move up.

Every replica looks. Both are decided on the rows as they are, so two of them do what one does.
"""

from __future__ import annotations

from typing import Final

from headrace.core.clock import Clock
from headrace_services.loops.loop import Loop
from headrace_services.storage.database import Database

__all__ = ["QueueKeeper"]

_LOOK_SECONDS: Final = 1.0


class QueueKeeper:
    """Keeps the queue.

    Args:
        database: where it is.
        ageing_seconds: how long a run waits until its priority is raised by one.
        clock: what the time is.

    Attributes:
        loop: its pace.
    """

    def __init__(self, database: Database, ageing_seconds: float, clock: Clock) -> None:
        self._database = database
        self._ageing_seconds = ageing_seconds
        self._clock = clock
        self.loop = Loop("keeper of the queue", _LOOK_SECONDS, self.look, clock)

    async def look(self) -> None:
        """Mark what is late, raise what has waited.

        Raises:
            DatabaseUnavailable, StorageFull: try again later.
        """
        now = self._clock.now()
        reader, writer = self._database.reader, self._database.writer
        while await reader.has_late(now):
            await writer.mark_late()
        before = now - int(self._ageing_seconds * 1e6)
        while await reader.has_aged(before):
            await writer.age_queue(self._ageing_seconds)
