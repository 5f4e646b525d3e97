"""Rows of plain tables: found, changed and deleted within a transaction, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from headrace.core.ids import new_id
from headrace_services.storage.command import Command
from headrace_services.storage.database import Database
from headrace_services.storage.declared_rows import WorkPoolRow, WorkQueueRow
from headrace_services.storage.dialects import POSTGRESQL, SQLITE
from headrace_services.storage.entities import Lock
from headrace_services.storage.entity_queries import find_rows
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work
from tests.storage.build import START

Logic = Callable[[Work], Steps[Any]]


class Do(Command[Any]):
    """One piece of logic as a command."""

    def __init__(self, logic: Logic) -> None:
        super().__init__()
        self.apply = logic  # type: ignore[method-assign]


async def do(database: Database, logic: Logic) -> Any:
    return await database.writer._ask(Do(logic))


def a_pool(name: str = "pool", **values: Any) -> WorkPoolRow:
    fields = {"type": "process", "description": "", "is_paused": False, "concurrency_limit": None}
    fields |= {"base_job_template": "{}", "create_time": START, "update_time": START}
    return WorkPoolRow(**({"id": new_id(), "name": name} | fields | values))


def a_queue(pool: WorkPoolRow, priority: int) -> WorkQueueRow:
    return WorkQueueRow(
        new_id(), pool.id, f"queue-{priority}", "", priority, False, priority == 1, None, START, START
    )


async def stored(database: Database, cls: Any, where: Any = (), **how: Any) -> list[Any]:
    """What somebody sees who is not part of the transaction."""
    dialect = SQLITE if database.dialect == "sqlite" else POSTGRESQL
    return await find_rows(database._backend, dialect, cls, where, **how)


async def put(database: Database, *rows: Any) -> None:
    def logic(work: Work) -> Steps[None]:
        for row in rows:
            work.rows.put(row)
        yield from ()

    await do(database, logic)


async def test_a_row_comes_back_as_it_was_put(database: Database) -> None:
    pool = a_pool(is_paused=True, concurrency_limit=3, description="ä\u2028")
    await put(database, pool)
    assert await stored(database, WorkPoolRow) == [pool]
    assert pool.is_stored and pool.stored_version == 1


async def test_conditions_order_and_limit(database: Database) -> None:
    pool = a_pool()
    queues = [a_queue(pool, priority) for priority in (3, 1, 2)]
    await put(database, pool, *queues)

    async def priorities(*where: Any, **how: Any) -> list[int]:
        return [row.priority for row in await stored(database, WorkQueueRow, where, **how)]

    assert await priorities(order=["priority"]) == [1, 2, 3]
    assert await priorities(("pool_id", "=", pool.id), order=["priority DESC"], limit=2) == [3, 2]
    assert await priorities(("priority", ">=", 2), order=["priority"]) == [2, 3]
    assert await priorities(("id", "in", [queues[0].id, queues[1].id]), order=["priority"]) == [1, 3]
    assert await priorities(("is_default", "=", True)) == [1]
    assert await priorities(("concurrency_limit", "is", None), ("name", "<>", "queue-1"), limit=1) != []
    assert await priorities(("concurrency_limit", "is", True)) == []
    assert await priorities(("pool_id", "=", new_id())) == []


async def test_a_command_sees_what_those_before_it_did(database: Database) -> None:
    pool = a_pool()

    def first(work: Work) -> Steps[None]:
        work.rows.put(pool)
        work.rows.put(a_queue(pool, 1))
        yield from ()

    def second(work: Work) -> Steps[tuple[int, bool]]:
        found = yield from work.rows.find(WorkQueueRow, [("pool_id", "=", pool.id)])
        same = yield from work.rows.one(WorkPoolRow, [("name", "=", "pool")])
        assert same is not None
        same.is_paused = True
        work.rows.put(same)
        work.rows.delete(found[0])
        return len(found), same is pool

    def third(work: Work) -> Steps[list[WorkQueueRow]]:
        return (yield from work.rows.find(WorkQueueRow, []))

    # Enqueued together, they share a transaction.
    answers = await asyncio.gather(do(database, first), do(database, second), do(database, third))
    assert answers == [None, (1, True), []]
    [kept] = await stored(database, WorkPoolRow)
    assert kept.is_paused
    assert await stored(database, WorkQueueRow) == []


async def test_loading_by_key_and_deleting_many(database: Database) -> None:
    pool = a_pool()
    queues = [a_queue(pool, priority) for priority in range(1, 6)]
    await put(database, pool, *queues)

    def logic(work: Work) -> Steps[list[bool]]:
        unknown = new_id()
        yield from work.rows.load(WorkQueueRow, [(queue.id,) for queue in queues] + [(unknown,)], Lock.OWN)
        known = [work.rows.get(WorkQueueRow, queue.id) == queue for queue in queues]
        assert work.rows.get(WorkQueueRow, unknown) is None
        yield from work.rows.delete_where(WorkQueueRow, [("pool_id", "=", pool.id), ("priority", ">", 2)])
        return known

    assert await do(database, logic) == [True] * 5
    left = await stored(database, WorkQueueRow, order=["priority"])
    assert [queue.priority for queue in left] == [1, 2]


async def test_a_version_grows_with_every_transaction_that_writes(database: Database) -> None:
    await put(database, a_pool())

    def change(work: Work) -> Steps[int]:
        row = yield from work.rows.one(WorkPoolRow, [("name", "=", "pool")])
        assert row is not None
        for description in ("one", "two"):
            row.description = description
            work.rows.put(row)
        return row.version

    assert await do(database, change) == 2
    assert await do(database, change) == 3
    assert [row.version for row in await stored(database, WorkPoolRow)] == [3]


async def test_nothing_changed_is_nothing_written(database: Database) -> None:
    before = database.signals.count

    def look(work: Work) -> Steps[int]:
        return len((yield from work.rows.find(WorkPoolRow, [])))

    assert await do(database, look) == 0
    assert database.signals.count == before
    await put(database, a_pool())
    assert database.signals.count > before


@pytest.mark.parametrize("lock", [Lock.CHANGE, Lock.NONE], ids=["locked", "by version alone"])
async def test_replicas_that_change_one_row_lose_nothing(replicas: list[Database], lock: Lock) -> None:
    await put(replicas[0], a_pool(concurrency_limit=0))

    def count(work: Work) -> Steps[None]:
        row = yield from work.rows.one(WorkPoolRow, [("name", "=", "pool")], lock)
        assert row is not None and row.concurrency_limit is not None
        row.concurrency_limit += 1
        work.rows.put(row)

    async def many(database: Database) -> None:
        for _ in range(10):
            await do(database, count)

    await asyncio.gather(*(many(database) for database in replicas))
    assert [row.concurrency_limit for row in await stored(replicas[0], WorkPoolRow)] == [20]


async def test_replicas_that_make_one_name_make_one_row(replicas: list[Database]) -> None:
    def make(work: Work) -> Steps[str]:
        row = yield from work.rows.one(WorkPoolRow, [("name", "=", "pool")])
        if row is None:
            row = a_pool()
            work.rows.put(row)
        return row.id

    ids = await asyncio.gather(*(do(database, make) for database in replicas * 5))
    assert len(set(ids)) == 1
    assert len(await stored(replicas[1], WorkPoolRow)) == 1
