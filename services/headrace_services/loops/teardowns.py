"""Sends teardowns to workers that can remove what is left of attempts that were given up.

A teardown is kept until a worker says that nothing runs any more. It goes to one worker of the pool after the
other, for only some may reach the infrastructure, and is given up after the third time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Protocol

from headrace.core.clock import Clock
from headrace.v1.run_pb2 import AttemptRef
from headrace_services.storage.database import Database
from headrace_services.storage.dispatch_rows import TeardownRow
from headrace_services.storage.teardowns import MAX_DELIVERIES

__all__ = ["Remover", "Teardowns"]

_log = logging.getLogger(__name__)


class Remover(Protocol):
    """A worker's stream, as far as teardowns go."""

    worker_id: str
    work_pool: str
    tears_down: bool

    def tear_down(self, attempt: AttemptRef, infrastructure_id: str) -> None:
        """Have it remove what is left of an attempt that is over."""
        ...


class Teardowns:
    """Those of the pools whose workers are connected here."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def look(self, workers: Iterable[Remover]) -> None:
        """Send what is due.

        Raises:
            DatabaseUnavailable, StorageFull: try again later.
        """
        able = [worker for worker in workers if worker.tears_down]
        if not able:
            return
        pools = {worker.work_pool for worker in able}
        for row in await self._database.reader.due_teardowns(self._clock.now()):
            if row.deliveries >= MAX_DELIVERIES:
                await self.settle(row.run_id, row.fence, removed=False)
            elif row.work_pool in pools:
                await self._send(row, [worker for worker in able if worker.work_pool == row.work_pool])

    async def _send(self, row: TeardownRow, able: list[Remover]) -> None:
        tried: list[str] = json.loads(row.tried)
        worker = min(able, key=lambda worker: tried.count(worker.worker_id))
        if await self._database.writer.deliver_teardown(row, worker.worker_id):
            attempt = AttemptRef(run_id=row.run_id, attempt=row.attempt, fence=row.fence)
            worker.tear_down(attempt, row.infrastructure_id)

    async def settle(self, run_id: str, fence: int, *, removed: bool) -> None:
        """A worker has answered, or none does.

        Raises:
            DatabaseUnavailable, StorageFull: it is sent again later.
        """
        if await self._database.writer.settle_teardown(run_id, fence, removed):
            _log.warning("what is left of attempt %d of run %s could not be removed", fence, run_id)
