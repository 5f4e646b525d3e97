"""Work pools and queues, read: with their status, and with what waits and runs in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.core.clock import Clock
from headrace.core.errors import ObjectNotFound
from headrace.core.job_templates import MANAGED
from headrace.v1.work_pool_pb2 import (
    WORK_STATUS_NOT_READY,
    WORK_STATUS_PAUSED,
    WORK_STATUS_READY,
    WorkPool,
    WorkQueue,
    WorkStatus,
)
from headrace_services.storage.backends import Backend
from headrace_services.storage.declared_rows import WorkPoolRow, WorkQueueRow
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.entities import Where, row_from, table_of
from headrace_services.storage.entity_queries import find_rows
from headrace_services.storage.filters import Conditions
from headrace_services.storage.instants import set_micros
from headrace_services.storage.pages import PageKey, page_limit
from headrace_services.storage.presence import read_presence
from headrace_services.storage.work_loads import Load, read_loads
from headrace_services.storage.work_pool_codec import DEFAULT_QUEUE, pool_message, queue_message

__all__ = ["WorkPoolQueries"]


class WorkPoolQueries:
    """Work pools and queues, read.

    Raises, from every method:
        DatabaseUnavailable: the database does not answer.
    """

    def __init__(self, backend: Backend, dialect: Dialect, clock: Clock) -> None:
        self._backend = backend
        self._dialect = dialect
        self._clock = clock

    async def get(self, name: str) -> WorkPool:
        """The pool with the name.

        Raises:
            ObjectNotFound: there is none.
        """
        return (await self._shown([await self._row(name)]))[0]

    async def template(self, name: str) -> str:
        """The base job template of the pool, JSON text.

        Raises:
            ObjectNotFound: there is no such pool.
        """
        return (await self._row(name)).base_job_template

    async def _row(self, name: str) -> WorkPoolRow:
        rows = await find_rows(self._backend, self._dialect, WorkPoolRow, [("name", "=", name)])
        if not rows:
            raise ObjectNotFound.of("work pool", name)
        return rows[0]

    async def managed(self) -> dict[str, str]:
        """The names of the pools that servers work themselves, by id."""
        rows = await find_rows(self._backend, self._dialect, WorkPoolRow, [("type", "=", MANAGED)])
        return {row.id: row.name for row in rows}

    async def page(
        self, types: Sequence[str], name_contains: str, page_size: int, page_token: str
    ) -> tuple[list[WorkPool], str]:
        """A page of pools by name, and the token of the next."""
        key = PageKey.of("work pools", "\0".join([name_contains, *types]))
        limit, cursor = page_limit(page_size), key.cursor(page_token, str)
        where: list[tuple[str, str, Any]] = []
        if types:
            where.append(("type", "in", list(types)))
        if name_contains:
            where.append(("name", "contains", name_contains))
        if cursor is not None:
            where.append(("name", ">", cursor[0]))
        rows = await find_rows(
            self._backend, self._dialect, WorkPoolRow, where, order=["name"], limit=limit + 1
        )
        token = key.token([rows[limit - 1].name]) if len(rows) > limit else ""
        return await self._shown(rows[:limit]), token

    async def _shown(self, rows: Sequence[WorkPoolRow]) -> list[WorkPool]:
        if not rows:
            return []
        now = self._clock.now()
        loads = await read_loads(self._backend, [row.name for row in rows], now)
        presence = await read_presence(self._backend, self._dialect)
        where: Where = [("pool_id", "in", [row.id for row in rows]), ("is_default", "=", True)]
        defaults = await find_rows(self._backend, self._dialect, WorkQueueRow, where)
        names = {queue.pool_id: queue.name for queue in defaults}
        shown: list[WorkPool] = []
        for row in rows:
            pool = pool_message(row, names.get(row.id, DEFAULT_QUEUE))
            pool.online_workers = presence.pools.get(row.name, 0)
            pool.status = _status(row.is_paused, is_served=pool.online_workers > 0)
            load = Load()
            for of_queue in loads.get(row.name, {}).values():
                load.add(of_queue)
            pool.load.CopyFrom(load.message(now))
            shown.append(pool)
        return shown

    async def get_queue(self, work_pool: str, name: str) -> WorkQueue:
        """The queue of the pool with the name.

        Raises:
            ObjectNotFound: there is no such pool, or it has no such queue.
        """
        pool = await self._row(work_pool)
        where: Where = [("pool_id", "=", pool.id), ("name", "=", name)]
        rows = await find_rows(self._backend, self._dialect, WorkQueueRow, where)
        if not rows:
            raise ObjectNotFound.of("work queue", f"{work_pool}/{name}")
        return (await self._shown_queues([(rows[0], pool.name)]))[0]

    async def queue_page(
        self, work_pool: str, page_size: int, page_token: str
    ) -> tuple[list[WorkQueue], str]:
        """A page of queues by pool and priority, and the token of the next. An empty pool means all.

        Raises:
            ObjectNotFound: there is no such pool.
        """
        if work_pool:
            await self._row(work_pool)
        key = PageKey.of("work queues", work_pool)
        limit, cursor = page_limit(page_size), key.cursor(page_token, str, int)
        where = Conditions()
        where.among("p.name", [work_pool] if work_pool else [])
        if cursor is not None:
            where.add("(p.name, q.priority) > (?, ?)", *cursor)
        columns = table_of(WorkQueueRow).columns
        names = [
            self._dialect.column(f"q.{name}") if type == "uuid" else f"q.{name}" for name, type in columns
        ]
        rows = await self._backend.fetch(
            f"SELECT {', '.join(names)}, p.name FROM work_queues AS q "
            f"JOIN work_pools AS p ON p.id = q.pool_id WHERE {where.sql} "
            f"ORDER BY p.name, q.priority LIMIT {limit + 1}",
            where.parameters,
        )
        found = [(row_from(WorkQueueRow, tuple(row)[:-1], self._dialect), row[-1]) for row in rows]
        more = len(found) > limit
        found = found[:limit]
        token = key.token([found[-1][1], found[-1][0].priority]) if more else ""
        return await self._shown_queues(found), token

    async def _shown_queues(self, rows: Sequence[tuple[WorkQueueRow, str]]) -> list[WorkQueue]:
        now = self._clock.now()
        loads = await read_loads(self._backend, sorted({pool for _, pool in rows}), now)
        presence = await read_presence(self._backend, self._dialect)
        shown: list[WorkQueue] = []
        for row, pool in rows:
            queue = queue_message(row, pool)
            heard_at = presence.of_queue(pool, row.name)
            queue.status = _status(row.is_paused, is_served=heard_at is not None)
            if heard_at is not None:
                set_micros(queue.last_polled_time, heard_at)
            load = Load()
            for name in (row.name, None) if row.is_default else (row.name,):
                load.add(loads.get(pool, {}).get(name, Load()))
            queue.load.CopyFrom(load.message(now))
            shown.append(queue)
        return shown


def _status(is_paused: bool, *, is_served: bool) -> WorkStatus.ValueType:
    if is_paused:
        return WORK_STATUS_PAUSED
    return WORK_STATUS_READY if is_served else WORK_STATUS_NOT_READY
