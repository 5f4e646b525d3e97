"""Renewals of recorders' leases: gathered in memory, written once a second in one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headrace.core.clock import Clock
from headrace.v1.record_service_pb2 import AttemptVerdict
from headrace.v1.run_pb2 import AttemptRef
from headrace_services.loops.loop import Loop
from headrace_services.storage.database import Database

__all__ = ["LeaseRenewals"]

_FLUSH_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Renewal:
    executing: Sequence[AttemptRef]
    answers: list[asyncio.Future[list[AttemptVerdict]]]


class LeaseRenewals:
    """Writes renewals in bulk; a renewal is answered when it is in the database.

    Attributes:
        loop: its pace.
    """

    def __init__(self, database: Database, lease_seconds: float, clock: Clock) -> None:
        self._database = database
        self._lease_micros = int(lease_seconds * 1e6)
        self._waiting: dict[str, _Renewal] = {}
        self.loop = Loop("renewal of leases", _FLUSH_SECONDS, self.flush, clock)

    def renew(
        self, recorder_id: str, executing: Sequence[AttemptRef]
    ) -> asyncio.Future[list[AttemptVerdict]]:
        """Takes a renewal in.

        Returns:
            The attempts among `executing` that are lost, once the renewal is durable. It fails with what
            kept the database from taking it.
        """
        renewal = self._waiting.setdefault(recorder_id, _Renewal(executing, []))
        renewal.executing = executing
        answer: asyncio.Future[list[AttemptVerdict]] = asyncio.get_running_loop().create_future()
        renewal.answers.append(answer)
        return answer

    async def flush(self) -> None:
        """Writes what has been gathered.

        Raises:
            DatabaseUnavailable, StorageFull: nothing was written; whoever waits is told.
        """
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        try:
            expires_at = await self._database.now() + self._lease_micros
            lost = await self._database.writer.renew_recorders(
                dict.fromkeys(waiting, expires_at), [a for r in waiting.values() for a in r.executing]
            )
        except Exception as error:
            for renewal in waiting.values():
                for answer in renewal.answers:
                    if not answer.done():
                        answer.set_exception(error)
                        answer.exception()
            raise
        by_attempt = {_key(verdict.attempt): verdict for verdict in lost}
        for renewal in waiting.values():
            mine = [by_attempt[_key(a)] for a in renewal.executing if _key(a) in by_attempt]
            for answer in renewal.answers:
                if not answer.done():
                    answer.set_result(mine)


def _key(attempt: AttemptRef) -> tuple[str, int, int]:
    return attempt.run_id, attempt.attempt, attempt.fence
