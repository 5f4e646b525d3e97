"""The write-ahead log of a SQLite file goes into the file beside the transactions."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from headrace_services.storage import steps
from headrace_services.storage.checkpoints import Checkpoints
from headrace_services.storage.sqlite_store import SqliteStore, open_connection
from headrace_services.storage.steps import Steps
from headrace_services.storage.urls import sqlite_path
from headrace_services.storage.work import Writes

FLOWS = 1200


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(sqlite_path(sqlite_url))
    await store.open()
    yield store
    await store.close()


def _add_flows(first: int) -> Steps[None]:
    writes = Writes(1)
    numbers = range(first, first + FLOWS)
    writes.flows = {f"00000000-0000-7000-8000-{number:012}": f"flow {number}" for number in numbers}
    yield from steps.flush(writes)


def _until_made(checkpoints: Checkpoints) -> None:
    while not checkpoints.made:
        time.sleep(0.01)


async def test_much_that_was_written_is_copied_into_the_file(store: SqliteStore, sqlite_url: str) -> None:
    path = sqlite_path(sqlite_url)
    size = path.stat().st_size
    await store.transact(lambda: _add_flows(0))
    await asyncio.to_thread(_until_made, store.checkpoints)
    assert path.stat().st_size > size
    reader = open_connection(path, read_only=True)
    assert reader.execute("SELECT count(*) FROM flows").fetchone() == (FLOWS,)
    reader.close()


async def test_little_does_not_even_begin_a_thread(store: SqliteStore) -> None:
    def one() -> Steps[None]:
        writes = Writes(1)
        writes.flows = {"00000000-0000-7000-8000-000000000001": "flow"}
        yield from steps.flush(writes)

    await store.transact(one)
    assert not any(thread.name == "headrace-checkpoints" for thread in threading.enumerate())


async def test_a_file_that_cannot_be_opened_harms_no_commit(sqlite_url: str) -> None:
    store = SqliteStore(sqlite_path(sqlite_url))
    await store.open()
    missing = sqlite_path(sqlite_url).parent / "not" / "there.db"
    store.checkpoints = Checkpoints(lambda: open_connection(missing))
    await store.transact(lambda: _add_flows(0))
    await store.transact(lambda: _add_flows(FLOWS))
    await store.close()
    assert store.checkpoints.made == 0
