"""Tells processes what others want of the runs that they execute: that they are cancelled, or pause.

What is wanted is in the state of a run and nowhere else, and it is told until the state is another one: a
word that was lost, a server that was started anew or a stream that was opened later make no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from headrace.core.clock import Clock
from headrace.v1.record_service_pb2 import RunDirective
from headrace_services.loops.loop import Loop
from headrace_services.storage.database import Database

__all__ = ["Directives"]

_LOOK_SECONDS: Final = 1.0
_REPEAT_SECONDS: Final = 5.0


class Recorders(Protocol):
    """The processes that have a stream here."""

    def __len__(self) -> int: ...

    def direct(
        self, recorder_id: str, directives: Sequence[RunDirective], now: float, repeat_seconds: float
    ) -> None:
        """Tell one of them, if it is here, all that is wanted of it and what it has not been told lately."""
        ...


class Directives:
    """Puts directives on the streams of this server.

    Attributes:
        loop: its pace: once a second, and at once when something was asked of this server.
    """

    def __init__(self, database: Database, recorders: Recorders, clock: Clock) -> None:
        self._database = database
        self._recorders = recorders
        self._clock = clock
        self.loop = Loop("directives to processes", _LOOK_SECONDS, self.look, clock)

    async def look(self) -> None:
        """Tell every process that has its stream here what it has not been told for a while.

        Raises:
            DatabaseUnavailable: try again later.
        """
        if not len(self._recorders):
            return
        due: dict[str, list[RunDirective]] = {}
        for recorder_id, directive in await self._database.reader.directives():
            due.setdefault(recorder_id, []).append(directive)
        now = self._clock.monotonic()
        for recorder_id, directives in due.items():
            self._recorders.direct(recorder_id, directives, now, _REPEAT_SECONDS)
