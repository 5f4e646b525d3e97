"""The schema's history: which one the database has, and bringing it up to date.

A database without a schema gets `snapshot/<dialect>.sql`, which is the history written down as SQL: a
new server must not wait for SQLAlchemy and alembic to load. A test proves that the two are equal;
`python -m headrace_services.storage.migrations` writes the snapshots anew.
"""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace.core.errors import HeadraceException
from headrace_services.storage.errors import translated
from headrace_services.storage.postgresql import Connection, connect
from headrace_services.storage.urls import dialect_of, sqlite_path

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection as SqlConnection

__all__ = [
    "SchemaTooNew",
    "SchemaTooOld",
    "check_revision",
    "current_revision",
    "head_revision",
    "snapshot_sql",
    "upgrade",
]

_HERE: Final = Path(__file__).parent
_LOCK_KEY: Final = 0x6865_6164_7261_6365
_READ_REVISION: Final = "SELECT version_num FROM alembic_version"


class SchemaTooNew(HeadraceException):
    """The database was written by a newer version of headrace. Upgrade headrace, or use another database."""

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"The database is at schema {revision}, which is newer than {head_revision()}, what this version "
            "of headrace knows. Upgrade headrace, or use another database."
        )


class SchemaTooOld(HeadraceException):
    """The database is older than this version of headrace. Run `headrace db upgrade`."""

    def __init__(self, revision: str | None) -> None:
        at = f"is at schema {revision}" if revision else "has no schema yet"
        super().__init__(
            f"The database {at}; this version of headrace needs {head_revision()}. Run `headrace db upgrade`."
        )


@cache
def _revisions() -> tuple[str, ...]:
    """Every revision of the history, oldest first: the files are named `<revision>_<what>.py`."""
    return tuple(sorted(p.name.split("_", 1)[0] for p in (_HERE / "history/versions").glob("[0-9]*_*.py")))


def head_revision() -> str:
    """The revision that this version of headrace works with."""
    return _revisions()[-1]


def check_revision(revision: str | None) -> None:
    """Make sure that a database at `revision` can be worked with.

    Raises:
        SchemaTooNew: it is past this version.
        SchemaTooOld: it must be upgraded first.
    """
    if revision is not None and revision not in _revisions():
        raise SchemaTooNew(revision)
    if revision != head_revision():
        raise SchemaTooOld(revision)


async def current_revision(url: str) -> str | None:
    """The revision that the database is at; None: it has no schema yet.

    Raises:
        DatabaseUnavailable: nobody answers there.
    """
    with translated():
        if dialect_of(url) == "sqlite":
            return await asyncio.to_thread(_current_sqlite, sqlite_path(url))
        connection = await connect(url, "migrations")
        try:
            return await _current_postgresql(connection)
        finally:
            await connection.close()


async def upgrade(url: str) -> None:
    """Bring the database to `head_revision()`. Several processes may call it at once; one does it.

    Raises:
        DatabaseUnavailable: nobody answers there.
        SchemaTooNew: the database is past this version.
    """
    with translated():
        if dialect_of(url) == "sqlite":
            await asyncio.to_thread(_upgrade_sqlite, sqlite_path(url))
        else:
            await _upgrade_postgresql(url)


def _needs_history(revision: str | None) -> bool:
    if revision is not None and revision not in _revisions():
        raise SchemaTooNew(revision)
    return revision is not None and revision != head_revision()


# SQLite


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".migrate").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _revision_of(connection: sqlite3.Connection) -> str | None:
    try:
        row = connection.execute(_READ_REVISION).fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    return None if row is None else str(row[0])


def _current_sqlite(path: Path) -> str | None:
    if not path.exists():
        return None
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        return _revision_of(connection)


def _upgrade_sqlite(path: Path) -> None:
    with _file_lock(path), closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        revision = _revision_of(connection)
        if revision is None:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            # One transaction, so that a kill leaves either nothing or all of it.
            connection.executescript(f"BEGIN IMMEDIATE;\n{snapshot_sql('sqlite')}\nCOMMIT;")
        elif _needs_history(revision):
            _run_history_sqlite(path)


def _run_history_sqlite(path: Path) -> None:
    import sqlalchemy as sa

    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
    with engine.connect() as connection:
        # pysqlite's own idea of when a transaction begins leaves DDL outside of it.
        connection.connection.driver_connection.isolation_level = None  # type: ignore[union-attr]
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            _run_history(connection)
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")
    engine.dispose()


# PostgreSQL


async def _current_postgresql(connection: Connection) -> str | None:
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    revision = await connection.fetchval(_READ_REVISION)
    return None if revision is None else str(revision)


async def _upgrade_postgresql(url: str) -> None:
    connection = await connect(url, "migrations")
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
            revision = await _current_postgresql(connection)
            if revision is None:
                await connection.execute(snapshot_sql("postgresql"))
                return
    finally:
        await connection.close()
    if _needs_history(revision):
        await _run_history_postgresql(url)


async def _run_history_postgresql(url: str) -> None:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine("postgresql+asyncpg://" + url.split("://", 1)[1])
    try:
        async with engine.begin() as connection:
            await connection.execute(sa.text("SET LOCAL lock_timeout = '10s'"))
            await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            await connection.run_sync(_run_history)
    finally:
        await engine.dispose()


# The history itself


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE / "history"))
    return config


def _run_history(connection: SqlConnection) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def snapshot_sql(dialect: str) -> str:
    """The whole history as SQL for a database without a schema."""
    return (_HERE / "snapshot" / f"{dialect}.sql").read_text(encoding="utf-8")


def render_snapshot(dialect: str) -> str:
    """The history as alembic writes it down for `dialect`, without its transaction."""
    from io import StringIO

    from alembic import command

    config = _config()
    config.output_buffer = buffer = StringIO()
    config.attributes["dialect"] = dialect
    command.upgrade(config, "head", sql=True)
    return buffer.getvalue().replace("BEGIN;\n", "").replace("COMMIT;\n", "").strip() + "\n"


if __name__ == "__main__":
    for _dialect in ("sqlite", "postgresql"):
        (_HERE / "snapshot" / f"{_dialect}.sql").write_text(render_snapshot(_dialect), encoding="utf-8")
