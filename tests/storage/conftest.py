"""One suite for both databases: every test of this folder runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from headrace_services.storage.database import Database, open_database
from tests.storage.build import ManualClock, Recording


@pytest.fixture
def clock() -> ManualClock:
    """The clock of the databases of a test."""
    return ManualClock()


@pytest.fixture
async def database(database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    """An open database."""
    database = await open_database(database_url, clock=clock, read_pool_size=2)
    yield database
    await database.close()


@pytest.fixture
async def recording(database: Database) -> Recording:
    """An open recorder."""
    recording = Recording(database)
    await recording.open()
    return recording


Opener = Callable[[], Awaitable[Database]]


@pytest.fixture
async def replicas(postgresql_url: str, clock: ManualClock) -> AsyncIterator[list[Database]]:
    """Two servers' worth of databases on one PostgreSQL."""
    pair = [await open_database(postgresql_url, clock=clock, read_pool_size=2) for _ in range(2)]
    yield pair
    for database in pair:
        await database.close()
