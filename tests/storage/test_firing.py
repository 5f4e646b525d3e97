"""Many schedules due at once, on both databases: in transactions of a bounded size."""

from __future__ import annotations

from headrace.v1.schedule_pb2 import CronTiming, Schedule
from headrace_services.loops.scheduler import Scheduler
from headrace_services.storage.database import Database
from headrace_services.storage.schedule_changes import CreateSchedule
from headrace_services.storage.schedule_firing import Fired, FireSchedules
from tests.storage.build import ManualClock
from tests.storage.schedule_build import a_deployment, both, runs_of

MANY = 60


async def every_minute(database: Database, count: int) -> None:
    deployment = await a_deployment(database)
    schedule = Schedule(deployment_id=deployment.id, cron=CronTiming(cron="* * * * *"))
    await both(*(database.writer.do(CreateSchedule(schedule, "", "")) for _ in range(count)))


async def test_a_transaction_takes_as_many_as_it_is_asked_to(database: Database, clock: ManualClock) -> None:
    await every_minute(database, 7)
    clock.advance(60)
    fired = [await database.writer.do(FireSchedules(3)) for _ in range(4)]
    assert fired == [Fired(3, 3), Fired(3, 3), Fired(1, 1), Fired(0, 0)]
    assert len({run.schedule_id for run in await runs_of(database)}) == 7


async def test_one_look_makes_everything_that_is_due(database: Database, clock: ManualClock) -> None:
    await every_minute(database, MANY)
    clock.advance(60)
    scheduler = Scheduler(database, clock)
    await scheduler.look()
    assert scheduler.made == MANY
    runs = await runs_of(database)
    assert len({run.schedule_id for run in runs}) == len(runs) == MANY


async def test_a_transaction_knows_when_it_began(database: Database, clock: ManualClock) -> None:
    command = FireSchedules(monotonic=clock.monotonic)
    clock.advance(5)
    await database.writer.do(command)
    assert command.began == clock.monotonic()
