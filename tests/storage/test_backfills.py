"""Backfills: each instant of a range has one run, whatever happens meanwhile, on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from headrace.core.errors import (
    DatabaseUnavailable,
    FieldsInvalid,
    ObjectNotFound,
    PageTokenInvalid,
    PreconditionFailed,
    RequestIdReused,
)
from headrace.core.ids import new_id
from headrace.v1.backfill_pb2 import (
    BACKFILL_ACTION_LEAVE,
    BACKFILL_ACTION_MAKE,
    BACKFILL_ACTION_RERUN,
    BACKFILL_ORDER_NEWEST,
    BACKFILL_ORDER_OLDEST,
    BACKFILL_RERUN_ALL,
    BACKFILL_RERUN_FAILED,
    BACKFILL_RERUN_UNSPECIFIED,
    BACKFILL_STATE_CANCELLED,
    BACKFILL_STATE_CANCELLING,
    BACKFILL_STATE_COMPLETED,
    BACKFILL_STATE_FAILED,
    BACKFILL_STATE_PAUSED,
    BACKFILL_STATE_RUNNING,
    Backfill,
    BackfillRerun,
)
from headrace.v1.run_pb2 import Run
from headrace.v1.schedule_pb2 import OVERLAP_MODE_SKIP, Overlap, Schedule
from headrace_services.domain.backfills import count_fires
from headrace_services.loops.backfiller import Backfiller
from headrace_services.storage import backfilling
from headrace_services.storage.backfill_commands import (
    BackfillMade,
    CreateBackfill,
    SetBackfillState,
    range_of,
)
from headrace_services.storage.database import Database, open_database
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.failpoints import VARIABLE
from headrace_services.storage.schedule_changes import CreateSchedule, DeleteSchedule
from headrace_services.storage.schedule_rows import plan_of
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work
from tests.storage.build import SECOND, START, ManualClock, state
from tests.storage.schedule_build import Do, a_deployment, a_schedule, runs_of, tick, times_of

# START is 2027-01-15 08:00:00 UTC.
HOUR = 3600 * SECOND


def a_backfill(schedule: Schedule, minutes: int = 5, **fields: Any) -> Backfill:
    """Of so many minutes from 07:00 on."""
    begin = fields.pop("begin", START - HOUR)
    asked = Backfill(id=fields.pop("id", new_id()), schedule_id=schedule.id, **fields)
    getattr(asked, "from").FromMicroseconds(begin)
    asked.until.FromMicroseconds(begin + minutes * 60 * SECOND)
    return asked


async def create(database: Database, asked: Backfill, **how: Any) -> BackfillMade:
    spec = (await database.reader.schedules.row(asked.schedule_id)).spec
    total = count_fires(plan_of(spec).timing, range_of(asked))
    return await database.writer.do(CreateBackfill(asked, spec, total, how.pop("actor", ""), **how))


async def go_on(database: Database, clock: ManualClock) -> None:
    """All that servers would do until something happens."""
    backfiller = Backfiller(database, clock)
    while await backfiller.step():
        pass


async def end(database: Database, clock: ManualClock, run_id: str, how: str = "COMPLETED") -> None:
    for type in ("PENDING", "RUNNING", how):
        clock.time += 1
        verdict = await database.writer.propose_state(run_id, None, state(type, clock.now()))
        assert verdict.WhichOneof("verdict") == "accepted", verdict


async def open_runs(database: Database, **which: Any) -> list[Run]:
    ends = ("Completed", "Failed", "Crashed", "Cancelled")
    return [run for run in await runs_of(database, **which) if run.state.name not in ends]


async def end_all(database: Database, clock: ManualClock, backfill_id: str, **which: Any) -> Backfill:
    """Each run ends, and the next are made, until the backfill has ended."""
    while (found := await database.reader.backfills.get(backfill_id)).state == BACKFILL_STATE_RUNNING:
        for run in await open_runs(database, **which):
            await end(database, clock, run.id)
        await go_on(database, clock)
    return found


async def a_minutely_schedule(database: Database, **fields: Any) -> Schedule:
    return await a_schedule(database, await a_deployment(database), **fields)


def counts_of(backfill: Backfill) -> dict[str, int]:
    return {field.name: value for field, value in backfill.counts.ListFields()}


async def test_a_few_at_a_time_until_all_are_done(database: Database, clock: ManualClock) -> None:
    schedule = await a_minutely_schedule(database, slug="minutely")
    made = await create(database, a_backfill(schedule, limit=2), actor="alice")
    assert made.foreseen == [] and made.backfill.state == BACKFILL_STATE_RUNNING
    assert made.backfill.created_by == "alice" and made.backfill.schedule_slug == "minutely"
    await go_on(database, clock)
    assert await times_of(database) == ["07:00", "07:01"]
    first, second = await runs_of(database)
    assert first.priority == 0 and first.created_by == "alice" and first.backfill_id == made.backfill.id
    await end(database, clock, first.id)
    await go_on(database, clock)
    assert await times_of(database) == ["07:00", "07:01", "07:02"]
    await end(database, clock, second.id, "FAILED")
    found = await end_all(database, clock, made.backfill.id)
    assert found.state == BACKFILL_STATE_COMPLETED and found.HasField("end_time")
    assert counts_of(found) == {"total": 5, "made": 5, "completed": 4, "failed": 1}
    assert await times_of(database) == ["07:00", "07:01", "07:02", "07:03", "07:04"]
    assert await database.reader.backfills.steps() == {} and not await database.reader.backfills.has_live()


async def test_the_newest_first(database: Database, clock: ManualClock) -> None:
    schedule = await a_minutely_schedule(database)
    made = await create(database, a_backfill(schedule, limit=1, order=BACKFILL_ORDER_NEWEST))
    seen: list[str] = []
    while left := await open_runs(database):
        seen += [f"{run.expected_start_time.ToDatetime():%H:%M}" for run in left]
        await end(database, clock, left[0].id)
        await go_on(database, clock)
    assert seen == ["07:04", "07:03", "07:02", "07:01", "07:00"]
    assert (await database.reader.backfills.get(made.backfill.id)).state == BACKFILL_STATE_COMPLETED


CHANGES = [
    # The hour from 02:00 is skipped on 8 March; the fixed time is moved, once.
    ("30 2 * * *", "2026-03-07", "2026-03-10", ["07 07:30", "08 07:00", "09 06:30"]),
    ("0 * * * *", "2026-03-08T06:00", "2026-03-08T09:00", ["08 06:00", "08 07:00", "08 08:00"]),
    # The hour from 01:00 comes twice on 1 November.
    ("30 1 * * *", "2026-10-31", "2026-11-03", ["31 05:30", "01 05:30", "02 06:30"]),
    ("0 * * * *", "2026-11-01T04:00", "2026-11-01T07:00", ["01 04:00", "01 05:00", "01 06:00"]),
]


async def test_where_clocks_change_it_has_exactly_the_instants_of_the_schedule(database: Database) -> None:
    for order in (BACKFILL_ORDER_OLDEST, BACKFILL_ORDER_NEWEST):
        for place, (cron, begin, until, expected) in enumerate(CHANGES):
            flow = f"flow-{order}-{place}"
            timing = Schedule(deployment_id=(await a_deployment(database, flow)).id)
            timing.cron.cron, timing.cron.timezone = cron, "America/New_York"
            schedule = await database.writer.do(CreateSchedule(timing, "", ""))
            asked = a_backfill(schedule, order=order)
            getattr(asked, "from").FromDatetime(datetime.fromisoformat(begin).replace(tzinfo=UTC))
            asked.until.FromDatetime(datetime.fromisoformat(until).replace(tzinfo=UTC))
            made = (await create(database, asked)).backfill
            assert made.counts.total == made.counts.made == len(expected)
            fires = [run.expected_start_time.ToDatetime() for run in await runs_of(database, flow=flow)]
            assert [f"{fire:%d %H:%M}" for fire in fires] == expected


async def test_what_is_due_anyway_has_one_run(database: Database, clock: ManualClock) -> None:
    schedule = await a_minutely_schedule(database)
    clock.advance(60)
    await tick(database)
    planned = await create(database, a_backfill(schedule, begin=START), dry_run=True)
    actions = [run.action for run in planned.foreseen]
    assert actions == [BACKFILL_ACTION_MAKE, BACKFILL_ACTION_LEAVE] + [BACKFILL_ACTION_MAKE] * 3
    assert len(await runs_of(database)) == 1
    with pytest.raises(ObjectNotFound):
        await database.reader.backfills.get(planned.backfill.id)
    made = await create(database, a_backfill(schedule, begin=START))
    assert [run.run_id for run in planned.foreseen] == [run.id for run in await runs_of(database)]
    assert counts_of(made.backfill) == {"total": 5, "made": 4, "existed": 1, "unfinished": 4}
    for _ in range(3):
        clock.advance(60)
        assert await tick(database) == 0  # 08:02 to 08:04 have their runs already
    clock.advance(60)
    assert await tick(database) == 1
    assert await times_of(database) == [f"08:0{minute}" for minute in range(6)]


async def test_a_server_that_dies_again_and_again(
    database_url: str,
    database: Database,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each commit of a step is lost, or made and its answer lost; each time, another server goes on."""
    monkeypatch.setattr(backfilling, "STEP_RUNS", 3)
    schedule = await a_minutely_schedule(database)
    asked = a_backfill(schedule, 40, limit=5, order=BACKFILL_ORDER_NEWEST)
    await create(database, asked)
    deaths = 0
    for side in ["before", "after"] * 5:
        monkeypatch.setenv(VARIABLE, f"backfill.{side}=fail")
        server = await open_database(database_url, clock=clock, read_pool_size=1)
        backfiller = Backfiller(server, clock)
        try:
            while await backfiller.step():
                pass
            for run in (await open_runs(server))[1:]:
                await end(server, clock, run.id)
        except DatabaseUnavailable:
            deaths += 1
        finally:
            await server.close()
        assert (await database.reader.backfills.get(asked.id)).counts.unfinished <= 5
    assert deaths >= 4
    found = await end_all(database, clock, asked.id)
    assert counts_of(found) == {"total": 40, "made": 40, "completed": 40}
    fires = Counter(run.expected_start_time.ToMicroseconds() for run in await runs_of(database))
    assert fires == {START - HOUR + minute * 60 * SECOND: 1 for minute in range(40)}


