"""Fires while an earlier run goes on, and several servers on one database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from headrace.core.ids import new_id
from headrace.v1.run_pb2 import Run
from headrace.v1.schedule_pb2 import (
    OVERLAP_MODE_ALLOW,
    OVERLAP_MODE_CANCEL_OLD,
    OVERLAP_MODE_QUEUE,
    OVERLAP_MODE_SKIP,
    Overlap,
)
from headrace_services.storage import scheduled_runs
from headrace_services.storage.database import Database
from headrace_services.storage.dialects import POSTGRESQL, SQLITE
from headrace_services.storage.dispatch_rows import QueuedRunRow
from headrace_services.storage.entity_queries import find_rows
from headrace_services.storage.schedule_firing import FireSchedules, ReleaseOverlaps
from tests.storage.build import SECOND, ManualClock, Recording, record, state
from tests.storage.schedule_build import a_deployment, a_schedule, runs_of, tick, times_of


async def move(database: Database, run_id: str, clock: ManualClock, *types: str) -> None:
    """The run goes through the states."""
    for type in types:
        clock.time += 1
        verdict = await database.writer.propose_state(run_id, None, state(type, clock.now()))
        assert verdict.WhichOneof("verdict") == "accepted", verdict


async def states_of(database: Database) -> list[str]:
    return [run.state.name for run in await runs_of(database)]


def overlap(mode: int, **fields: Any) -> Overlap:
    return Overlap(mode=mode, **fields)  # type: ignore[arg-type]


async def waiting_for_workers(database: Database) -> list[str]:
    """The runs that a worker could be handed."""
    dialect = SQLITE if database.dialect == "sqlite" else POSTGRESQL
    return [row.run_id for row in await find_rows(database._backend, dialect, QueuedRunRow, ())]


async def next_minute(database: Database, clock: ManualClock) -> None:
    clock.time -= clock.time % (60 * SECOND) - 60 * SECOND
    await tick(database)


STATES: dict[str, Sequence[str]] = {
    "waiting": (),
    "pending": ("PENDING",),
    "running": ("PENDING", "RUNNING"),
    "paused": ("PENDING", "RUNNING", "PAUSED"),
}


@pytest.mark.parametrize("earlier", STATES)
@pytest.mark.parametrize(
    "mode, expected",
    [
        (OVERLAP_MODE_ALLOW, "Scheduled"),
        (OVERLAP_MODE_SKIP, None),
        (OVERLAP_MODE_QUEUE, "Queued"),
        (OVERLAP_MODE_CANCEL_OLD, "Queued"),
    ],
)
async def test_a_fire_while_an_earlier_run_goes_on(
    database: Database, clock: ManualClock, earlier: str, mode: int, expected: str | None
) -> None:
    deployment = await a_deployment(database)
    made = await a_schedule(database, deployment, overlap=overlap(mode))
    await next_minute(database, clock)
    first = (await runs_of(database))[0]
    await move(database, first.id, clock, *STATES[earlier])
    # Not through tick, which would also release what waits for a run that was cancelled at once.
    clock.time -= clock.time % (60 * SECOND) - 60 * SECOND
    await database.writer.do(FireSchedules())
    later = [run for run in await runs_of(database) if run.id != first.id]
    assert [run.state.name for run in later] == ([] if expected is None else [expected])
    after = await database.reader.schedules.get(made.id)
    assert after.skipped_fires == (1 if expected is None else 0)
    if expected is None:
        assert first.id in after.last_skip_reason
    if mode == OVERLAP_MODE_CANCEL_OLD:
        old = await database.reader.get_run(first.id)
        assert old.state.name in ("Cancelling", "Cancelled")


async def test_who_waits_starts_when_the_former_has_ended(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    await a_schedule(database, deployment, overlap=overlap(OVERLAP_MODE_QUEUE, max_queued=2))
    await next_minute(database, clock)
    first = (await runs_of(database))[0]
    await move(database, first.id, clock, "PENDING", "RUNNING")
    for _ in range(3):
        await next_minute(database, clock)
    assert await states_of(database) == ["Running", "Queued", "Queued"]
    assert await database.reader.schedules.has_overlap_waits()
    await move(database, first.id, clock, "COMPLETED")
    assert await waiting_for_workers(database) == []
    assert await database.writer.do(ReleaseOverlaps()) == 1
    assert await database.writer.do(ReleaseOverlaps()) == 0
    assert await states_of(database) == ["Completed", "Scheduled", "Queued"]
    assert await waiting_for_workers(database) == [(await runs_of(database))[1].id]
    second = (await runs_of(database))[1]
    assert second.next_scheduled_start_time == second.expected_start_time
    await move(database, second.id, clock, "PENDING", "RUNNING", "COMPLETED")
    assert await database.writer.do(ReleaseOverlaps()) == 1
    assert (await states_of(database))[2] == "Scheduled"
    assert not await database.reader.schedules.has_overlap_waits()


async def test_who_takes_the_place_of_an_older_one_waits_for_its_end(
    database: Database, clock: ManualClock, recording: Recording
) -> None:
    deployment = await a_deployment(database)
    await a_schedule(database, deployment, overlap=overlap(OVERLAP_MODE_CANCEL_OLD))
    await next_minute(database, clock)
    first = (await runs_of(database))[0]
    await move(database, first.id, clock, "PENDING")
    await recording.post(
        record(first, state("RUNNING", clock.now()), want_verdict=True)
    )  # a process holds it
    await next_minute(database, clock)
    assert await states_of(database) == ["Cancelling", "Queued"]
    await next_minute(database, clock)  # the one that waits is cancelled at once, as nobody holds it
    assert await states_of(database) == ["Cancelling", "Cancelled", "Queued"]
    await move(database, first.id, clock, "CANCELLED")
    await tick(database)
    assert await states_of(database) == ["Cancelled", "Cancelled", "Scheduled"]


async def test_a_run_that_waits_can_be_cancelled(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    await a_schedule(database, deployment, overlap=overlap(OVERLAP_MODE_QUEUE))
    for _ in range(2):
        await next_minute(database, clock)
    waiting = (await runs_of(database))[1]
    await move(database, waiting.id, clock, "CANCELLED")
    await tick(database)
    assert not await database.reader.schedules.has_overlap_waits()


@pytest.mark.parametrize(
    "fields, expected",
    [({}, 1), ({"include_manual": True}, 0), ({"per_schedule": True}, 1)],
)
async def test_runs_made_by_hand_count_when_asked_for(
    database: Database, clock: ManualClock, fields: dict[str, Any], expected: int
) -> None:
    deployment = await a_deployment(database)
    await a_schedule(database, deployment, overlap=overlap(OVERLAP_MODE_SKIP, **fields))
    by_hand = Run(id=new_id(), kind=1, name="by-hand", flow_name="etl", deployment_id=deployment.id)
    await database.writer.create_run(by_hand)
    clock.advance(60)
    assert await tick(database) == expected


@pytest.mark.parametrize("per_schedule, expected", [(False, 1), (True, 2)])
async def test_runs_of_other_schedules_count_unless_told_otherwise(
    database: Database, clock: ManualClock, per_schedule: bool, expected: int
) -> None:
    deployment = await a_deployment(database)
    for slug in ("a", "b"):
        rule = overlap(OVERLAP_MODE_SKIP, per_schedule=per_schedule)
        await a_schedule(database, deployment, slug=slug, overlap=rule)
    clock.advance(60)
    assert await tick(database) == expected


async def test_a_deployment_says_it_for_its_schedules(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database, overlap=overlap(OVERLAP_MODE_SKIP))
    await a_schedule(database, deployment, slug="as-the-deployment")
    for _ in range(2):
        await next_minute(database, clock)
    assert await times_of(database) == ["08:01"]
    await a_schedule(database, deployment, slug="its-own", overlap=overlap(OVERLAP_MODE_ALLOW))
    await next_minute(database, clock)
    assert await times_of(database) == ["08:01", "08:03"]


async def test_no_more_than_so_many_wait_to_start(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    made = await a_schedule(database, deployment, max_scheduled_runs=2)
    for _ in range(4):
        await next_minute(database, clock)
    assert await times_of(database) == ["08:01", "08:02"]
    assert (await database.reader.schedules.get(made.id)).skipped_fires == 2
    await move(database, (await runs_of(database))[0].id, clock, "PENDING")
    await next_minute(database, clock)
    assert await times_of(database) == ["08:01", "08:02", "08:05"]


async def test_the_runs_of_many_deployments_hide_none_of_another(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduled_runs, "ACTIVE_MAX", 4)
    for number in (1, 2, 3):
        deployment = await a_deployment(database, name=f"d{number}")
        for _ in range(2):
            await a_schedule(database, deployment, f"{number} 8 * * *")
        await a_schedule(database, deployment, "4 8 * * *", overlap=overlap(OVERLAP_MODE_SKIP))
    for _ in range(4):
        await next_minute(database, clock)
    # Each deployment had two under way at 08:04.
    assert await times_of(database) == [f"08:0{number}" for number in (1, 1, 2, 2, 3, 3)]


# Several servers


async def test_two_servers_make_each_run_once(replicas: list[Database], clock: ManualClock) -> None:
    first, second = replicas
    deployment = await a_deployment(first)
    for number in range(30):
        await a_schedule(first, deployment, f"*/{number % 5 + 1} * * * *", slug=f"s{number}")
    made = 0
    for _ in range(10):
        clock.advance(60)
        fired = await asyncio.gather(*(server.writer.do(FireSchedules()) for server in (first, second) * 2))
        made += sum(each.runs for each in fired)
        while (rest := await first.writer.do(FireSchedules())).schedules:  # what a claim passed over
            made += rest.runs
    runs = await runs_of(first)
    assert len({(run.schedule_id, run.expected_start_time.ToMicroseconds()) for run in runs}) == len(runs)
    assert made == len(runs) == sum(10 // (number % 5 + 1) for number in range(30))


async def test_two_servers_release_each_run_once(replicas: list[Database], clock: ManualClock) -> None:
    first, second = replicas
    deployment = await a_deployment(first)
    await a_schedule(first, deployment, overlap=overlap(OVERLAP_MODE_QUEUE))
    for _ in range(2):
        await next_minute(first, clock)
    await move(first, (await runs_of(first))[0].id, clock, "CANCELLED")
    released = await asyncio.gather(*(server.writer.do(ReleaseOverlaps()) for server in (first, second)))
    assert sorted(released) == [0, 1]
    history, _ = await first.reader.list_states((await runs_of(first))[1].id)
    assert [entry.name for entry in history] == ["Queued", "Scheduled"]
