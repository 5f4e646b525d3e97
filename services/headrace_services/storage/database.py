"""One database: its writer, its reader and the word of its commits."""

from __future__ import annotations

from headrace.core.clock import Clock
from headrace_services.storage.reader import Reader
from headrace_services.storage.signals import Signals
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
    """

    dialect: str
    version: str
    writer: Writer
    reader: Reader
    signals: Signals

    async def now(self) -> int:
        """The instant by which leases are measured, in microseconds.

        It is the database's own clock on PostgreSQL, so that replicas agree, and the given clock on
        SQLite.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        raise NotImplementedError

    async def ping(self) -> None:
        """Make sure that the database answers.

        Raises:
            DatabaseUnavailable: it does not.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Commit what is queued, then let go of every connection. Safe to call twice."""
        raise NotImplementedError


async def open_database(url: str, *, clock: Clock, read_pool_size: int = 8) -> Database:
    """Open the database at `url`, which must be at this version's schema.

    Args:
        url: `sqlite+aiosqlite:///path` or `postgresql+asyncpg://user@host/name`.
        clock: what the time is.
        read_pool_size: how many queries may run at once.

    Raises:
        DatabaseUnavailable: nobody answers there.
        SchemaTooNew, SchemaTooOld: see `storage.migrations`.
    """
    raise NotImplementedError
