"""Ten thousand one-minute schedules: when their runs are there, and what one look of the scheduler costs.

    python -m benchmarks.schedules [--schedules 10000] [--database sqlite|postgresql]

At one instant: all fire in the same second. Spread: they fire evenly over the minute; ten seconds of it are
watched. Each schedule has parameters of its own, so that nothing is computed once for all of them. The lag is
from a run's instant to the end of the commit that made it; negative: it was there before its time. A look is
one transaction, the longest that anything else has to wait for. CPU is that of the process; PostgreSQL's own
is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from bisect import bisect_left
from contextlib import ExitStack
from typing import Final, NamedTuple

from headrace.core.clock import SystemClock, from_micros
from headrace.core.ids import new_id
from headrace.core.schedules.messages import anchor_text
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.schedule_pb2 import Schedule
from headrace_services.domain.schedules import LEAD_MICROS
from headrace_services.loops.scheduler import Scheduler
from headrace_services.storage import migrations
from headrace_services.storage.command import Command
from headrace_services.storage.database import Database, open_database
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.rows import flow_id_of
from headrace_services.storage.schedule_changes import start_firing
from headrace_services.storage.schedule_firing import Fired, FireSchedules
from headrace_services.storage.schedule_rows import ScheduleRow, checked_spec
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work
from tests.support.postgres import provide_cluster

__all__ = ["main"]

GATE_LAG_SECONDS: Final = 1.0
GATE_LOOK_SECONDS: Final = 0.1
_SECOND: Final = 1_000_000
_AHEAD_SECONDS: Final = 25
_WATCHED_SECONDS: Final = 10
_DURABLE: Final = {"fsync": "on", "full_page_writes": "on"}


class _Put(Command[None]):
    """A deployment, and schedules whose n-th fires at the n-th of the instants and every minute after."""

    is_solo = True

    def __init__(self, instants: list[int]) -> None:
        super().__init__()
        self._instants = instants

    def apply(self, work: Work) -> Steps[None]:
        said = Deployment(flow_name="etl", name=new_id(), parameters='{"table": "all"}', tags=["bench"])
        deployment = DeploymentRow(
            *(new_id(), flow_id_of("etl"), "etl", said.name, False, None, None, None, None),
            *(new_id(), 1, work.now, work.now, "", "", said.SerializeToString()),
        )
        work.rows.put(deployment)
        for number, instant in enumerate(self._instants):
            schedule = Schedule(parameters=json.dumps({"table": f"table-{number}"}))
            schedule.interval.interval.FromSeconds(60)
            schedule.interval.anchor = anchor_text(from_micros(instant), "")
            schedule.start.FromMicroseconds(instant)
            row = ScheduleRow(
                *(new_id(), deployment.id, f"s{number}", False, None, None, None, None, 0, 0, "", ""),
                *(work.now, work.now, "", checked_spec(schedule, work.now)),
            )
            start_firing(work, deployment, row)
            work.rows.put(row)
        yield from ()


class Result(NamedTuple):
    """What was seen.

    Attributes:
        lags: per run, seconds.
        looks: per transaction that made runs, seconds.
        cpu: per run, microseconds.
    """

    lags: list[float]
    looks: list[float]
    cpu: float


async def _watch(database: Database, until: int, expected: int) -> Result:
    """Schedule until so many runs are there, at most half a minute past the instant."""
    clock = SystemClock()
    looks: list[float] = []
    ends: list[int] = []  # of the commits, which are one after the other
    made = 0
    do = database.writer.do

    async def timed(command: Command[Fired]) -> Fired:
        nonlocal made
        began = time.perf_counter()
        fired = await do(command)
        if isinstance(command, FireSchedules) and fired.runs:
            looks.append(time.perf_counter() - began)
            ends.append(clock.now())
            made += fired.runs
        return fired

    database.writer.do = timed  # type: ignore[method-assign, assignment]
    cpu = time.process_time()
    task = asyncio.create_task(Scheduler(database, clock).loop.run())
    while made < expected and clock.now() < until + 30 * _SECOND:
        await database.signals.wait(database.signals.count, 0.1)
    cpu = time.process_time() - cpu
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    rows = await database._backend.fetch("SELECT create_time, expected_start_time FROM runs")
    lags = [(ends[bisect_left(ends, created)] - instant) / _SECOND for created, instant in rows]
    return Result(lags, looks, cpu * 1e6 / max(made, 1))


def _shown(kind: str, what: str, result: Result) -> None:
    lags, looks = sorted(result.lags), sorted(result.looks)
    print(
        f"{kind:<10}  {what:<14}  {len(lags):>6} runs  lag p50 {statistics.median(lags):>6.2f} s  "
        f"p99 {lags[int(len(lags) * 0.99)]:>6.2f} s  last {lags[-1]:>6.2f} s  "
        f"look p50 {statistics.median(looks) * 1e3:>6.1f} ms  longest {looks[-1] * 1e3:>6.1f} ms  "
        f"{result.cpu:>6.0f} us CPU each"
    )


async def _measure(kind: str, url: str, schedules: int, spread: bool) -> tuple[float, float]:
    """Print one line; the last lag and the longest look, in seconds."""
    await migrations.upgrade(url)
    database = await open_database(url, clock=SystemClock())
    try:
        begin = SystemClock().now()
        begin += (_AHEAD_SECONDS + schedules // 1000) * _SECOND - begin % _SECOND
        step = 60 * _SECOND // schedules if spread else 0
        await database.writer.do(_Put([begin + number * step for number in range(schedules)]))
        if SystemClock().now() > begin - LEAD_MICROS:
            raise SystemExit("the schedules were not there in time: take fewer")
        expected = schedules * _WATCHED_SECONDS // 60 if spread else schedules
        result = await _watch(database, begin + _WATCHED_SECONDS * _SECOND, expected)
    finally:
        await database.close()
    _shown(kind, "spread" if spread else "at one instant", result)
    return max(result.lags), max(result.looks)


def main() -> int:
    """Measure and print; 1 when a gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    worst = (0.0, 0.0)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-"))
        for kind in [options.database] if options.database else ["sqlite", "postgresql"]:
            cluster = stack.enter_context(provide_cluster(_DURABLE)) if kind == "postgresql" else None
            for spread in (True, False):
                url = f"sqlite+aiosqlite:///{folder}/schedules-{spread}.db"
                if cluster is not None:
                    url = stack.enter_context(cluster.database())
                seen = asyncio.run(_measure(kind, url, options.schedules, spread))
                worst = (max(worst[0], seen[0]), max(worst[1], seen[1]))
    print(f"last run {worst[0]:.2f} s after its instant, gate {GATE_LAG_SECONDS:g} s")
    print(f"longest look {worst[1] * 1e3:.0f} ms, gate {GATE_LOOK_SECONDS * 1e3:.0f} ms")
    return 0 if worst[0] <= GATE_LAG_SECONDS and worst[1] <= GATE_LOOK_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
