"""Processes, connections and disks that fail."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from headrace.core.errors import DatabaseUnavailable, StorageFull
from headrace.v1.record_service_pb2 import RecordEntry
from headrace.v1.run_pb2 import Run, RunFilter
from headrace_services.storage import migrations
from headrace_services.storage.database import Database, open_database
from headrace_services.storage.urls import postgresql_dsn, sqlite_path
from tests.storage.build import ManualClock, Recording, flow_run, record, run_of, state, task_run


def _kill_after(number: int, url: str, journal: Path) -> list[list[str]]:
    """Let a process record until it has had so many acknowledgements, kill it; the words of its lines."""
    command = [sys.executable, "-m", "tests.storage.writing_process", url, str(journal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(number):
            assert process.stdout.readline(), "the writing process ended by itself"
        process.send_signal(signal.SIGKILL)
    lines = journal.read_text().splitlines(keepends=True)
    return [line.split() for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("number", [2, 60, 300])
async def test_a_killed_server_loses_nothing_it_acknowledged(
    number: int, database_url: str, tmp_path: Path, clock: ManualClock
) -> None:
    first, *lines = await asyncio.to_thread(_kill_after, number, database_url, tmp_path / "journal")
    acknowledged = {task_id: int(seq) for seq, task_id in lines}
    database = await open_database(database_url, clock=clock)
    try:
        recording = Recording(database, first[1])
        durable_seq = (await recording.open()).durable_seq
        assert durable_seq >= max(acknowledged.values())
        found = await _every_task_run(database)
        assert set(acknowledged) <= {run.id for run in found}
        assert {run.state.name for run in found} == {"Completed"}
        # Three entries a task run, and two before: nothing is there in part.
        assert durable_seq == 2 + 3 * len(found)
        states = await database.reader._backend.fetch("SELECT count(*) FROM run_states")
        assert states[0][0] == 1 + 2 * len(found)
    finally:
        await database.close()


async def _every_task_run(database: Database) -> list[Run]:
    found: list[Run] = []
    token = ""
    while True:
        page, token = await database.reader.list_runs(RunFilter(kinds=[2]), page_size=1000, page_token=token)
        found.extend(page)
        if not token:
            return found


# PostgreSQL goes away


@pytest.fixture
async def admin(postgresql_url: str) -> AsyncIterator[Any]:
    """A connection beside the database's own."""
    connection: Any = await asyncpg.connect(postgresql_dsn(postgresql_url))
    yield connection
    await connection.close()


_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def test_connections_that_were_cut_in_idleness_are_replaced_unseen(
    postgresql_url: str, admin: Any, clock: ManualClock
) -> None:
    database = await open_database(postgresql_url, clock=clock)
    try:
        recording = Recording(database)
        await recording.open()
        await recording.post(run_of(flow_run()))
        for _ in range(3):
            await admin.execute(_OTHERS)
            await recording.post(run_of(flow_run()))
            assert await database.reader.count_runs(RunFilter())
        before = database.signals.count
        assert await database.signals.wait(before, timeout=60) > before, "the notices are back"
    finally:
        await database.close()


async def test_cut_in_the_middle_nothing_is_half_written(
    postgresql_url: str, admin: Any, clock: ManualClock
) -> None:
    """Connections are cut again and again under load; whoever was told of a failure tries again."""
    database = await open_database(postgresql_url, clock=clock)
    recordings = [Recording(database) for _ in range(4)]
    for recording in recordings:
        await recording.open()

    async def post(recording: Recording, *entries: RecordEntry) -> None:
        """Record, until it is acknowledged."""
        while True:
            try:
                outcome = await database.writer.record(recording.id, recording.next_seq, entries)
                break
            except DatabaseUnavailable:
                await asyncio.sleep(0.01)
        recording.next_seq += len(entries)
        assert (outcome.durable_seq, list(outcome.results)) == (recording.next_seq - 1, [])

    async def work(recording: Recording) -> None:
        flow = flow_run()
        await post(recording, run_of(flow))
        for place in range(30):
            task = task_run(flow, f"step-{place}")
            await post(recording, run_of(task), record(task, state("RUNNING")))

    async def cut() -> None:
        for _ in range(12):
            await asyncio.sleep(0.03)
            await admin.execute(_OTHERS)

    try:
        await asyncio.gather(cut(), *(work(recording) for recording in recordings))
        rows = await admin.fetch("SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM run_states)")
        assert tuple(rows[0]) == (124, 120)
        assert await admin.fetchval("SELECT sum(durable_seq) FROM recorders") == 4 * 61
    finally:
        await database.close()


