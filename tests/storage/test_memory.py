"""What a server remembers of its last commits saves it the load, and never decides on what has changed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from headrace.core.errors import ObjectNotFound, StaleAttempt
from headrace.v1.record_service_pb2 import RecordEntry
from headrace.v1.run_pb2 import RunFilter
from headrace_services.storage import memory, writer
from headrace_services.storage.database import Database
from headrace_services.storage.urls import dialect_of, postgresql_dsn, sqlite_path
from tests.storage.build import (
    SECOND,
    START,
    Recording,
    flow_run,
    record,
    run_of,
    state,
    task_run,
)

Elsewhere = Callable[[str], Awaitable[None]]


@pytest.fixture
def elsewhere(database_url: str) -> Elsewhere:
    """Runs a statement in the database, past the server that has it open."""

    async def run(sql: str) -> None:
        if dialect_of(database_url) == "sqlite":
            with sqlite3.connect(sqlite_path(database_url)) as connection:
                connection.execute(sql)
            connection.close()
            return
        connection: Any = await asyncpg.connect(postgresql_dsn(database_url))
        await connection.execute(sql)
        await connection.close()

    return run


@pytest.fixture
def operations(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what the writer asks of its database, as it asks."""
    store: Any = database._backend.store
    asked: list[str] = []

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            asked.append(name)
            return original(*arguments)

        return call

    for name in [name for name in dir(store) if name.startswith(("load_", "lock_", "flush"))]:
        monkeypatch.setattr(store, name, watched(name, getattr(store, name)))
    return asked


async def test_a_run_that_goes_on_is_written_without_being_loaded(
    recording: Recording, operations: list[str]
) -> None:
    flow = flow_run()
    task = task_run(flow)
    await recording.post(run_of(flow), record(flow, state("RUNNING")), run_of(task))
    operations.clear()
    await recording.post(record(task, state("RUNNING")))
    await recording.post(record(task, state("COMPLETED", START + SECOND)))
    outcome = await recording.post(record(flow, state("COMPLETED", START + SECOND), want_verdict=True))
    assert outcome.results[0][1].WhichOneof("verdict") == "accepted"
    assert operations == ["flush"] * 3


async def test_the_flow_of_the_last_run_is_known_for_the_next(
    recording: Recording, operations: list[str]
) -> None:
    await recording.post(run_of(flow_run("nightly")))
    operations.clear()
    await recording.post(run_of(flow_run("nightly")))
    assert operations == ["load_runs", "flush"]


async def test_a_run_that_has_ended_is_not_kept(recording: Recording, operations: list[str]) -> None:
    flow = flow_run()
    await recording.run_through(flow, ["RUNNING", "COMPLETED"])
    operations.clear()
    await recording.post(record(flow, state("COMPLETED", START + SECOND)))
    assert operations == ["load_runs", "flush"]