async def test_several_servers_do_what_one_does(
    replicas: list[Database], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfilling, "STEP_RUNS", 2)
    schedule = await a_minutely_schedule(replicas[0])
    asked = a_backfill(schedule, 12, limit=5, begin=START - 240 * SECOND)
    await create(replicas[0], asked)
    while (await replicas[0].reader.backfills.get(asked.id)).state == BACKFILL_STATE_RUNNING:
        clock.advance(30)
        rounds = [Backfiller(replica, clock).step() for replica in replicas]
        if not any(await asyncio.gather(*rounds, *(tick_quietly(replica) for replica in replicas))):
            for run in await open_runs(replicas[0]):
                if run.next_scheduled_start_time.ToMicroseconds() <= clock.now():
                    await end(replicas[0], clock, run.id)
    found = await replicas[1].reader.backfills.get(asked.id)
    assert found.counts.made + found.counts.existed == 12 == found.counts.completed + found.counts.existed
    fires = Counter(run.expected_start_time.ToMicroseconds() for run in await runs_of(replicas[0]))
    assert set(fires.values()) == {1} and len(fires) >= 12


async def tick_quietly(database: Database) -> bool:
    """Another server may be at it, and a run may be made by a backfill just now."""
    with contextlib.suppress(DatabaseUnavailable):
        await tick(database)
    return False


