"""Database URLs: which database, and where."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["dialect_of", "postgresql_dsn", "redacted", "sqlite_path"]

_SQLITE = "sqlite+aiosqlite:///"
_POSTGRESQL = ("postgresql+asyncpg://", "postgresql://", "postgres://")


def dialect_of(url: str) -> str:
    """ "sqlite" or "postgresql".

    Raises:
        ValueError: the URL names neither.
    """
    if url.startswith((_SQLITE, "sqlite:///")):
        return "sqlite"
    if url.startswith(_POSTGRESQL):
        return "postgresql"
    raise ValueError(
        f"{redacted(url)!r} is no database URL that headrace knows: give sqlite+aiosqlite:///path/to/file.db "
        "or postgresql+asyncpg://user@host/database"
    )


def sqlite_path(url: str) -> Path:
    """The file that a SQLite URL names.

    Raises:
        ValueError: it names none: a database in memory would forget every run.
    """
    path = unquote(url.split(":///", 1)[1].split("?", 1)[0])
    if not path or path.startswith(":memory:"):
        raise ValueError("the SQLite URL names no file: give sqlite+aiosqlite:///path/to/file.db")
    return Path(path).expanduser()


def postgresql_dsn(url: str) -> str:
    """The URL as PostgreSQL's own clients write it."""
    return "postgresql://" + url.split("://", 1)[1]


def redacted(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)
