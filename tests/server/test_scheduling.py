"""Schedules on whole server processes: two on one database, killed, and away for a while."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from headrace.core.clock import SystemClock
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.schedule_pb2 import CATCH_UP_MODE_ALL, Schedule
from headrace_services.storage.database import Database, open_database
from headrace_services.storage.schedule_changes import CreateSchedule
from tests.storage.schedule_build import a_deployment
from tests.support.servers import ServerProcess

pytestmark = pytest.mark.usefixtures("one_event_loop")
SECOND = 1_000_000
SCHEDULES = 20


async def every_second(database: Database) -> list[Schedule]:
    """Schedules that fire every second and make up for all that was missed."""
    deployment = await a_deployment(database)
    made: list[Schedule] = []
    for _ in range(SCHEDULES):
        schedule = Schedule(deployment_id=deployment.id)
        schedule.interval.interval.FromSeconds(1)
        schedule.catch_up.mode = CATCH_UP_MODE_ALL
        schedule.catch_up.max_runs = 1000
        made.append(await database.writer.do(CreateSchedule(schedule, "", "")))
    return made


async def runs_of(database: Database) -> list[Run]:
    found: list[Run] = []
    token = ""
    while True:
        page, token = await database.reader.list_runs(RunFilter(), page_size=1000, page_token=token)
        found += page
        if not token:
            return found


async def until_all_reach(database: Database, schedules: list[Schedule], instant: int) -> None:
    """Wait until every schedule has dealt with its fires up to the instant."""
    while True:
        seen = database.signals.count
        now = await database.reader.schedules.of_deployments([schedules[0].deployment_id])
        if all(schedule.last_fire_time.ToMicroseconds() >= instant for schedule in now):
            return
        await database.signals.wait(seen, 0.2)


def check(schedules: list[Schedule], runs: list[Run]) -> None:
    """Every schedule has one run for each second since its first fire, and no other."""
    fires = Counter((run.schedule_id, run.expected_start_time.ToMicroseconds()) for run in runs)
    assert set(fires.values()) == {1}
    for schedule in schedules:
        own = sorted(instant for id, instant in fires if id == schedule.id)
        first = schedule.next_fire_time.ToMicroseconds()
        assert own == list(range(first, first + len(own) * SECOND, SECOND))


async def test_two_servers_and_no_instant_twice_or_never(tmp_path: Path, postgresql_url: str) -> None:
    database = await open_database(postgresql_url, clock=SystemClock())
    try:
        schedules = await every_second(database)
        begin = SystemClock().now()
        one = ServerProcess(tmp_path / "one", postgresql_url)
        with ServerProcess(tmp_path / "two", postgresql_url):
            with one:
                await until_all_reach(database, schedules, begin + 3 * SECOND)
                await asyncio.to_thread(one.kill)
            # The other one goes on by itself.
            await until_all_reach(database, schedules, SystemClock().now() + 2 * SECOND)
        check(schedules, await runs_of(database))
    finally:
        await database.close()


async def test_what_was_missed_while_no_server_was_there(tmp_path: Path, database_url: str) -> None:
    home = tmp_path / "home"
    with ServerProcess(home, database_url):
        pass  # makes the tables
    database = await open_database(database_url, clock=SystemClock())
    try:
        schedules = await every_second(database)
        for _ in range(2):
            with ServerProcess(home, database_url) as server:
                await until_all_reach(database, schedules, SystemClock().now() + SECOND)
                await asyncio.to_thread(server.kill)
            await asyncio.sleep(2)  # nobody is there, and instants pass
        with ServerProcess(home, database_url):
            await until_all_reach(database, schedules, SystemClock().now() + SECOND)
        check(schedules, await runs_of(database))
    finally:
        await database.close()