async def test_pausing_and_going_on(database: Database, clock: ManualClock) -> None:
    schedule = await a_minutely_schedule(database)
    asked = a_backfill(schedule, limit=2)
    await create(database, asked)
    paused = await database.writer.do(SetBackfillState(asked.id, BACKFILL_STATE_PAUSED))
    assert paused.state == BACKFILL_STATE_PAUSED and not paused.HasField("end_time")
    for run in await open_runs(database):
        await end(database, clock, run.id)
    await go_on(database, clock)
    found = await database.reader.backfills.get(asked.id)
    assert counts_of(found) == {"total": 5, "made": 2, "completed": 2}
    again = await database.writer.do(SetBackfillState(asked.id, BACKFILL_STATE_PAUSED))
    assert again.state == BACKFILL_STATE_PAUSED
    await database.writer.do(SetBackfillState(asked.id, BACKFILL_STATE_RUNNING))
    found = await end_all(database, clock, asked.id)
    assert counts_of(found) == {"total": 5, "made": 5, "completed": 5}
    with pytest.raises(PreconditionFailed, match="is COMPLETED and cannot be resumed"):
        await database.writer.do(SetBackfillState(asked.id, BACKFILL_STATE_RUNNING))


async def test_cancelling_ends_what_has_not_started(database: Database, clock: ManualClock) -> None:
    schedule = await a_minutely_schedule(database)
    asked = a_backfill(schedule, limit=3)
    await create(database, asked)
    running = (await runs_of(database))[0]
    for type in ("PENDING", "RUNNING"):
        clock.time += 1
        await database.writer.propose_state(running.id, None, state(type, clock.now()))
    await database.writer.do(SetBackfillState(asked.id, BACKFILL_STATE_CANCELLING))
    await go_on(database, clock)
    assert [run.state.name for run in await runs_of(database)] == ["Running", "Cancelled", "Cancelled"]
    found = await database.reader.backfills.get(asked.id)
    assert found.state == BACKFILL_STATE_CANCELLING and found.counts.unfinished == 1
    with pytest.raises(PreconditionFailed, match="is CANCELLING and cannot be paused"):
        await database.writer.do(SetBackfillState(asked.id, BACKFILL_STATE_PAUSED))
    clock.time += 1
    await database.writer.propose_state(running.id, None, state("COMPLETED", clock.now()))
    await go_on(database, clock)
    found = await database.reader.backfills.get(asked.id)
    assert found.state == BACKFILL_STATE_CANCELLED and found.HasField("end_time")
    assert counts_of(found) == {"total": 5, "made": 3, "completed": 1, "cancelled": 2}


