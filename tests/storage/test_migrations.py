"""The schema and its history."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine

from headrace.core.errors import DatabaseUnavailable
from headrace_services.storage import migrations
from headrace_services.storage.database import open_database
from headrace_services.storage.schema import metadata
from headrace_services.storage.urls import dialect_of, sqlite_path
from tests.storage.build import ManualClock, Recording, flow_run


async def _run_sync(url: str, function: Callable[[sa.Connection], Any]) -> Any:
    """What `function` returns for a connection of SQLAlchemy's, within a transaction."""
    if dialect_of(url) == "sqlite":
        return await asyncio.to_thread(_run_on_sqlite, f"sqlite:///{sqlite_path(url)}", function)
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(function)
    finally:
        await engine.dispose()


def _run_on_sqlite(url: str, function: Callable[[sa.Connection], Any]) -> Any:
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            return function(connection)
    finally:
        engine.dispose()


def _described(connection: sa.Connection) -> Any:
    """Everything a database says of its tables."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master ORDER BY name").all()
        tables = [(kind, name, sql) for kind, name, sql in rows if sql is not None]
        return [(kind, name, " ".join(sql.replace(", )", ")").split())) for kind, name, sql in tables]
    columns = connection.exec_driver_sql(
        "SELECT table_name, column_name, data_type, is_nullable, column_default "
        "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    ).all()
    indexes = connection.exec_driver_sql(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    ).all()
    checks = connection.exec_driver_sql(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint ORDER BY 1, 2"
    ).all()
    return [[tuple(row) for row in rows] for rows in (columns, indexes, checks)]


def test_the_head_is_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations._HERE / "history"))
    assert ScriptDirectory.from_config(config).get_current_head() == migrations.head_revision()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_the_snapshot_is_the_history_written_down(dialect: str) -> None:
    assert migrations.snapshot_sql(dialect) == migrations.render_snapshot(dialect)


@pytest.fixture(params=["sqlite", "postgresql"])
def twins(request: pytest.FixtureRequest) -> tuple[str, str]:
    """URLs of an empty database and of one made from the snapshot."""
    empty, full = (request.getfixturevalue(f"{prefix}{request.param}_url") for prefix in ("empty_", ""))
    return empty, full


async def test_the_snapshot_and_the_history_make_the_same_database(twins: tuple[str, str]) -> None:
    by_history, by_snapshot = twins
    if dialect_of(by_history) == "sqlite":
        await asyncio.to_thread(migrations._run_history_sqlite, sqlite_path(by_history))
    else:
        await migrations._run_history_postgresql(by_history)
    assert await _run_sync(by_history, _described) == await _run_sync(by_snapshot, _described)


async def test_the_tables_are_what_the_schema_says(database_url: str) -> None:
    def differences(connection: sa.Connection) -> Any:
        def is_meant(item: Any, _name: object, kind: str, reflected: bool, _other: object) -> bool:
            """Whether the schema has it on this database: alembic does not ask an index's `ddl_if`."""
            condition = item._ddl_if if kind == "index" and not reflected else None
            return condition is None or condition.dialect == connection.dialect.name

        context = MigrationContext.configure(connection, opts={"include_object": is_meant})
        return compare_metadata(context, metadata)

    assert await _run_sync(database_url, differences) == []


async def test_upgrading_twice_and_at_once_is_upgrading_once(empty_database_url: str) -> None:
    assert await migrations.current_revision(empty_database_url) is None
    await asyncio.gather(*(migrations.upgrade(empty_database_url) for _ in range(3)))
    assert await migrations.current_revision(empty_database_url) == migrations.head_revision()
    rows = await _run_sync(
        empty_database_url, lambda c: c.exec_driver_sql("SELECT name FROM workspaces").all()
    )
    assert [tuple(row) for row in rows] == [("default",)]


async def _set_revision(url: str, revision: str) -> None:
    def change(connection: sa.Connection) -> None:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :r"), {"r": revision})

    await _run_sync(url, change)


async def test_a_newer_schema_is_refused(database_url: str, clock: ManualClock) -> None:
    await _set_revision(database_url, "9999")
    with pytest.raises(migrations.SchemaTooNew, match="9999"):
        await open_database(database_url, clock=clock)
    with pytest.raises(migrations.SchemaTooNew):
        await migrations.upgrade(database_url)


async def test_an_older_schema_must_be_upgraded_first(empty_database_url: str, clock: ManualClock) -> None:
    with pytest.raises(migrations.SchemaTooOld, match="headrace db upgrade"):
        await open_database(empty_database_url, clock=clock)


