"""Schedules that were kept once and cannot be read any more, on both databases."""

from __future__ import annotations

import json

import pytest

from headrace.v1.event_pb2 import Event, EventFilter
from headrace.v1.schedule_pb2 import CronTiming, IntervalTiming, RRuleTiming, Schedule
from headrace_services.storage.database import Database
from headrace_services.storage.schedule_changes import SetSchedulePaused, UpdateSchedule
from headrace_services.storage.schedule_disabling import DISABLED_EVENT
from headrace_services.storage.schedule_rows import ScheduleRow
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work
from tests.storage.build import ManualClock
from tests.storage.schedule_build import Do, a_deployment, a_schedule, pause_deployment, runs_of, tick

MINUTELY = CronTiming(cron="* * * * *")
ATLANTIS = Schedule(cron=CronTiming(cron="* * * * *", timezone="Asia/Atlantis"))


async def store(database: Database, schedule: Schedule, spec: Schedule) -> None:
    """Keep a definition as if it had been accepted, by an earlier server say."""

    def logic(work: Work) -> Steps[None]:
        yield from work.rows.load(ScheduleRow, [(schedule.id,)])
        row = work.rows.get(ScheduleRow, schedule.id)
        assert row is not None
        row.spec = spec.SerializeToString()
        work.rows.put(row)

    await database.writer.do(Do(logic))


async def events_of(database: Database, schedule: Schedule) -> list[Event]:
    filter = EventFilter(events=[DISABLED_EVENT], resource_ids=[f"headrace.schedule.{schedule.id}"])
    return (await database.reader.list_events(filter))[0]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param(ATLANTIS, "'Asia/Atlantis'", id="its zone is gone"),
        pytest.param(Schedule(cron=CronTiming(cron="61 * * * *")), "61", id="its cron is none"),
        pytest.param(Schedule(rrule=RRuleTiming(rrule="FREQ=FORTNIGHTLY")), "FREQ", id="its rule is none"),
        pytest.param(
            Schedule(interval=IntervalTiming(anchor="never")), "anchor_date", id="its interval is none"
        ),
        pytest.param(
            Schedule(cron=MINUTELY, parameters="{"), "JSONDecodeError", id="its parameters are none"
        ),
    ],
)
async def test_it_stops_itself_says_why_and_stops_no_other(
    database: Database, clock: ManualClock, caplog: pytest.LogCaptureFixture, spec: Schedule, reason: str
) -> None:
    deployment = await a_deployment(database)
    poisoned = await a_schedule(database, deployment, slug="poisoned")
    sound = await a_schedule(database, deployment, slug="sound")
    await store(database, poisoned, spec)
    for _ in range(2):
        clock.advance(60)
        await tick(database)
    assert {run.schedule_id for run in await runs_of(database)} == {sound.id}
    assert len(await runs_of(database)) == 2
    shown = await database.reader.schedules.get(poisoned.id)
    assert reason in shown.disabled_reason and not shown.HasField("next_fire_time")
    told = [record for record in caplog.records if "schedule poisoned of deployment" in record.message]
    assert len(told) == 1 and reason in told[0].message
    (event,) = await events_of(database, poisoned)
    assert json.loads(event.payload) == {"reason": shown.disabled_reason}
    assert event.resource.labels["headrace.resource.name"] == "poisoned"
    assert event.related[0].labels["headrace.resource.id"] == f"headrace.deployment.{deployment.id}"
    mended = await database.writer.do(
        UpdateSchedule(Schedule(id=poisoned.id, cron=MINUTELY), ["cron", "parameters"])
    )
    assert not mended.disabled_reason and mended.HasField("next_fire_time")


async def test_it_goes_on_when_it_is_resumed_and_can_be_read(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    poisoned = await a_schedule(database, deployment)
    await store(database, poisoned, ATLANTIS)
    await pause_deployment(database, deployment, True)
    await pause_deployment(database, deployment, False)
    resumed = await database.writer.do(SetSchedulePaused(poisoned.id, False))
    assert "Asia/Atlantis" in resumed.disabled_reason
    assert len(await events_of(database, poisoned)) == 1  # however often it is tried
    await store(database, poisoned, Schedule(cron=MINUTELY))
    resumed = await database.writer.do(SetSchedulePaused(poisoned.id, False))
    assert not resumed.disabled_reason
    clock.advance(60)
    assert await tick(database) == 1
