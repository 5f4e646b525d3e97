"""The two stores below the writer: where a transaction runs, and what it may do without locks."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from headrace_services.storage import steps
from headrace_services.storage.postgresql_store import PostgresqlStore
from headrace_services.storage.sqlite_store import SqliteStore
from headrace_services.storage.steps import Conflict, Steps
from headrace_services.storage.urls import sqlite_path
from headrace_services.storage.work import Writes

QUICK, SLOW = 0.0001, 0.01


class Stopwatch:
    """Says that whatever is timed took `seconds`."""

    def __init__(self) -> None:
        self.seconds = QUICK
        self._readings = self._read()

    def _read(self) -> Iterator[float]:
        while True:
            yield 0.0
            yield self.seconds

    def __call__(self) -> float:
        return next(self._readings)


@pytest.fixture
def stopwatch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
async def store(sqlite_url: str, stopwatch: Stopwatch) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(sqlite_path(sqlite_url), stopwatch)
    await store.open()
    yield store
    await store.close()


def _add_flow(name: str) -> Steps[str]:
    """Adds a flow; answers with the thread that did."""
    writes = Writes(1)
    writes.flows = {f"00000000-0000-7000-8000-{len(name):012}": name}
    yield from steps.flush(writes)
    return threading.current_thread().name


async def _thread_of_next(store: SqliteStore, *, is_alone: bool = True) -> str:
    return await store.transact(lambda: _add_flow("flow"), is_alone=is_alone)


async def test_a_transaction_runs_in_place_while_the_disk_is_quick(
    store: SqliteStore, stopwatch: Stopwatch
) -> None:
    here, thread = threading.current_thread().name, "headrace-writer"
    assert [await _thread_of_next(store) for _ in range(5)] == [thread] * 3 + [here] * 2
    assert await _thread_of_next(store, is_alone=False) == thread, "others wait"
    stopwatch.seconds = SLOW
    assert await _thread_of_next(store) == here
    stopwatch.seconds = QUICK
    assert [await _thread_of_next(store) for _ in range(4)] == [thread] * 3 + [here]


async def test_the_event_loop_does_not_wait_for_another_programs_lock(
    store: SqliteStore, sqlite_url: str
) -> None:
    for _ in range(3):
        await _thread_of_next(store)
    foreign = sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(_thread_of_next(store))
    await asyncio.sleep(0)  # would never come back, were the lock waited for here
    foreign.execute("COMMIT")
    foreign.close()
    assert await waiting == "headrace-writer"


async def test_a_transaction_in_place_that_fails_leaves_nothing(store: SqliteStore) -> None:
    def fail() -> Steps[str]:
        yield from _add_flow("halves")
        raise Conflict

    for _ in range(3):
        await _thread_of_next(store)
    with pytest.raises(Conflict):
        await store.transact(fail, is_alone=True)

    await _thread_of_next(store)
    foreign = sqlite3.connect(store._path)
    assert [row[0] for row in foreign.execute("SELECT name FROM flows")] == ["flow"]
    foreign.close()


async def test_what_needs_locks_is_not_done_without(postgresql_url: str) -> None:
    """Rows of queues, limits and whole trees count only while they are locked: the writer tries again."""
    store = PostgresqlStore(postgresql_url)
    await store.open()
    try:
        for operation, argument in (("load_tree", []), ("lock_flow", "x"), ("write_rows", None)):

            def logic(operation: str = operation, argument: Any = argument) -> Steps[Any]:
                return (yield from steps.call(operation, argument))

            with pytest.raises(Conflict):
                await store.transact(logic, is_optimistic=True)
    finally:
        await store.close()


@pytest.mark.parametrize("places", [[], [7], [1, 2, 3], [3, 4, 9, 10, 31, 32, 33, 90]], ids=len)
async def test_old_changes_are_found_without_an_index(store: SqliteStore, places: list[int]) -> None:
    """Rows that went, or that a rollback never made, leave gaps in the numbers."""
    connection = store._connected()
    rows = [(place, place * 10) for place in places]
    connection.executemany("INSERT INTO outbox (seq, kind, keys, record_time) VALUES (?, 1, x'', ?)", rows)
    for limit in range(0, 1000, 5):
        older = [seq for seq, time in rows if time < limit]
        assert store._last_before(limit) == (older[-1] if older else None)
