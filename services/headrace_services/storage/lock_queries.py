"""Locks, read."""

from __future__ import annotations

from headrace.v1.lock_pb2 import Lock
from headrace_services.storage.backends import Backend
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.entities import Where
from headrace_services.storage.entity_queries import find_rows
from headrace_services.storage.lock_rows import LockRow, lock_message
from headrace_services.storage.pages import PageKey, page_limit

__all__ = ["LockQueries"]


class LockQueries:
    """Locks, read.

    Raises, from every method:
        DatabaseUnavailable: the database does not answer.
    """

    def __init__(self, backend: Backend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect

    async def get(self, key: str, heard_since: int | None) -> tuple[Lock, int] | None:
        """The lock, and in how many microseconds it ends if nothing happens; None: nobody has it.

        Args:
            key: of the lock.
            heard_since: since when holders could renew, by the clock of leases; None: since now.
        """
        rows = await find_rows(self._backend, self._dialect, LockRow, [("name", "=", key)])
        if not rows:
            return None
        now = await self._backend.lease_now()
        left = rows[0].holding.ends_at(now if heard_since is None else heard_since) - now
        return (lock_message(rows[0]), left) if left > 0 else None

    async def page(self, prefix: str, page_size: int, page_token: str) -> tuple[list[Lock], str]:
        """A page of the locks whose keys begin so, by key; also of those whose holders are silent."""
        key, limit = PageKey.of("locks", prefix), page_limit(page_size)
        cursor = key.cursor(page_token, str)
        where: Where = [("name", "begins", prefix)] if prefix else []
        if cursor is not None:
            where = [*where, ("name", ">", cursor[0])]
        rows = await find_rows(self._backend, self._dialect, LockRow, where, ["name"], limit + 1)
        token = key.token([rows[limit - 1].name]) if len(rows) > limit else ""
        return [lock_message(row) for row in rows[:limit]], token
