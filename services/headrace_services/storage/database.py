"""One database: its writer, its reader and the word of its commits."""

from __future__ import annotations

from headrace.core.clock import Clock
from headrace_services.storage import migrations
from headrace_services.storage.backends import Backend, PostgresqlBackend, SqliteBackend
from headrace_services.storage.reader import Reader
from headrace_services.storage.signals import Signals
from headrace_services.storage.urls import dialect_of
from headrace_services.storage.writer import Writer

__all__ = ["Database", "open_database"]


class Database:
    """An open database.

    Attributes:
        dialect: "sqlite" or "postgresql".
        version: the database's own version, e.g. "15.18".
        writer: the one way to change anything.
        reader: queries.
        signals: grows with every commit, local or noticed.
        queue_signals: grows when there may be something to hand to workers.
    """

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self.dialect = backend.dialect
        self.version = backend.version
        self.signals = Signals()
        self.queue_signals = Signals()
        self.reader = Reader(backend, clock)
        self.writer = Writer(backend, clock, self._committed)
        self._closed = False

    async def now(self) -> int:
        """The instant by which leases are measured, in microseconds.

        It is the database's own clock on PostgreSQL, so that replicas agree, and the given clock on
        SQLite.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        return await self._backend.lease_now()

    async def ping(self) -> None:
        """Make sure that the database answers.

        Raises:
            DatabaseUnavailable: it does not.
        """
        await self._backend.fetch("SELECT 1")

    async def close(self) -> None:
        """Commit what is queued, then let go of every connection. Safe to call twice."""
        if not self._closed:
            self._closed = True
            await self.writer.close()
            await self._backend.close()

    async def start(self) -> None:
        """Begin to commit, and to hear of the commits of other replicas."""
        await self._backend.listen(self._heard)
        self.writer.start()

    def _heard(self, is_queue: bool) -> None:
        self.signals.bump()
        if is_queue:
            self.queue_signals.bump()

    def _committed(self, is_queue: bool) -> None:
        self._heard(is_queue)
        self._backend.notify(is_queue)


async def open_database(url: str, *, clock: Clock, read_pool_size: int = 8) -> Database:
    """Open the database at `url`, which must be at this version's schema.

    Args:
        url: `sqlite+aiosqlite:///path` or `postgresql+asyncpg://user@host/name`.
        clock: what the time is.
        read_pool_size: how many queries may run at once.

    Raises:
        DatabaseUnavailable: nobody answers there.
        SchemaTooNew, SchemaTooOld: see `storage.migrations`.
        ValueError: the URL names no database that headrace knows.
    """
    migrations.check_revision(await migrations.current_revision(url))
    backend: Backend
    if dialect_of(url) == "sqlite":
        backend = await SqliteBackend.open(url, clock, read_pool_size)
    else:
        backend = await PostgresqlBackend.open(url, read_pool_size)
    database = Database(backend, clock)
    await database.start()
    return database
