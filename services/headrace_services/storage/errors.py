"""The databases' own errors as the errors of the contract."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg  # type: ignore[import-untyped]

from headrace.core.errors import DatabaseUnavailable, ServiceError, StorageFull

__all__ = ["is_conflict", "is_disconnect", "translate", "translated"]

_FULL = (sqlite3.SQLITE_FULL,)
_AWAY = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
)
_PG_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What the driver raises of a connection that broke while it was being used.
    asyncpg.InternalClientError,
    # "The database is not currently accepting connections."
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,
)
_PG_CONFLICT = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)


def translate(error: BaseException) -> ServiceError | None:
    """The contract's error for what a driver raised, or None for a mistake of ours."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _FULL:
            return StorageFull()
        return DatabaseUnavailable() if code in _AWAY else None
    if isinstance(error, asyncpg.DiskFullError):
        return StorageFull()
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StorageFull()
    if is_disconnect(error):
        return DatabaseUnavailable()
    return None


def is_disconnect(error: BaseException) -> bool:
    """Whether the connection to PostgreSQL that raised `error` is of no more use."""
    return isinstance(error, (*_PG_AWAY, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError))


def is_conflict(error: BaseException) -> bool:
    """Whether a transaction lost against another one and may simply be tried again."""
    return isinstance(error, _PG_CONFLICT)


@contextmanager
def translated() -> Iterator[None]:
    """Raise what a driver raises inside as the contract's error."""
    try:
        yield
    except (
        sqlite3.Error,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
    ) as error:
        known = translate(error)
        if known is None:
            raise
        raise known from error
