"""Following what changes: nothing is missed, whoever commits when."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from headrace.core.errors import ResumeTokenExpired, ResumeTokenInvalid
from headrace_services.storage.database import Database, open_database
from headrace_services.storage.urls import postgresql_dsn
from tests.storage.build import SECOND, START, ManualClock, Recording, flow_run, record, run_of, state


async def test_changes_since_a_token(database: Database, recording: Recording) -> None:
    first, second = flow_run(), flow_run()
    await recording.post(run_of(first))
    token = await database.reader.latest_token()
    nothing = await database.reader.changes_since(token)
    assert (nothing.run_ids, nothing.deleted) == ([], [])
    await recording.post(run_of(second), record(second, state("RUNNING")))
    await recording.post(record(first, state("RUNNING")))
    await recording.post(record(second, state("COMPLETED", START + SECOND)))
    changes = await database.reader.changes_since(nothing.token)
    assert list(changes.run_ids) == [first.id, second.id]
    assert (await database.reader.changes_since(changes.token)).run_ids == []
    await database.writer.delete_run(second.id)
    gone = await database.reader.changes_since(changes.token)
    assert (gone.run_ids, gone.deleted) == ([], [second.id])
    whole = await database.reader.changes_since(token)
    assert (list(whole.run_ids), list(whole.deleted)) == ([first.id], [second.id])


async def test_changes_come_in_portions(database: Database, recording: Recording) -> None:
    token = await database.reader.latest_token()
    runs = [flow_run() for _ in range(5)]
    for run in runs:
        await recording.post(run_of(run))
    found: list[str] = []
    while changes := (await database.reader.changes_since(token, limit=2)):
        if not changes.run_ids:
            break
        assert len(changes.run_ids) == min(2, 5 - len(found))
        found.extend(changes.run_ids)
        token = changes.token
    assert found == [run.id for run in runs]


async def test_old_changes_are_trimmed_and_old_tokens_expire(
    database: Database, recording: Recording, clock: ManualClock
) -> None:
    old = await database.reader.latest_token()
    await recording.post(run_of(flow_run()))
    clock.advance(3600 + 120)
    kept = await database.reader.latest_token()
    await recording.post(run_of(flow_run()))
    rows = await database.reader._backend.fetch("SELECT count(*) FROM outbox")
    assert rows[0][0] == 1
    with pytest.raises(ResumeTokenExpired):
        await database.reader.changes_since(old)
    assert len((await database.reader.changes_since(kept)).run_ids) == 1


async def test_what_is_kept_for_a_while_goes_after_it(
    database: Database, recording: Recording, clock: ManualClock
) -> None:
    flow, _ = await database.writer.create_run(flow_run())
    await database.writer.update_run(flow, ["name"], "request")
    running = flow_run()
    await recording.run_through(running, ["RUNNING"])
    await database.writer.delete_run(running.id, force=True)
    await database.writer.seal_recorder(recording.id)
    counts = "SELECT (SELECT count(*) FROM requests), (SELECT count(*) FROM deleted_runs), " + (
        "(SELECT count(*) FROM recorders)"
    )
    live = Recording(database)
    found: list[tuple[int, ...]] = []
    for days in (0, 2, 13):
        clock.advance(days * 24 * 3600)
        await live.open()
        await live.post(run_of(flow_run()))
        found.append(tuple((await database.reader._backend.fetch(counts))[0]))
    assert found == [(1, 1, 2), (0, 1, 2), (0, 0, 1)]


async def test_tokens_of_something_else_are_refused(database: Database) -> None:
    for bad in ("", "logs.0-1", "runs.", "runs.1-x", "runs.1", "runs.²-1", "runs.1-" + "9" * 25):
        with pytest.raises(ResumeTokenInvalid):
            await database.reader.changes_since(bad)


async def test_commits_bump_the_signals(database: Database, recording: Recording) -> None:
    before = database.signals.count
    waiting = asyncio.create_task(database.signals.wait(before, timeout=60))
    await recording.post(run_of(flow_run()))
    assert await waiting == before + 1
    assert await database.signals.wait(before + 1, timeout=0.01) == before + 1


async def test_another_replica_is_told(replicas: list[Database]) -> None:
    one, other = replicas
    recording = Recording(one)
    await recording.open()
    before = other.signals.count
    await recording.post(run_of(flow_run()))
    assert await other.signals.wait(before, timeout=60) > before


async def test_a_late_commit_is_missed_by_numbers_alone_and_not_by_us(
    postgresql_url: str, clock: ManualClock
) -> None:
    """A transaction that took its number early and commits late: the naive reader has gone past it."""
    database = await open_database(postgresql_url, clock=clock)
    slow: Any = await asyncpg.connect(postgresql_dsn(postgresql_url))
    try:
        recording = Recording(database)
        await recording.open()
        token = await database.reader.latest_token()
        late = flow_run()
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(
            "INSERT INTO outbox (kind, keys, record_time) VALUES (1, $1, 0)",
            bytes.fromhex(late.id.replace("-", "")),
        )
        quick = flow_run()
        await recording.post(run_of(quick))
        naive_last = await slow.fetchval("SELECT max(seq) FROM outbox")
        ours = await database.reader.changes_since(token)
        assert ours.run_ids == []
        await transaction.commit()
        missed = await slow.fetchval("SELECT count(*) FROM outbox WHERE seq > $1", naive_last)
        assert missed == 0, "the naive reader would have found the late row after all"
        after = await database.reader.changes_since(ours.token)
        assert sorted(after.run_ids) == sorted([late.id, quick.id])
    finally:
        await slow.close()
        await database.close()


async def test_no_change_of_many_writers_is_missed(replicas: list[Database]) -> None:
    """Two replicas and two transactions of unequal length write while a reader follows."""
    recordings = [Recording(database) for database in replicas for _ in range(2)]
    for recording in recordings:
        await recording.open()
    token = await replicas[0].reader.latest_token()
    written: set[str] = set()
    seen: set[str] = set()
    done = asyncio.Event()

    async def write(recording: Recording) -> None:
        for _ in range(25):
            run = flow_run()
            await recording.post(run_of(run), record(run, state("RUNNING")))
            written.add(run.id)

    async def follow() -> None:
        nonlocal token
        while not (done.is_set() and seen >= written):
            changes = await replicas[1].reader.changes_since(token, limit=3)
            seen.update(changes.run_ids)
            if changes.token == token:
                await replicas[1].signals.wait(replicas[1].signals.count, timeout=0.05)
            token = changes.token

    following = asyncio.create_task(follow())
    await asyncio.gather(*(write(recording) for recording in recordings))
    done.set()
    await asyncio.wait_for(following, 60)
    assert seen == written
    assert len(written) == 100