async def test_a_database_that_is_away_says_so_and_comes_back(
    postgres_cluster: Any, postgresql_url: str, admin: Any, clock: ManualClock
) -> None:
    database = await open_database(postgresql_url, clock=clock)
    name = postgresql_url.rsplit("/", 1)[1]
    try:
        recording = Recording(database)
        await recording.open()
        postgres_cluster.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.execute(_OTHERS)
        for call in (
            recording.post(run_of(flow_run())),
            database.reader.count_runs(RunFilter()),
            database.ping(),
        ):
            with pytest.raises(DatabaseUnavailable):
                await call
        postgres_cluster.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        recording.next_seq = 1
        assert (await recording.post(run_of(flow_run()))).durable_seq == 1
        await database.ping()
    finally:
        await database.close()


# Disks that fill up


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-small-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        shutil.rmtree(folder)
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


async def test_a_full_disk_refuses_clearly_and_goes_on_once_there_is_room(
    small_disk: Path, clock: ManualClock
) -> None:
    url = f"sqlite+aiosqlite:///{small_disk}/headrace.db"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 2_000_000)
    await migrations.upgrade(url)
    database = await open_database(url, clock=clock)
    try:
        recording = Recording(database)
        await recording.open()
        durable = 0
        with pytest.raises(StorageFull):
            while True:
                run = flow_run()
                run.parameters.encoding, run.parameters.inline = "json", b"1" * 60_000
                durable = (await recording.post(run_of(run))).durable_seq
        recording.next_seq = durable + 1
        assert len((await database.reader.list_runs(RunFilter(), page_size=1000))[0]) == durable
        with pytest.raises(StorageFull):
            big = flow_run()
            big.parameters.encoding, big.parameters.inline = "json", b"1" * 60_000
            await database.writer.record(recording.id, recording.next_seq, [run_of(big)])
        ballast.unlink()
        assert (await recording.post(run_of(flow_run()))).durable_seq == durable + 1
    finally:
        await database.close()


# SQLite beside others


async def test_foreign_readers_and_writers_of_the_file_are_waited_for(
    sqlite_url: str, clock: ManualClock
) -> None:
    database = await open_database(sqlite_url, clock=clock)
    foreign = sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None, check_same_thread=False)
    try:
        recording = Recording(database)
        await recording.open()
        foreign.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(recording.post(run_of(flow_run())))
        assert await database.reader.count_runs(RunFilter()) == []
        foreign.execute("COMMIT")
        assert (await writing).durable_seq == 1
        foreign.execute("BEGIN")
        foreign.execute("SELECT * FROM runs").fetchone()
        for _ in range(20):
            await recording.post(run_of(flow_run()))
        foreign.execute("COMMIT")
    finally:
        foreign.close()
        await database.close()


async def test_closing_commits_what_was_asked_for(database_url: str, clock: ManualClock) -> None:
    database = await open_database(database_url, clock=clock)
    recording = Recording(database)
    await recording.open()
    posts = [asyncio.create_task(recording.post(run_of(flow_run()))) for _ in range(50)]
    await asyncio.sleep(0)
    await database.close()
    await database.close()
    assert [(await post).durable_seq for post in posts] == list(range(1, 51))
    with pytest.raises(DatabaseUnavailable):
        await recording.post(run_of(flow_run()))


async def test_whoever_stops_waiting_disturbs_nobody(database: Database, recording: Recording) -> None:
    gone = asyncio.create_task(recording.post(run_of(flow_run())))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await recording.post(run_of(flow_run()))).durable_seq == 2
    assert gone.cancelled() or (await gone).durable_seq == 1
