"""Single instants of schedules that are skipped, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.core.clock import from_micros
from headrace.core.errors import FieldsInvalid, ObjectNotFound, PreconditionFailed
from headrace.core.ids import new_id
from headrace.v1.schedule_pb2 import Schedule
from headrace_services.storage.command import Command
from headrace_services.storage.database import Database
from headrace_services.storage.schedule_changes import SetSchedulePaused, UpdateSchedule, apply_schedules
from headrace_services.storage.schedule_firing import FireSchedules
from headrace_services.storage.schedule_skips import SKIPPED_MAX, SkipFire, UnskipFire
from headrace_services.storage.scheduled_runs import run_id_of
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work
from tests.storage.build import SECOND, START, ManualClock, state
from tests.storage.schedule_build import Do, a_deployment, a_schedule, both, runs_of, tick, times_of

# START is 2027-01-15 08:00:00 UTC.

MINUTE = 60 * SECOND


def minute(number: int) -> int:
    """The instant of the n-th fire of a schedule that fires every minute."""
    return START + number * MINUTE


async def skip(database: Database, schedule: Schedule, fire: int) -> Schedule:
    return await database.writer.do(SkipFire(schedule.id, fire))


async def unskip(database: Database, schedule: Schedule, fire: int) -> Schedule:
    return await database.writer.do(UnskipFire(schedule.id, fire))


def shown(schedule: Schedule) -> tuple[str, list[str]]:
    """The next fire and those that are skipped, as hours and minutes."""
    times = [schedule.next_fire_time, *schedule.skipped_times]
    next, *skipped = [f"{from_micros(time.ToMicroseconds()):%H:%M}" for time in times]
    return next, skipped


async def pass_minutes(database: Database, clock: ManualClock, count: int) -> None:
    for _ in range(count):
        clock.advance(60)
        await tick(database)


async def test_no_run_is_made_for_it_and_the_others_come(database: Database, clock: ManualClock) -> None:
    schedule = await a_schedule(database, await a_deployment(database))
    assert shown(await skip(database, schedule, minute(1))) == ("08:02", ["08:01"])
    assert shown(await skip(database, schedule, minute(3))) == ("08:02", ["08:01", "08:03"])
    assert shown(await skip(database, schedule, minute(3))) == ("08:02", ["08:01", "08:03"])
    await pass_minutes(database, clock, 4)
    assert await times_of(database) == ["08:02", "08:04"]
    after = await database.reader.schedules.get(schedule.id)
    assert after.skipped_fires == 2 and not after.skipped_times and not after.missed_fires
    assert after.last_skip_reason.startswith("2027-01-15T08:03:00Z: ")


async def test_it_is_made_after_all(database: Database, clock: ManualClock) -> None:
    schedule = await a_schedule(database, await a_deployment(database))
    await skip(database, schedule, minute(1))
    await skip(database, schedule, minute(2))
    assert shown(await unskip(database, schedule, minute(2))) == ("08:02", ["08:01"])
    assert shown(await unskip(database, schedule, minute(1))) == ("08:01", [])
    assert shown(await unskip(database, schedule, minute(1))) == ("08:01", [])
    await pass_minutes(database, clock, 2)
    assert await times_of(database) == ["08:01", "08:02"]


async def test_a_run_that_is_there_already_goes_and_comes_back_the_same(
    database: Database, clock: ManualClock
) -> None:
    schedule = await a_schedule(database, await a_deployment(database))
    clock.advance(50)
    assert await tick(database) == 1  # made a moment before its time
    assert shown(await skip(database, schedule, minute(1))) == ("08:02", ["08:01"])
    assert await tick(database) == 0
    assert await runs_of(database) == []
    assert shown(await unskip(database, schedule, minute(1))) == ("08:01", [])
    assert await tick(database) == 1
    assert [run.id for run in await runs_of(database)] == [run_id_of(schedule.id, minute(1))]
    await skip(database, schedule, minute(1))
    await pass_minutes(database, clock, 1)
    assert await times_of(database) == ["08:02"]


async def test_a_run_that_has_begun_stays(database: Database, clock: ManualClock) -> None:
    schedule = await a_schedule(database, await a_deployment(database))
    clock.advance(55)
    await tick(database)
    run = run_id_of(schedule.id, minute(1))
    await database.writer.propose_state(run, None, state("PENDING", clock.now()))
    with pytest.raises(PreconditionFailed, match=run):
        await skip(database, schedule, minute(1))
    assert len(await runs_of(database)) == 1


async def test_a_skipped_instant_is_not_made_up_for(database: Database, clock: ManualClock) -> None:
    schedule = await a_schedule(database, await a_deployment(database))
    await skip(database, schedule, minute(1))
    clock.advance(110)  # nobody looked when it came
    await tick(database)
    assert await times_of(database) == ["08:02"]


async def test_it_holds_through_pauses_and_other_declarations(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    schedule = await a_schedule(database, deployment, slug="minutely")
    await skip(database, schedule, minute(2))
    await database.writer.do(SetSchedulePaused(schedule.id, True))
    await skip(database, schedule, minute(3))
    assert shown(await database.writer.do(SetSchedulePaused(schedule.id, False))) == (
        "08:01",
        ["08:02", "08:03"],
    )
    said = Schedule(slug="minutely", parameters='{"n": 1}')
    said.cron.cron = "* * * * *"

    def logic(work: Work) -> Steps[object]:
        return (yield from apply_schedules(work, deployment, [said], "tester"))

    await database.writer.do(Do(logic))
    await pass_minutes(database, clock, 4)
    assert await times_of(database) == ["08:01", "08:04"]


async def test_what_never_was_an_instant_is_refused(database: Database, clock: ManualClock) -> None:
    schedule = await a_schedule(database, await a_deployment(database), "0 9 * * *")
    clock.advance(60)
    for fire, reason in (
        (START, "is past"),
        (minute(2), "the next one is 2027-01-15T09:00:00Z"),
        (minute(60) + 1, "the next one is 2027-01-16T09:00:00Z"),
    ):
        with pytest.raises(FieldsInvalid, match=reason) as caught:
            await skip(database, schedule, fire)
        assert [violation.field for violation in caught.value.violations] == ["fire_time"]
    for command in (SkipFire(new_id(), START), UnskipFire(new_id(), START)):
        with pytest.raises(ObjectNotFound):
            await database.writer.do(command)


async def test_not_without_end(database: Database) -> None:
    schedule = await a_schedule(database, await a_deployment(database))
    await both(*(skip(database, schedule, minute(n + 1)) for n in range(SKIPPED_MAX)))
    with pytest.raises(FieldsInvalid, match="pause the schedule"):
        await skip(database, schedule, minute(SKIPPED_MAX + 1))
    await unskip(database, schedule, minute(7))
    await skip(database, schedule, minute(SKIPPED_MAX + 1))


async def test_an_instant_of_another_rule_is_nothing_to_it(database: Database, clock: ManualClock) -> None:
    schedule = await a_schedule(database, await a_deployment(database))
    await skip(database, schedule, minute(1))
    other = Schedule(id=schedule.id)
    other.cron.cron = "0 9 * * *"
    await database.writer.do(UpdateSchedule(other, ["cron"]))
    assert shown(await unskip(database, schedule, minute(1))) == ("09:00", [])
    await pass_minutes(database, clock, 2)
    assert await runs_of(database) == []


async def test_two_servers_agree(replicas: list[Database], clock: ManualClock) -> None:
    first, second = replicas
    schedule = await a_schedule(first, await a_deployment(first))
    for number in range(1, 6):
        clock.advance(55)
        commands: list[tuple[Database, Command[Any]]] = [
            (first, FireSchedules()),
            (second, SkipFire(schedule.id, minute(number))),
            (second, FireSchedules()),
        ]
        await both(*(server.writer.do(command) for server, command in commands))
        clock.advance(5)
        await tick(second)
        assert await runs_of(first) == []
