"""Schedules: kept, changed, and made runs of, on both databases."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from headrace.core.errors import EtagMismatch, FieldsInvalid, ObjectAlreadyExists, ObjectNotFound
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import Run
from headrace.v1.schedule_pb2 import CATCH_UP_MODE_ALL, CATCH_UP_MODE_SKIP, Schedule
from headrace_services.domain.schedules import LEAD_MICROS, LEAST_LEAD_MICROS
from headrace_services.storage.database import Database
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.schedule_changes import (
    CreateSchedule,
    DeleteSchedule,
    SetSchedulePaused,
    UpdateSchedule,
    apply_schedules,
)
from headrace_services.storage.schedule_firing import TriggerSchedule
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work
from tests.storage.build import SECOND, START, ManualClock, state
from tests.storage.schedule_build import (
    Do,
    a_deployment,
    a_schedule,
    pause_deployment,
    runs_of,
    tick,
    times_of,
)

# START is 2027-01-15 08:00:00 UTC.


async def apply(
    database: Database, deployment: DeploymentRow, *asked: Schedule, dry_run: bool = False
) -> list[Any]:
    def logic(work: Work) -> Steps[Any]:
        return (yield from apply_schedules(work, deployment, asked, "tester", dry_run=dry_run))

    changes: list[Any] = await database.writer.do(Do(logic))
    return changes


async def schedules_of(database: Database, deployment: DeploymentRow) -> list[Schedule]:
    return await database.reader.schedules.of_deployments([deployment.id])


def cron(text: str, **fields: Any) -> Schedule:
    schedule = Schedule(**fields)
    schedule.cron.cron = text
    return schedule


# Made, read, changed


async def test_a_schedule_comes_back_as_it_was_asked_for(database: Database) -> None:
    deployment = await a_deployment(database)
    made = await a_schedule(database, deployment, "0  9 * * MON-FRI", slug="weekdays", parameters='{"n": 1}')
    assert made.cron.cron == "0 9 * * MON-FRI" and made.slug == "weekdays" and made.created_by == "tester"
    assert made.next_fire_time.ToMicroseconds() == START + 3600 * SECOND
    assert await database.reader.schedules.get(made.id) == made
    with pytest.raises(ObjectNotFound):
        await database.reader.schedules.get(new_id())


async def test_an_interval_without_an_anchor_begins_now(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    schedule = Schedule(deployment_id=deployment.id)
    schedule.interval.interval.FromSeconds(600)
    schedule.interval.timezone = "Europe/Oslo"
    made = await database.writer.do(CreateSchedule(schedule, "", ""))
    assert made.interval.anchor == "2027-01-15T09:00:00"
    assert made.next_fire_time.ToMicroseconds() == START + 600 * SECOND


@pytest.mark.parametrize(
    "fields, field",
    [
        ({"cron": {"cron": "0 0 30 2 *"}}, "schedule.cron.cron"),
        ({"cron": {"cron": "* * * * *", "timezone": "Mars/Base"}}, "schedule.timezone"),
        ({"rrule": {"rrule": "FREQ=NEVER"}}, "schedule.rrule.rrule"),
        ({"interval": {"interval": {"nanos": 5}}}, "schedule.interval.interval"),
        ({"interval": {"interval": {"seconds": 60}, "anchor": "soon"}}, "schedule.anchor_date"),
        ({}, "schedule.timing"),
        ({"cron": {"cron": "* * * * *"}, "parameters": "[1]"}, "schedule.parameters"),
        ({"cron": {"cron": "* * * * *"}, "jitter": {"seconds": -1}}, "schedule.jitter"),
    ],
)
async def test_what_cannot_be_kept_is_refused_with_its_field(
    database: Database, fields: dict[str, Any], field: str
) -> None:
    deployment = await a_deployment(database)
    with pytest.raises(FieldsInvalid) as caught:
        await database.writer.do(CreateSchedule(Schedule(deployment_id=deployment.id, **fields), "", ""))
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_a_request_sent_twice_makes_one_schedule(database: Database) -> None:
    deployment = await a_deployment(database)
    asked = cron("* * * * *", deployment_id=deployment.id, slug="s")
    first = await database.writer.do(CreateSchedule(asked, "request-1", ""))
    assert await database.writer.do(CreateSchedule(asked, "request-1", "")) == first
    with pytest.raises(ObjectAlreadyExists):
        await database.writer.do(CreateSchedule(asked, "request-2", ""))


async def test_pages_in_the_order_of_creation(database: Database, clock: ManualClock) -> None:
    deployment, other = await a_deployment(database), await a_deployment(database, name="other")
    made = []
    for number in range(7):
        clock.advance(number % 2)  # some share their instant
        made.append((await a_schedule(database, deployment, slug=f"s{number}", paused=number == 3)).id)
    await a_schedule(database, other)
    found: list[str] = []
    token = ""
    while True:
        page, token = await database.reader.schedules.page([deployment.id], False, 2, token)
        found += [schedule.id for schedule in page]
        if not token:
            break
    assert sorted(found) == sorted(made) and len(found) == 7
    active, _ = await database.reader.schedules.page([deployment.id], True, 0, "")
    assert len(active) == 6
    everything, _ = await database.reader.schedules.page([], False, 0, "")
    assert len(everything) == 8


async def test_only_the_named_fields_change(database: Database) -> None:
    deployment = await a_deployment(database)
    made = await a_schedule(database, deployment, slug="s", parameters='{"n": 1}')
    changed = cron("0 12 * * *", id=made.id, parameters="{}", etag=made.etag)
    after = await database.writer.do(UpdateSchedule(changed, ["cron"]))
    assert after.cron.cron == "0 12 * * *" and after.parameters == '{"n": 1}' and after.slug == "s"
    assert after.next_fire_time.ToMicroseconds() == START + 4 * 3600 * SECOND
    with pytest.raises(EtagMismatch):
        await database.writer.do(UpdateSchedule(changed, ["cron"]))
    other = Schedule(id=made.id)
    other.interval.interval.FromSeconds(60)
    after = await database.writer.do(UpdateSchedule(other, ["interval", "parameters"]))
    assert after.WhichOneof("timing") == "interval" and not after.parameters
    with pytest.raises(FieldsInvalid, match="'id' is none of"):
        await database.writer.do(UpdateSchedule(other, ["id"]))


async def test_deleting(database: Database) -> None:
    deployment = await a_deployment(database)
    made = await a_schedule(database, deployment)
    assert await database.writer.do(DeleteSchedule(made.id))
    assert not await database.writer.do(DeleteSchedule(made.id))
    assert await schedules_of(database, deployment) == []


# Declared with their deployment


async def test_applying_the_same_again_changes_nothing(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    asked = [cron("0 9 * * *"), cron("0 17 * * *", parameters='{"n": 2}'), Schedule()]
    asked[2].interval.interval.FromSeconds(3600)
    assert len(await apply(database, deployment, *asked)) == 3
    before = await schedules_of(database, deployment)
    for _ in range(3):
        clock.advance(100)
        assert await apply(database, deployment, *asked) == []
    assert await schedules_of(database, deployment) == before


async def test_by_slug_only_what_changed_changes(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    await apply(
        database, deployment, cron("0 9 * * *", slug="a", parameters='{"n": 1}'), cron("0 1 * * *", slug="b")
    )
    first, second = sorted(await schedules_of(database, deployment), key=lambda s: s.slug)
    await database.writer.do(SetSchedulePaused(first.id, True))
    clock.advance(5)
    changes = await apply(database, deployment, cron("0 10 * * *", slug="a", parameters='{"n": 1}'))
    assert [change.path for change in changes] == ["schedules[a]"]
    assert json.loads(changes[0].old_value)["cron"]["cron"] == "0 9 * * *"
    after_first, after_second = sorted(await schedules_of(database, deployment), key=lambda s: s.slug)
    assert after_first.id == first.id and after_first.cron.cron == "0 10 * * *"
    assert after_first.paused and after_first.parameters == '{"n": 1}'  # paused by hand stays paused
    assert after_second == second
    # Until the declaration changes its mind.
    await apply(database, deployment, cron("0 1 * * *", slug="b", paused=True))
    assert [s.paused for s in await schedules_of(database, deployment)] == [True, True]
    await apply(database, deployment, cron("0 1 * * *", slug="b"))
    assert {s.slug: s.paused for s in await schedules_of(database, deployment)} == {"a": True, "b": False}


async def test_a_set_without_slugs_is_replaced(database: Database) -> None:
    deployment = await a_deployment(database)
    await apply(database, deployment, cron("0 9 * * *"), cron("0 10 * * *"))
    kept = {s.cron.cron: s.id for s in await schedules_of(database, deployment)}["0 9 * * *"]
    changes = await apply(database, deployment, cron("0 9 * * *"), cron("0 11 * * *"))
    assert len(changes) == 2
    after = {s.cron.cron: s.id for s in await schedules_of(database, deployment)}
    assert set(after) == {"0 9 * * *", "0 11 * * *"} and after["0 9 * * *"] == kept
    await apply(database, deployment)
    assert await schedules_of(database, deployment) == []


async def test_a_slug_is_renamed_with_its_history(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    await apply(database, deployment, cron("* * * * *", slug="old"))
    clock.advance(60)
    assert await tick(database) == 1
    [before] = await schedules_of(database, deployment)
    await apply(database, deployment, cron("* * * * *", slug="new", replaces="old"))
    [after] = await schedules_of(database, deployment)
    assert (after.id, after.slug, after.last_fire_time) == (before.id, "new", before.last_fire_time)
    # The declaration is the same the next time it is applied.
    assert await apply(database, deployment, cron("* * * * *", slug="new", replaces="old")) == []


@pytest.mark.parametrize("slug", ["", "nightly"])
async def test_redeploying_again_and_again_makes_each_run_once(
    database: Database, clock: ManualClock, slug: str
) -> None:
    deployment = await a_deployment(database)
    await apply(database, deployment, cron("* * * * *", slug=slug, parameters='{"n": 0}'))
    draw = random.Random(3)
    for number in range(40):
        clock.advance(draw.choice([0.5, 1, 7, 11, 31]))
        if number % 3:
            await tick(database)
        parameters = json.dumps({"n": draw.randrange(3)})  # sometimes nothing changes
        await apply(database, deployment, cron("* * * * *", slug=slug, parameters=parameters))
        await tick(database)
    clock.time -= clock.time % (60 * SECOND) - 60 * SECOND
    await tick(database)
    made = [run.expected_start_time.ToMicroseconds() for run in await runs_of(database)]
    assert made == list(range(START + 60 * SECOND, clock.now() + 1, 60 * SECOND))


@pytest.mark.parametrize(
    "asked, says",
    [
        ([cron("0 9 * * *")], "is missing"),
        ([cron("0 9 * * *", slug="a"), cron("0 8 * * *", slug="a")], "given twice"),
        ([cron("0 9 * * *", slug="b", replaces="a")], "another schedule 'b' already"),
        (
            [cron("0 9 * * *", slug="x", replaces="a"), cron("1 9 * * *", slug="y", replaces="a")],
            "replaced twice",
        ),
        ([cron("0 9 * * *", replaces="a")], "is missing"),
        ([cron("nonsense", slug="a")], "has 1 fields"),
    ],
)
async def test_a_declaration_that_would_lose_something_is_refused(
    database: Database, asked: list[Schedule], says: str
) -> None:
    deployment = await a_deployment(database)
    await apply(database, deployment, cron("0 9 * * *", slug="a"), cron("0 10 * * *", slug="b"))
    before = await schedules_of(database, deployment)
    with pytest.raises(FieldsInvalid, match=says):
        await apply(database, deployment, *asked)
    assert await schedules_of(database, deployment) == before


async def test_a_dry_run_says_the_same_and_does_nothing(database: Database) -> None:
    deployment = await a_deployment(database)
    await apply(database, deployment, cron("0 9 * * *"))
    before = await schedules_of(database, deployment)
    said = await apply(database, deployment, cron("0 10 * * *"), dry_run=True)
    assert await schedules_of(database, deployment) == before
    done = await apply(database, deployment, cron("0 10 * * *"))
    assert [(c.path, c.new_value) for c in said] == [(c.path, c.new_value) for c in done]


# Runs


async def test_a_run_of_a_schedule(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(
        database, tags=["t"], labels={"l": "1"}, parameters='{"a": 1, "b": 1}', work_pool="pool", priority=3
    )
    schedule = await a_schedule(database, deployment, slug="minutely", parameters='{"b": 2}')
    clock.advance(60)
    assert await tick(database) == 1
    [run] = await runs_of(database, full=True)
    assert json.loads(run.parameters.inline) == {"a": 1, "b": 2}
    assert sorted(run.tags) == ["auto-scheduled", "t"] and dict(run.labels) == {"l": "1"}
    assert (run.state.name, run.priority, run.work_pool) == ("Scheduled", 3, "pool")
    assert run.schedule_id == schedule.id and run.created_by == "schedule:minutely"
    assert run.deployment_id == deployment.id and run.deployment_version_id == deployment.version_id
    assert run.state.scheduled.scheduled_time.ToMicroseconds() == START + 60 * SECOND
    assert run.name and run.expected_start_time.ToMicroseconds() == START + 60 * SECOND
    after = await database.reader.schedules.get(schedule.id)
    assert after.last_fire_time.ToMicroseconds() == START + 60 * SECOND
    assert after.next_fire_time.ToMicroseconds() == START + 120 * SECOND


async def test_a_run_is_made_a_moment_before_its_time_and_once(
    database: Database, clock: ManualClock
) -> None:
    await a_schedule(database, await a_deployment(database))
    clock.time = START + 60 * SECOND - LEAD_MICROS - 1
    assert await tick(database) == 0
    clock.time += 1
    assert await tick(database) == 1
    clock.time += LEAD_MICROS
    assert await tick(database) == 0
    assert await database.reader.schedules.next_due() == START + 120 * SECOND - LEAD_MICROS


async def test_several_schedules_of_a_deployment(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database, parameters='{"who": "nobody"}')
    await a_schedule(database, deployment, "*/2 * * * *", slug="even", parameters='{"who": "even"}')
    await a_schedule(database, deployment, "*/3 * * * *", slug="third", parameters='{"who": "third"}')
    for _ in range(6):
        clock.advance(60)
        await tick(database)
    made = [json.loads(run.parameters.inline)["who"] for run in await runs_of(database, full=True)]
    assert sorted(made) == ["even"] * 3 + ["third"] * 2


async def test_the_clock_may_go_back(database: Database, clock: ManualClock) -> None:
    await a_schedule(database, await a_deployment(database))
    for jump in (60, 60, -3600, 60, 3600 - 60, 60):
        clock.advance(jump)
        await tick(database)
    assert await times_of(database) == ["08:01", "08:02", "08:03"]


async def test_jitter_moves_the_start_and_not_the_fire(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    schedule = Schedule(deployment_id=deployment.id)
    schedule.cron.cron = "* * * * *"
    schedule.jitter.FromSeconds(30)
    made = await database.writer.do(CreateSchedule(schedule, "", ""))
    for _ in range(5):
        clock.advance(60)
        await tick(database)
    starts = [run.expected_start_time.ToMicroseconds() for run in await runs_of(database)]
    delays = [start - START - 60 * SECOND * number for number, start in enumerate(starts, 1)]
    assert all(0 <= delay < 30 * SECOND for delay in delays) and len(set(delays)) == 5
    after = await database.reader.schedules.get(made.id)
    assert after.last_fire_time.ToMicroseconds() == START + 300 * SECOND


async def test_start_and_end(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    schedule = cron("* * * * *", deployment_id=deployment.id)
    schedule.start.FromMicroseconds(START + 120 * SECOND)
    schedule.end.FromMicroseconds(START + 240 * SECOND)
    made = await database.writer.do(CreateSchedule(schedule, "", ""))
    for _ in range(6):
        clock.advance(60)
        await tick(database)
    assert await times_of(database) == ["08:02", "08:03"]
    assert not (await database.reader.schedules.get(made.id)).HasField("next_fire_time")


# Catching up


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"mode": CATCH_UP_MODE_SKIP}, []),
        ({}, ["11:00"]),
        ({"mode": CATCH_UP_MODE_ALL, "max_runs": 10}, [f"08:{5 * n:02}" for n in range(1, 11)]),
        ({"mode": CATCH_UP_MODE_ALL, "window": {"seconds": 900}}, ["10:50", "10:55", "11:00"]),
        ({"window": {"seconds": 60}}, []),
    ],
)
async def test_three_hours_away(
    database: Database, clock: ManualClock, fields: dict[str, Any], expected: list[str]
) -> None:
    deployment = await a_deployment(database)
    made = await a_schedule(database, deployment, "*/5 * * * *", catch_up=fields)
    clock.advance(3 * 3600 + 100)
    await tick(database)
    await tick(database)
    assert await times_of(database) == expected
    after = await database.reader.schedules.get(made.id)
    assert after.missed_fires == 36 - len(expected)
    clock.advance(200)
    await tick(database)
    assert (await times_of(database))[-1] == "11:05"


async def test_a_fire_that_is_a_little_late_is_never_lost(database: Database, clock: ManualClock) -> None:
    await a_schedule(database, await a_deployment(database), catch_up={"mode": CATCH_UP_MODE_SKIP})
    clock.advance(119)
    await tick(database)
    assert await times_of(database) == ["08:01", "08:02"]


async def test_years_away_cost_little(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    schedule = Schedule(deployment_id=deployment.id)
    schedule.interval.interval.FromSeconds(1)
    made = await database.writer.do(CreateSchedule(schedule, "", ""))
    clock.advance(3 * 365 * 86400)
    assert await tick(database) == 60 + LEAST_LEAD_MICROS // SECOND
    assert (await database.reader.schedules.get(made.id)).missed_fires == 1000


async def test_what_a_pause_passes_over_is_not_missed(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    made = await a_schedule(database, deployment, "*/5 * * * *", catch_up={"mode": CATCH_UP_MODE_ALL})
    await pause_deployment(database, deployment, True)
    clock.advance(3600)
    assert await tick(database) == 0
    await pause_deployment(database, deployment, False)
    assert await tick(database) == 0
    clock.advance(300)
    assert await tick(database) == 1
    assert (await database.reader.schedules.get(made.id)).missed_fires == 0


async def test_unless_it_is_to_be_made_up_for(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    rule = {"mode": CATCH_UP_MODE_ALL, "include_paused": True}
    await a_schedule(database, deployment, "*/5 * * * *", catch_up=rule)
    await pause_deployment(database, deployment, True)
    clock.advance(1000)
    await pause_deployment(database, deployment, False)
    await tick(database)
    assert await times_of(database) == ["08:05", "08:10", "08:15"]


# Pausing and changing


async def test_a_paused_schedule_makes_nothing_and_its_waiting_runs_go(
    database: Database, clock: ManualClock
) -> None:
    deployment = await a_deployment(database)
    made = await a_schedule(database, deployment)
    clock.advance(60)
    await tick(database)
    begun = (await runs_of(database))[0]
    await database.writer.propose_state(begun.id, None, state("PENDING", clock.now()))
    clock.advance(60)
    await tick(database)
    by_hand = Run(id=new_id(), kind=1, name="by-hand", flow_name="etl", deployment_id=deployment.id)
    await database.writer.create_run(by_hand)
    paused = await database.writer.do(SetSchedulePaused(made.id, True))
    assert paused.paused and not paused.HasField("next_fire_time")
    assert {run.id for run in await runs_of(database)} == {begun.id, by_hand.id}
    clock.advance(600)
    assert await tick(database) == 0
    resumed = await database.writer.do(SetSchedulePaused(made.id, False))
    assert resumed.next_fire_time.ToMicroseconds() == clock.now() + 60 * SECOND


async def test_a_change_takes_back_what_is_not_due_yet(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    made = await a_schedule(database, deployment)
    clock.advance(60)
    await tick(database)
    clock.advance(59.5)
    await tick(database)
    assert len(await runs_of(database)) == 2
    await database.writer.do(UpdateSchedule(cron("0 12 * * *", id=made.id), ["cron"]))
    assert await times_of(database) == ["08:01"]


async def test_a_deployment_that_is_gone_makes_nothing(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    await a_schedule(database, deployment)

    def delete(work: Work) -> Steps[None]:
        yield from work.rows.delete_where(DeploymentRow, [("id", "=", deployment.id)])

    await database.writer.do(Do(delete))
    clock.advance(60)
    assert await tick(database) == 0
    assert await database.reader.schedules.next_due() is None


# At will


async def test_triggering(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    made = await a_schedule(
        database, deployment, "0 0 1 1 *", slug="yearly", parameters='{"n": 1}', paused=True
    )
    first = await database.writer.do(TriggerSchedule(made.id, "request", ""))
    again = await database.writer.do(TriggerSchedule(made.id, "request", ""))
    other = await database.writer.do(TriggerSchedule(made.id, "", "alice"))
    assert first.id == again.id != other.id
    assert first.created_by == "trigger:yearly" and other.created_by == "alice"
    assert json.loads(first.parameters.inline) == {"n": 1} and not first.tags
    with pytest.raises(ObjectNotFound):
        await database.writer.do(TriggerSchedule(new_id(), "", ""))
