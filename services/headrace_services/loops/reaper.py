"""Recorders that have been silent for longer than their lease: their runs are declared crashed.

With amnesty: a server that could not reach its database, or was not there, has not heard anybody, so
silence proves nothing. The reaper acts only after it has itself had a working database, without a failure,
for a whole lease and one renewal.

Every replica reaps. Each declaration is one conditional write that names the lease it found expired, so two
of them do what one does.
"""

from __future__ import annotations

import logging

from headrace.core.clock import Clock
from headrace.v1.state_pb2 import CrashedDetails
from headrace_services.loops.amnesty import Amnesty
from headrace_services.loops.loop import Loop
from headrace_services.storage.database import Database
from headrace_services.storage.values import RecorderInfo

__all__ = ["LeaseReaper"]

_log = logging.getLogger(__name__)


class LeaseReaper:
    """Ends expired leases.

    Attributes:
        loop: its pace.
        reaped: recorders that this server has ended, for tests and metrics.
    """

    def __init__(self, database: Database, lease_seconds: float, renew_seconds: float, clock: Clock) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._amnesty = Amnesty(lease_seconds + renew_seconds, clock)
        self.reaped = 0
        self.loop = Loop("reaper of leases", min(lease_seconds / 6, 5.0), self.reap, clock)

    async def reap(self) -> None:
        """One look at the leases.

        Raises:
            DatabaseUnavailable, StorageFull: the amnesty begins anew.
        """
        with self._amnesty.watching():
            now = await self._database.now()
            expired = await self._database.reader.expired_recorders(now)
            if expired:
                # What was heard before is written first: the writer may have been kept waiting.
                await self._database.writer.settled()
            if self._amnesty.is_over():
                for recorder in expired:
                    await self._end(recorder, now)

    async def _end(self, recorder: RecorderInfo, now: int) -> None:
        crashed = await self._database.writer.crash_recorder(
            recorder.recorder_id,
            f"The process has been silent for longer than its lease of {self._lease_seconds:g} s "
            f"(pid {recorder.pid} on {recorder.host}).",
            CrashedDetails.CAUSE_LEASE_EXPIRED,
            expired_before=now,
        )
        self.reaped += 1
        if crashed:
            _log.warning(
                "recorder %s (pid %d on %s) is silent: %d runs are declared crashed",
                *(recorder.recorder_id, recorder.pid, recorder.host, len(crashed)),
            )