async def test_a_database_that_is_not_there(clock: ManualClock, tmp_path: Any) -> None:
    nowhere = "postgresql+asyncpg://nobody@127.0.0.1:1/none"
    for call in (migrations.current_revision(nowhere), migrations.upgrade(nowhere)):
        with pytest.raises(DatabaseUnavailable):
            await call
    with pytest.raises(DatabaseUnavailable):
        await open_database(nowhere, clock=clock)
    folder = tmp_path / "folder.db"
    folder.mkdir()
    with pytest.raises(DatabaseUnavailable):
        await migrations.upgrade(f"sqlite+aiosqlite:///{folder}")


async def test_a_file_that_is_no_database(clock: ManualClock, tmp_path: Any) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is not a database" * 100)
    with pytest.raises(DatabaseUnavailable):
        await open_database(f"sqlite+aiosqlite:///{path}", clock=clock)


@pytest.mark.parametrize("url", ["mysql://x", "sqlite+aiosqlite:///", "sqlite+aiosqlite:///:memory:", "x"])
async def test_urls_that_name_no_database(url: str, clock: ManualClock) -> None:
    with pytest.raises(ValueError):
        await open_database(url, clock=clock)


def test_a_server_that_needs_no_migration_loads_no_alembic(database_url: str) -> None:
    code = (
        "import asyncio, sys\n"
        "from headrace.core.clock import SystemClock\n"
        "from headrace_services.storage import migrations\n"
        "from headrace_services.storage.database import open_database\n"
        "async def main(url):\n"
        "    await migrations.upgrade(url)\n"
        "    database = await open_database(url, clock=SystemClock())\n"
        "    await database.close()\n"
        "asyncio.run(main(sys.argv[1]))\n"
        "print(sorted({'alembic', 'sqlalchemy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, database_url], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


_REST = "id, type, name, event_time, record_time, body"
CHECKED = [
    ("UPDATE runs SET end_time = NULL WHERE state_type = 6", "an end without a time"),
    ("UPDATE runs SET state_type = 3 WHERE state_type = 6", "a running run that has ended"),
    ("UPDATE runs SET total_run_time = -1", "negative run time"),
    ("UPDATE runs SET kind = 3", "a kind that there is not"),
    ("UPDATE recorders SET is_sealed = {true}, expires_at = 5", "a sealed recorder with a lease"),
    (f"INSERT INTO run_states SELECT run_id, seq + 9, {_REST} FROM run_states", "a state twice"),
    (f"INSERT INTO run_states SELECT run_id, seq, {_REST} FROM run_states", "two states in one place"),
    ("UPDATE runs SET idempotency_key = 'k'", "one key for two runs of a flow"),
]


@pytest.mark.parametrize(("statement", "what"), CHECKED, ids=[what for _, what in CHECKED])
async def test_the_database_refuses_what_the_rules_forbid(
    statement: str, what: str, database_url: str, clock: ManualClock
) -> None:
    database = await open_database(database_url, clock=clock)
    recording = Recording(database)
    await recording.open()
    for _ in range(2):
        await recording.run_through(flow_run(), ["RUNNING", "COMPLETED"])
    await database.close()
    statement = statement.format(true="1" if dialect_of(database_url) == "sqlite" else "true")
    with pytest.raises(sa.exc.IntegrityError):
        await _run_sync(database_url, lambda connection: connection.exec_driver_sql(statement))


def _at_first_revision(connection: sa.Connection) -> None:
    """The schema of the first revision, with a flow in it."""
    config = migrations._config()
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")
    id = "6e9d3c1e-58a7-5f0c-9a51-3f0de2c1b7a4"
    value = f"x'{id.replace('-', '')}'" if connection.dialect.name == "sqlite" else f"'{id}'"
    connection.exec_driver_sql(f"INSERT INTO flows (id, name, create_time) VALUES ({value}, 'old', 1)")


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_a_database_of_the_first_revision_is_brought_up_to_date_with_its_data(
    dialect: str, request: pytest.FixtureRequest, clock: ManualClock
) -> None:
    old, new = (request.getfixturevalue(name) for name in (f"empty_{dialect}_url", f"{dialect}_url"))
    await _run_sync(old, _at_first_revision)
    with pytest.raises(migrations.SchemaTooOld, match="0001"):
        await open_database(old, clock=clock)
    await migrations.upgrade(old)
    assert await _run_sync(old, _described) == await _run_sync(new, _described)
    database = await open_database(old, clock=clock)
    flows, _ = await database.reader.list_flows()
    assert [flow.name for flow in flows] == ["old"]
    recording = Recording(database)
    await recording.open()
    await recording.run_through(flow_run("old"), ["PENDING", "RUNNING", "COMPLETED"])
    await database.close()
