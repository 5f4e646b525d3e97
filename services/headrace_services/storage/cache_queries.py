"""The index of cached results, read."""

from __future__ import annotations

from typing import Any

from headrace.v1.cache_pb2 import CacheEntry, CacheFilter
from headrace_services.storage.backends import Backend
from headrace_services.storage.cache_rows import CacheEntryRow, entry_message, tag_text
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.entities import Where
from headrace_services.storage.entity_queries import find_rows
from headrace_services.storage.pages import PageKey, page_limit

__all__ = ["CacheQueries", "entries_where"]


def entries_where(filter: CacheFilter) -> Where:
    """The conditions of a filter, without those on expiry."""
    where: list[tuple[str, str, Any]] = []
    for column, values in (
        ("name", filter.keys),
        ("id", [id.lower() for id in filter.entry_ids]),
        ("task_name", filter.task_names),
        ("flow_name", filter.flow_names),
        ("producer_run_id", [id.lower() for id in filter.producer_run_ids]),
    ):
        if values:
            where.append((column, "in", list(values)))
    where += [("tags", "holds", tag_text(tag)) for tag in filter.tags]
    return where


class CacheQueries:
    """The index of cached results, read.

    Raises, from every method:
        DatabaseUnavailable: the database does not answer.
    """

    def __init__(self, backend: Backend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect

    async def look_up(self, key: str) -> CacheEntry | None:
        """What a call with the key may use; None: nothing, or nothing that has not expired."""
        rows = await find_rows(self._backend, self._dialect, CacheEntryRow, [("name", "=", key)])
        if not rows:
            return None
        expire_time = rows[0].expire_time
        if expire_time is not None and expire_time <= await self._backend.lease_now():
            return None
        return entry_message(rows[0])

    async def page(
        self, filter: CacheFilter, page_size: int, page_token: str
    ) -> tuple[list[CacheEntry], str]:
        """A page of the entries that match and have not expired, by key."""
        key, limit = PageKey.of("cache entries", filter), page_limit(page_size)
        cursor = key.cursor(page_token, str)
        where = entries_where(filter)
        if cursor is not None:
            where = [*where, ("name", ">", cursor[0])]
        rows = await find_rows(self._backend, self._dialect, CacheEntryRow, where, ["name"], limit + 1)
        token = key.token([rows[limit - 1].name]) if len(rows) > limit else ""
        now = await self._backend.lease_now()
        shown = [row for row in rows[:limit] if row.expire_time is None or row.expire_time > now]
        return [entry_message(row) for row in shown], token
