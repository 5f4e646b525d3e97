"""Commands on the index of cached results."""

from __future__ import annotations

import json
from typing import Final

from headrace.core.errors import FieldsInvalid, LockLost
from headrace.core.ids import new_id
from headrace.v1.cache_pb2 import CacheEntry, CacheFilter
from headrace.v1.cache_service_pb2 import PutCacheEntryRequest
from headrace_services.storage.cache_queries import entries_where
from headrace_services.storage.cache_rows import CacheEntryRow, entry_message
from headrace_services.storage.command import Command
from headrace_services.storage.entities import Lock
from headrace_services.storage.instants import duration_micros
from headrace_services.storage.lock_rows import LockRow
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["INVALIDATED_AT_ONCE", "InvalidateCacheEntries", "PutCacheEntry"]

INVALIDATED_AT_ONCE: Final = 1000
_SWEEP_EVERY: Final = 16
_SWEPT: Final = 64


class PutCacheEntry(Command[CacheEntry]):
    """The key has this result from now on.

    Args:
        request: checked, but for the result being a reference.

    Raises:
        FieldsInvalid: the result is a value.
    """

    needs_lease_clock = True

    def __init__(self, request: PutCacheEntryRequest) -> None:
        super().__init__()
        if request.entry.result.WhichOneof("body") != "blob":
            raise FieldsInvalid.of("entry.result", "must be a reference (blob); values are kept in storage")
        self._request = request

    def apply(self, work: Work) -> Steps[CacheEntry]:
        asked, fence = self._request.entry, self._request.fence
        row = yield from work.rows.one(CacheEntryRow, [("name", "=", asked.key)])
        if fence:
            lock = yield from work.rows.one(LockRow, [("name", "=", asked.key)], Lock.NONE)
            newest = max(lock.fence if lock else 0, row.fence if row else 0)
            if newest > fence:
                raise LockLost.of(asked.key)
        now = work.lease_now
        entry = CacheEntryRow(
            name=asked.key,
            id=new_id(),
            producer_run_id=asked.producer_run_id.lower(),
            task_name=asked.task_name,
            flow_name=asked.flow_name,
            tags=json.dumps(sorted(set(asked.tags)), ensure_ascii=False),
            fence=fence,
            create_time=now,
            expire_time=self._expire_time(now),
            result=asked.result.SerializeToString(),
            is_stored=row is not None,
        )
        work.rows.put(entry)
        if now % _SWEEP_EVERY == 0:
            yield from _sweep(work)
        return entry_message(entry)

    def _expire_time(self, now: int) -> int | None:
        request = self._request
        return now + duration_micros(request.lifetime) if request.HasField("lifetime") else None


def _sweep(work: Work) -> Steps[None]:
    """Delete what has expired: an index that is written to is so kept clean."""
    expired = yield from work.rows.find(
        CacheEntryRow, [("expire_time", "<=", work.lease_now)], limit=_SWEPT, lock=Lock.CLAIM
    )
    for row in expired:
        work.rows.delete(row)


class InvalidateCacheEntries(Command[int]):
    """At most `INVALIDATED_AT_ONCE` entries that match go; gives how many."""

    needs_lease_clock = True

    def __init__(self, filter: CacheFilter) -> None:
        super().__init__()
        self._filter = filter

    def apply(self, work: Work) -> Steps[int]:
        rows = yield from work.rows.find(
            CacheEntryRow, entries_where(self._filter), limit=INVALIDATED_AT_ONCE
        )
        for row in rows:
            work.rows.delete(row)
        return len(rows)
