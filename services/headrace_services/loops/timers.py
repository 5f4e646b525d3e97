"""What the server does to runs at some instant: it ends pauses, and runs that were to be cancelled.

Every replica looks. Each timer names the state that it was set for, and what is done is one write on the
condition that the run is still in it, so two of them do what one does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from headrace.core.clock import Clock
from headrace_services.loops.loop import Loop
from headrace_services.storage.database import Database
from headrace_services.storage.work import TimerKind

__all__ = ["RunTimers"]

_log = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 1.0
_SOONEST_SECONDS: Final = 0.01

_Action: TypeAlias = Callable[[str, str], Awaitable[bool]]


class RunTimers:
    """Does what is due.

    Attributes:
        loop: its pace: once a second, and at the instant when the next timer is due.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        writer = database.writer
        self._actions: Mapping[TimerKind, tuple[_Action, str]] = {
            TimerKind.PAUSE: (writer.expire_pause, "run %s was paused and never resumed"),
            TimerKind.CANCEL: (writer.settle_cancellation, "what was left of run %s was cancelled"),
        }
        self.loop = Loop("timers of runs", _LOOK_SECONDS, self.look, clock)

    async def look(self) -> None:
        """Do what is due.

        Raises:
            DatabaseUnavailable, StorageFull: try again later.
        """
        self.loop.interval_seconds = min([await self._look_at(kind) for kind in self._actions])

    async def _look_at(self, kind: TimerKind) -> float:
        """Do what is due of one kind; gives the seconds until the next look."""
        act, said = self._actions[kind]
        now = self._clock.now()
        for run_id, state_id, due in await self._database.reader.due_timers(
            kind, now + int(_LOOK_SECONDS * 1e6)
        ):
            if due > now:
                return max((due - now) / 1e6, _SOONEST_SECONDS)
            if await act(run_id, state_id):
                _log.info(said, run_id)
        return _LOOK_SECONDS