async def test_only_so_many_runs_are_kept(
    recording: Recording, operations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_RUNS", 2)
    first, second, third = (flow_run() for _ in range(3))
    for run in (first, second, third):
        await recording.post(run_of(run))
    operations.clear()
    await recording.post(record(second, state("RUNNING")), record(third, state("RUNNING")))
    assert operations == ["flush"]
    operations.clear()
    await recording.post(record(first, state("RUNNING")))
    assert operations == ["load_runs", "flush"]


async def test_an_owner_that_has_changed_elsewhere_is_seen(
    database: Database, recording: Recording, elsewhere: Elsewhere
) -> None:
    """The owner is not written by what is recorded below it, so its fence is confirmed."""
    flow = flow_run()
    task = task_run(flow)
    await recording.post(run_of(flow), run_of(task), record(task, state("RUNNING")))
    await elsewhere("UPDATE runs SET fence = 2, attempt = 2, version = version + 1 WHERE kind = 1")
    outcome = await recording.post(
        record(task, state("COMPLETED", START + SECOND)), run_of(task_run(flow, "late"))
    )
    assert [(seq, type(error)) for seq, error in outcome.results] == [(4, StaleAttempt), (5, StaleAttempt)]
    assert outcome.durable_seq == 5
    assert (await database.reader.get_run(task.id)).state.name == "Running"


async def test_a_refusal_is_not_based_on_what_was_true_before(
    database: Database, recording: Recording, elsewhere: Elsewhere
) -> None:
    flow = flow_run()
    await recording.post(run_of(flow), record(flow, state("RUNNING")))
    await elsewhere("UPDATE runs SET fence = 2, attempt = 2, version = version + 1")
    outcome = await recording.post(record(flow, state("COMPLETED", START + SECOND), fence=2))
    assert not outcome.results
    assert (await database.reader.get_run(flow.id)).state.name == "Completed"


async def test_a_verdict_is_not_based_on_what_was_true_before(
    database: Database, recording: Recording, elsewhere: Elsewhere
) -> None:
    """A proposal that changes nothing writes nothing, and is confirmed all the same."""
    run, _ = await database.writer.create_run(flow_run())
    pending = state("PENDING", START + SECOND)
    await database.writer.propose_state(run.id, None, pending)
    await elsewhere("DELETE FROM runs")
    with pytest.raises(ObjectNotFound):
        await database.writer.propose_state(run.id, None, state("PENDING", START + 2 * SECOND))


async def test_a_recorder_that_is_ahead_elsewhere_writes_nothing_here(
    database: Database, recording: Recording, elsewhere: Elsewhere
) -> None:
    """A write that is found to be out of date leaves nothing behind, not even its other rows."""
    flow = flow_run()
    await recording.post(run_of(flow))
    await elsewhere("UPDATE recorders SET durable_seq = 3")
    outcome = await recording.post(run_of(flow_run()), run_of(flow_run()))
    assert (outcome.durable_seq, list(outcome.results)) == (3, [])
    runs, _ = await database.reader.list_runs(RunFilter())
    assert [run.id for run in runs] == [flow.id]


async def test_a_state_comes_twice_under_two_numbers(database: Database, recording: Recording) -> None:
    """The history that is remembered answers as the one in the database does."""
    flow = flow_run()
    running = record(flow, state("RUNNING"), want_verdict=True)
    await recording.post(run_of(flow), record(flow, state("PENDING")), running)
    await recording.post(record(flow, state("PAUSED", START + SECOND), want_verdict=True))
    again = await recording.post(running)
    assert again.results[0][1].accepted.state.id == running.state.state.id
    states, _ = await database.reader.list_states(flow.id)
    assert [s.name for s in states] == ["Pending", "Running", "Paused"]


async def test_tags_change_while_the_state_does_not(database: Database, recording: Recording) -> None:
    """Rows of tags that stay are left alone, so that the others can go in the same statement."""
    flow = flow_run(tags=["kept", "gone"])
    await recording.post(run_of(flow))
    await recording.post(run_of(flow_run(id=flow.id, tags=["kept", "new"])))
    rows = await database._backend.fetch("SELECT tag FROM run_tags ORDER BY tag")
    assert [row[0] for row in rows] == ["kept", "new"]


# With a server beside this one


async def test_a_flow_that_was_deleted_at_the_other_replica_is_made_again(replicas: list[Database]) -> None:
    one, other = replicas
    recording = Recording(one)
    await recording.open()
    await recording.run_through(flow_run("nightly"), ["RUNNING", "COMPLETED"])
    await other.writer.delete_flow(name="nightly")
    assert not (await recording.post(run_of(flow_run("nightly")))).results
    flow, counts = await other.reader.get_flow(name="nightly")
    assert (flow.name, sum(count.count for count in counts)) == ("nightly", 1)


async def test_a_run_that_was_deleted_at_the_other_replica_is_not_made_again(
    replicas: list[Database],
) -> None:
    one, other = replicas
    recording = Recording(one)
    await recording.open()
    flow = flow_run()
    await recording.run_through(flow, ["RUNNING"])
    assert await other.writer.delete_run(flow.id, force=True) == 1
    entries: list[RecordEntry] = [run_of(flow), record(flow, state("COMPLETED", START + SECOND))]
    outcome = await recording.post(*entries)
    assert [type(error) for _, error in outcome.results] == [StaleAttempt, ObjectNotFound]
    assert (await other.reader.list_runs(RunFilter()))[0] == []


async def test_where_many_ask_the_next_ones_are_gathered(
    database: Database, operations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_PACE_SECONDS", 0.2)
    create = database.writer.create_run
    await asyncio.gather(*(create(flow_run()) for _ in range(5)))
    assert operations.count("flush") == 1
    later = [asyncio.create_task(create(flow_run()))]
    for _ in range(3):
        await asyncio.sleep(0.005)  # each would be a commit by now
        later.append(asyncio.create_task(create(flow_run())))
    await asyncio.gather(*later)
    assert operations.count("flush") == 2


async def test_who_asks_alone_is_not_held_back(
    database: Database, operations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_PACE_SECONDS", 3600.0)
    for _ in range(3):
        await database.writer.create_run(flow_run())
        await asyncio.gather(*(database.writer.create_run(flow_run()) for _ in range(2)))
    assert operations.count("flush") == 6
