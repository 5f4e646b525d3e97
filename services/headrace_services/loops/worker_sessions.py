"""Leases of workers' sessions: renewed in bulk about once a second, and ended when they are over.

With the same amnesty as the leases of recorders: a server that could not reach its database, or was not
there, has heard nobody, so silence proves nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from headrace.core.clock import Clock
from headrace_services.loops.amnesty import Amnesty
from headrace_services.loops.loop import Loop
from headrace_services.storage.database import Database

__all__ = ["SessionLeases", "SessionReaper", "Session"]

_log = logging.getLogger(__name__)
_FLUSH_SECONDS: Final = 1.0


class Session(Protocol):
    """A worker's stream, as far as its lease goes."""

    session_id: str
    epoch: int
    is_draining: bool

    @property
    def lease_seconds(self) -> float:
        """How long it may be silent."""
        ...

    def renewed(self, server_time: int) -> None:
        """Its lease is renewed, durably."""
        ...


class SessionLeases:
    """Writes renewals in bulk; a heartbeat is answered when its renewal is in the database.

    Attributes:
        loop: its pace.
    """

    def __init__(
        self,
        database: Database,
        over: Callable[[Sequence[tuple[str, int, str]]], None],
        heartbeat_seconds: float,
        clock: Clock,
    ) -> None:
        self._database = database
        self._over = over
        self._waiting: dict[str, Session] = {}
        interval = min(_FLUSH_SECONDS, heartbeat_seconds / 5)
        self.loop = Loop("renewal of workers' leases", interval, self.flush, clock)

    def heard(self, session: Session) -> None:
        """A heartbeat has come."""
        self._waiting[session.session_id] = session

    async def flush(self) -> None:
        """Renew what was heard.

        Raises:
            DatabaseUnavailable, StorageFull: nothing was renewed; the heartbeats stay unanswered.
        """
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        renewals = [(s.session_id, s.epoch, s.is_draining, s.lease_seconds) for s in waiting.values()]
        over = await self._database.writer.renew_sessions(renewals)
        now = await self._database.now()
        for session_id, _, _ in over:
            waiting.pop(session_id, None)
        for session in waiting.values():
            session.renewed(now)
        if over:
            self._over(over)


class SessionReaper:
    """Ends expired sessions.

    Attributes:
        loop: its pace.
        reaped: sessions that this server has ended, for tests and metrics.
    """

    def __init__(
        self, database: Database, lease_seconds: float, heartbeat_seconds: float, clock: Clock
    ) -> None:
        self._database = database
        self._amnesty = Amnesty(lease_seconds + heartbeat_seconds, clock)
        self.reaped = 0
        self.loop = Loop("reaper of workers' sessions", min(lease_seconds / 6, 5.0), self.reap, clock)

    async def reap(self) -> None:
        """One look at the sessions.

        Raises:
            DatabaseUnavailable, StorageFull: the amnesty begins anew.
        """
        with self._amnesty.watching():
            now = await self._database.now()
            expired = await self._database.reader.expired_sessions(now)
            if expired:
                # What was heard before is written first: the writer may have been kept waiting.
                await self._database.writer.settled()
            if not self._amnesty.is_over():
                expired = []
            for session_id in expired:
                lost = await self._database.writer.expire_session(session_id, expired_before=now)
                self.reaped += 1
                if lost:
                    _log.warning("the worker session %s is silent: it held %d runs", session_id, len(lost))