RERUNS: list[tuple[BackfillRerun.ValueType, list[str]]] = [
    (BACKFILL_RERUN_UNSPECIFIED, []),
    (BACKFILL_RERUN_FAILED, ["07:01", "07:02"]),
    (BACKFILL_RERUN_ALL, ["07:00", "07:01", "07:02"]),
]


async def test_what_has_run_before(database: Database, clock: ManualClock) -> None:
    for place, (rerun, again) in enumerate(RERUNS):
        flow = f"flow-{place}"
        schedule = await a_schedule(database, await a_deployment(database, flow))
        await create(database, a_backfill(schedule, 4))
        before = await runs_of(database, flow=flow)
        for run, how in zip(before, ("COMPLETED", "FAILED", "CRASHED"), strict=False):
            await end(database, clock, run.id, how)
        asked = a_backfill(schedule, 5, rerun=rerun, priority=3)
        await create(database, asked)
        runs = await runs_of(database, flow=flow)
        reruns = [run for run in runs if run.state.name == "AwaitingRetry"]
        assert [f"{run.expected_start_time.ToDatetime():%H:%M}" for run in reruns] == again
        assert all(run.attempt == 2 and run.priority == 3 for run in reruns)
        found = await end_all(database, clock, asked.id, flow=flow)
        left = 4 - len(again)  # 07:03 of the first backfill has not ended
        expected = {"total": 5, "made": 1, "rerun": len(again), "existed": left, "completed": 1 + len(again)}
        assert counts_of(found) == {name: value for name, value in expected.items() if value}
        assert len(await runs_of(database, flow=flow)) == 5
        told, _ = await database.reader.backfills.runs(asked.id, 0, "")
        actions = Counter(run.action for run in told)
        assert actions[BACKFILL_ACTION_RERUN] == len(again) and actions[BACKFILL_ACTION_LEAVE] == left


async def test_runs_of_the_past_are_not_in_the_way_of_what_is_due(
    database: Database, clock: ManualClock
) -> None:
    deployment = await a_deployment(database)
    schedule = await a_schedule(database, deployment, overlap=Overlap(mode=OVERLAP_MODE_SKIP))
    await create(database, a_backfill(schedule, 3))
    assert len(await open_runs(database)) == 3
    clock.advance(60)
    assert await tick(database) == 1


async def test_what_the_runs_get(database: Database) -> None:
    template = "{{ parameters.tenant }}"
    deployment = await a_deployment(database, parameters='{"a": 1, "tenant": "x"}', fairness_key=template)
    schedule = await a_schedule(database, deployment, parameters='{"b": 2}')
    parameters = {"b": 3, "tenant": "acme", "when": ["at {{scheduled_time}}", "{{ other }}"]}
    await create(database, a_backfill(schedule, 1, parameters=json.dumps(parameters), priority=4))
    [run] = await runs_of(database, full=True)
    when = ["at 2027-01-15T07:00:00Z", "{{ other }}"]
    expected = {"a": 1, "b": 3, "tenant": "acme", "when": when}
    assert json.loads(run.parameters.inline) == expected
    assert run.priority == 4 and run.fairness_key == "acme" and run.created_by == f"backfill:{schedule.id}"


async def test_a_request_sent_twice_is_one_backfill(database: Database, clock: ManualClock) -> None:
    schedule = await a_minutely_schedule(database)
    asked = a_backfill(schedule)
    await create(database, asked)
    again = (await create(database, asked)).backfill
    assert again == await database.reader.backfills.get(asked.id) and again.counts.made == 5
    assert len(await runs_of(database)) == 5
    with pytest.raises(RequestIdReused):
        await create(database, a_backfill(schedule, 6, id=asked.id))
    with pytest.raises(ObjectNotFound):
        await database.writer.do(CreateBackfill(a_backfill(Schedule(id=new_id())), b"", 5, ""))
    with pytest.raises(ObjectNotFound):
        await database.writer.do(SetBackfillState(new_id(), BACKFILL_STATE_PAUSED))


