"""Why the server cannot use its database, in one sentence that says what to do."""

from __future__ import annotations

import sqlite3
from typing import Final

import asyncpg

from headrace.core.errors import ConfigurationError, DatabaseUnavailable, HeadraceException, StorageFull
from headrace_services.storage.urls import dialect_of, redacted, sqlite_path

__all__ = ["DatabaseUnusable", "check_url", "explain"]

_DAMAGED: Final = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


class DatabaseUnusable(HeadraceException):
    """The server cannot start with this database."""


def check_url(url: str) -> None:
    """Makes sure that the URL names a database.

    Raises:
        ConfigurationError: it does not; the message has no password.
    """
    try:
        if dialect_of(url) == "sqlite":
            sqlite_path(url)
    except ValueError as error:
        raise ConfigurationError(f"HEADRACE_SERVER_DATABASE_CONNECTION_URL: {error}.") from None


def explain(error: HeadraceException, url: str) -> HeadraceException:
    """`error` with what to do, where it is about the database; else `error` itself."""
    if isinstance(error, StorageFull):
        return DatabaseUnusable(
            f"The disk of {_where(url)} is full. Free some space on it, then start again."
        )
    if not isinstance(error, DatabaseUnavailable):
        return error
    cause = error.__cause__
    if dialect_of(url) == "sqlite":
        return DatabaseUnusable(_about_sqlite(url, cause))
    return DatabaseUnusable(_about_postgresql(url, cause))


def _about_sqlite(url: str, cause: BaseException | None) -> str:
    path = sqlite_path(url)
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED:
        return (
            f"{path} is not a SQLite database, or it is damaged. Move it away to start with an empty one, "
            "or put a backup in its place."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path} is locked by another program. Stop that program, then start again."
    return f"{path} cannot be opened for writing. Check who owns the file and its folder."


def _about_postgresql(url: str, cause: BaseException | None) -> str:
    where = _where(url)
    if isinstance(cause, asyncpg.InvalidCatalogNameError):
        return f"There is no such database at {where}. Create it (`createdb`), then start again."
    if isinstance(cause, asyncpg.InvalidAuthorizationSpecificationError):
        return f"PostgreSQL refuses the user or the password of {where}. Correct them in the database URL."
    return (
        f"No PostgreSQL answers at {where}. Start it, or correct the host and the port in the database URL."
    )


def _where(url: str) -> str:
    return str(sqlite_path(url)) if dialect_of(url) == "sqlite" else redacted(url)
