"""What waits and what runs in work pools and their queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace.v1.work_pool_pb2 import WorkLoad
from headrace_services.domain.effects import RetryType
from headrace_services.storage.backends import Backend
from headrace_services.storage.instants import set_duration

__all__ = ["Load", "read_loads"]

_WAITS: Final = f"state_type = 1 AND retry_type <> {int(RetryType.IN_PROCESS)}"
_SQL: Final = f"""
SELECT work_pool, work_queue,
  sum(CASE WHEN {_WAITS} AND next_scheduled_start_time <= ? THEN 1 ELSE 0 END),
  sum(CASE WHEN {_WAITS} AND next_scheduled_start_time > ? THEN 1 ELSE 0 END),
  sum(CASE WHEN {_WAITS} THEN 0 ELSE 1 END),
  min(CASE WHEN {_WAITS} THEN next_scheduled_start_time END)
FROM runs WHERE workspace_id = 1 AND kind = 1 AND state_type IN (1, 2, 3, 5) AND work_pool IN ({{pools}})
GROUP BY work_pool, work_queue
"""
"""Of runs that are SCHEDULED, PENDING, RUNNING or CANCELLING."""


@dataclass(slots=True)
class Load:
    """Counts of runs.

    Attributes:
        queued: due, and not yet handed out.
        upcoming: scheduled for later.
        held: handed out, and not ended.
        oldest: the instant since which the oldest queued run is due, microseconds; None: none is queued.
    """

    queued: int = 0
    upcoming: int = 0
    held: int = 0
    oldest: int | None = None

    def add(self, other: Load) -> None:
        """Take in the load of another queue."""
        self.queued += other.queued
        self.upcoming += other.upcoming
        self.held += other.held
        if other.oldest is not None:
            self.oldest = other.oldest if self.oldest is None else min(self.oldest, other.oldest)

    def message(self, now: int) -> WorkLoad:
        """The load as it is shown at `now`, microseconds."""
        load = WorkLoad(queued_runs=self.queued, upcoming_runs=self.upcoming, held_runs=self.held)
        if self.oldest is not None:
            set_duration(load.oldest_age, max(0, now - self.oldest))
        return load


async def read_loads(
    backend: Backend, pools: Sequence[str], now: int
) -> Mapping[str, Mapping[str | None, Load]]:
    """Per pool and queue; None is the queue of the runs that name none: the pool's default."""
    if not pools:
        return {}
    sql = _SQL.format(pools=", ".join("?" * len(pools)))
    found: dict[str, dict[str | None, Load]] = {}
    rows: Sequence[Any] = await backend.fetch(sql, [now, now, *pools])
    for pool, queue, queued, upcoming, held, earliest in rows:
        oldest = earliest if queued else None
        found.setdefault(pool, {})[queue or None] = Load(queued, upcoming, held, oldest)
    return found
