"""One run for each instant of a schedule, whoever dies, has a wrong clock, or changes things meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count
from typing import Any

import pytest

from headrace.core.errors import InternalError, ObjectNotFound, ServiceError
from headrace.v1.run_pb2 import Run
from headrace.v1.schedule_pb2 import CATCH_UP_MODE_ALL, CatchUp, CronTiming, Schedule
from headrace_services.storage.database import Database, open_database
from headrace_services.storage.schedule_changes import SetSchedulePaused, UpdateSchedule
from headrace_services.storage.schedule_firing import FireSchedules
from headrace_services.storage.steps import Steps
from tests.storage.build import SECOND, START, ManualClock, state
from tests.storage.schedule_build import a_deployment, a_schedule, both, runs_of, tick, times_of

MINUTE = 60 * SECOND
SCHEDULES = 5


def fires_of(runs: Sequence[Run]) -> Counter[tuple[str, int]]:
    """How many runs each instant of each schedule has."""
    return Counter((run.schedule_id, run.expected_start_time.ToMicroseconds()) for run in runs)


class Died(Exception):
    """The server is gone."""


def die_at(database: Database, monkeypatch: pytest.MonkeyPatch, statement: int) -> None:
    """Have every transaction die before its n-th statement, from 0 on; the last of them is its commit."""
    store = database._backend.store  # the statements of a transaction go nowhere else
    transact = store.transact

    def dying(logic: Steps[Any]) -> Steps[Any]:
        answer: Any = None
        for number in count():
            try:
                call = logic.send(answer)
            except StopIteration as done:
                if number == statement:
                    raise Died from None
                return done.value
            if number == statement:
                raise Died
            answer = yield call

    async def wrapped(logic: Callable[[], Steps[Any]], **how: Any) -> Any:
        return await transact(lambda: dying(logic()), **how)

    monkeypatch.setattr(store, "transact", wrapped)


async def test_a_server_that_dies_at_any_statement(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = await a_deployment(database)
    for _ in range(SCHEDULES):
        await a_schedule(database, deployment)
    clock.advance(60)
    deaths = 0
    for statement in count():
        with monkeypatch.context() as patch:
            die_at(database, patch, statement)
            try:
                await database.writer.do(FireSchedules())
            except InternalError:
                deaths += 1
            else:
                break
        assert await runs_of(database) == []
    assert deaths >= 5
    assert set(fires_of(await runs_of(database)).values()) == {1}
    await tick(database)
    assert fires_of(await runs_of(database)).total() == SCHEDULES


@pytest.fixture
async def skewed(postgresql_url: str) -> AsyncIterator[list[tuple[Database, ManualClock]]]:
    """Two servers on one PostgreSQL whose clocks are 40 seconds apart."""
    clocks = [ManualClock(START - 20 * SECOND), ManualClock(START + 20 * SECOND)]
    pair = [(await open_database(postgresql_url, clock=each, read_pool_size=2), each) for each in clocks]
    yield pair
    for database, _ in pair:
        await database.close()


async def test_two_servers_with_clocks_apart(skewed: list[tuple[Database, ManualClock]]) -> None:
    (first, _), (second, _) = skewed
    deployment = await a_deployment(first)
    for number in range(SCHEDULES):
        await a_schedule((first, second)[number % 2], deployment)
    for _ in range(24):
        for _, clock in skewed:
            clock.advance(15)
        await both(*(server.writer.do(FireSchedules()) for server in (first, second) * 2))
        await tick(first)
        await tick(second)
    fires = fires_of(await runs_of(first))
    assert set(fires.values()) == {1}
    # Six minutes by the right clock; who begins by the one that is ahead begins a minute later.
    assert all((schedule, START + n * MINUTE) in fires for schedule, _ in fires for n in range(2, 7))


async def test_the_clock_goes_an_hour_forward_and_back(database: Database, clock: ManualClock) -> None:
    deployment = await a_deployment(database)
    await a_schedule(database, deployment, "*/5 * * * *", catch_up=CatchUp(mode=CATCH_UP_MODE_ALL))
    for jump in (300, 3600, -3600, 300, 300, 3600 - 600, 300):
        clock.advance(jump)
        await tick(database)
    assert await times_of(database) == [f"{8 + n // 12:02}:{n % 12 * 5:02}" for n in range(1, 15)]


async def test_a_change_leaves_what_has_begun_or_waits_for_a_slot(
    database: Database, clock: ManualClock
) -> None:
    deployment = await a_deployment(database)
    schedule = await a_schedule(database, deployment)
    for begins in (state("PENDING"), state("SCHEDULED", name="AwaitingConcurrencySlot")):
        clock.advance(60)
        await tick(database)
        begins.event_time.FromMicroseconds(clock.now())
        await database.writer.propose_state((await runs_of(database))[-1].id, None, begins)
    clock.advance(50)
    await tick(database)
    assert await times_of(database) == ["08:01", "08:02", "08:03"]
    noon = Schedule(id=schedule.id, cron=CronTiming(cron="0 12 * * *"))
    await database.writer.do(UpdateSchedule(noon, ["cron"]))
    assert [run.state.name for run in await runs_of(database)] == ["Pending", "AwaitingConcurrencySlot"]


async def test_a_run_that_somebody_begins_with_is_not_taken_back(
    replicas: list[Database], clock: ManualClock
) -> None:
    first, second = replicas
    deployment = await a_deployment(first)
    for number in range(8):
        schedule = await a_schedule(first, deployment, slug=f"s{number}")
        clock.advance(60 - clock.now() // SECOND % 60)
        await tick(first)
        (run,) = [run for run in await runs_of(first) if run.schedule_id == schedule.id]

        async def begin(id: str = run.id) -> bool:
            try:
                await second.writer.propose_state(id, None, state("PENDING", clock.now()))
            except ServiceError as error:
                assert isinstance(error, ObjectNotFound)
                return False
            return True

        pause = first.writer.do(SetSchedulePaused(schedule.id, True))
        if number % 2:
            has_begun, _ = await both(begin(), pause)
        else:
            _, has_begun = await both(pause, begin())
        left = [run for run in await runs_of(first) if run.schedule_id == schedule.id]
        assert [run.state.name for run in left] == (["Pending"] if has_begun else [])