async def test_a_range_that_is_refused_and_one_that_is_made_at_once(database: Database) -> None:
    schedule = await a_minutely_schedule(database)
    spec = (await database.reader.schedules.row(schedule.id)).spec
    with pytest.raises(FieldsInvalid, match="must come after"):
        await create(database, a_backfill(schedule, 0))
    for total, at_once in ((50_001, False), (1001, True)):
        with pytest.raises(FieldsInvalid, match="take it in parts"):
            asked = a_backfill(schedule, total)
            await database.writer.do(CreateBackfill(asked, spec, total, "", at_once=at_once))
    assert await runs_of(database) == []
    asked = a_backfill(schedule, 150, limit=1000, order=BACKFILL_ORDER_NEWEST)
    made = await create(database, asked, at_once=True)
    assert made.backfill.counts.made == 150 == len(made.foreseen)
    assert [run.run_id for run in made.foreseen] == [run.id for run in await runs_of(database)][::-1]
    again = await create(database, asked, at_once=True)  # as when the answer was lost
    assert [run.run_id for run in again.foreseen] == [run.run_id for run in made.foreseen]


async def test_a_schedule_that_goes_and_a_deployment_that_goes(
    database: Database, clock: ManualClock
) -> None:
    deployment = await a_deployment(database)
    schedule = await a_schedule(database, deployment)
    asked = a_backfill(schedule, limit=2)
    await create(database, asked)
    await database.writer.do(DeleteSchedule(schedule.id))
    for run in await open_runs(database):
        await end(database, clock, run.id)
    await go_on(database, clock)
    assert await times_of(database) == ["07:00", "07:01", "07:02", "07:03"]  # it has kept the schedule

    def delete(work: Work) -> Steps[None]:
        yield from work.rows.load(DeploymentRow, [deployment.key])
        row = work.rows.get(DeploymentRow, deployment.id)
        assert row is not None
        work.rows.delete(row)

    await database.writer.do(Do(delete))
    found = await end_all(database, clock, asked.id)
    assert found.state == BACKFILL_STATE_FAILED and found.reason == "Its deployment was deleted."
    assert counts_of(found) == {"total": 5, "made": 4, "completed": 4}


async def test_a_run_that_is_deleted_is_waited_for_no_more(database: Database, clock: ManualClock) -> None:
    schedule = await a_minutely_schedule(database)
    asked = a_backfill(schedule, 2)
    await create(database, asked)
    await database.writer.delete_run((await runs_of(database))[0].id, force=True)
    found = await end_all(database, clock, asked.id)
    assert counts_of(found) == {"total": 2, "made": 2, "completed": 1, "deleted": 1}


async def test_lists(database: Database, clock: ManualClock) -> None:
    deployments = [await a_deployment(database, name=name) for name in ("one", "two")]
    made: list[Backfill] = []
    for deployment in deployments:
        schedule = await a_schedule(database, deployment)
        for _ in range(2):
            made.append((await create(database, a_backfill(schedule, 3))).backfill)
        clock.advance(1)
    ids = [backfill.id for backfill in sorted(made, key=lambda b: (b.create_time.ToMicroseconds(), b.id))]
    found, token = await database.reader.backfills.page([], [], 3, "")
    more, last = await database.reader.backfills.page([], [], 3, token)
    assert [backfill.id for backfill in [*found, *more]] == ids[::-1] and not last
    with pytest.raises(PageTokenInvalid):
        await database.reader.backfills.page([], [BACKFILL_STATE_PAUSED], 3, token)
    of_one, _ = await database.reader.backfills.page([deployments[0].id.upper()], [], 0, "")
    assert {backfill.id for backfill in of_one} == set(ids[:2])
    assert await database.reader.backfills.page([], [BACKFILL_STATE_PAUSED], 0, "") == ([], "")
    ended, _ = await database.reader.backfills.page([], [BACKFILL_STATE_COMPLETED], 0, "")
    assert [counts_of(backfill) for backfill in ended] == [{"total": 3, "existed": 3}] * 2
    runs, token = await database.reader.backfills.runs(ids[0], 2, "")
    more_runs, _ = await database.reader.backfills.runs(ids[0], 2, token)
    assert len({run.run_id for run in [*runs, *more_runs]}) == 3
    with pytest.raises(ObjectNotFound):
        await database.reader.backfills.runs(new_id(), 0, "")
