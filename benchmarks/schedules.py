"""Ten thousand one-minute schedules: when their runs are there, and how long others wait for that.

    python -m benchmarks.schedules [--schedules 10000] [--database sqlite|postgresql]

At one instant: all fire in the same second. Spread: they fire evenly over the minute; ten seconds of it are
watched. Each schedule has parameters of its own, so that nothing is computed once for all of them. The lag is
from a run's instant to the end of the commit that made it; negative: it was there before its time. CPU is
that of the process; PostgreSQL's own is not counted.

What others wait for is measured twice, without anything left out:

- a tick is one transaction of the scheduler, or one that gives runs their turn to be handed to workers when
  their time has come, from its begin until it is committed, waits for the disk included. For so long every
  other write waits. What a tick is not: the queueing before it, which is other people's writes.
- a hold is one callback of the event loop, of any origin, from the begin to the end of what was watched. For
  so long nothing is read, answered or handed out; time in which another thread has the interpreter counts.

A commit waits for the disk, which other programs write to as well: the slowest of 200 fdatasyncs on it stands
beside. HEADRACE_BENCH_DIR says which disk SQLite uses, TMPDIR which one PostgreSQL does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import pathlib
import statistics
import tempfile
import time
from bisect import bisect_left
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from benchmarks.machine import fsync_seconds
from benchmarks.processes import scratch_folder
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
GATE_TICK_SECONDS: Final = 0.1
GATE_HOLD_SECONDS: Final = 0.1
_SECOND: Final = 1_000_000
_AHEAD_SECONDS: Final = 22
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
        ticks: per transaction that made runs, seconds.
        turns: per transaction that gave runs their turn, seconds.
        holds: per callback of the event loop, seconds.
        cpu: per run made, microseconds.
    """

    lags: list[float]
    ticks: list[float]
    turns: list[float]
    holds: list[float]
    cpu: float


@contextmanager
def _watched_loop() -> Generator[list[float]]:
    """How long each callback of the event loop takes, seconds."""
    holds: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.perf_counter()
        run(handle)
        holds.append(time.perf_counter() - began)

    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
    try:
        yield holds
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


async def _watch(database: Database, until: int, expected: int) -> Result:
    """Schedule until so many runs are there, at most half a minute past the instant."""
    clock = SystemClock()
    ticks: list[float] = []
    ends: list[int] = []  # of the commits, which are one after the other
    made = 0
    do = database.writer.do

    async def timed(command: Command[Fired]) -> Fired:
        nonlocal made
        fired = await do(command)
        if isinstance(command, FireSchedules) and fired.runs:
            ticks.append(clock.monotonic() - command.began)
            ends.append(clock.now())
            made += fired.runs
        return fired

    database.writer.do = timed  # type: ignore[method-assign, assignment]
    cpu = time.process_time()
    with _watched_loop() as holds:
        task = asyncio.create_task(Scheduler(database, clock).loop.run())
        while made < expected and clock.now() < until + 30 * _SECOND:
            await database.signals.wait(database.signals.count, 0.1)
        cpu = time.process_time() - cpu
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        turns = await _turns(database, until)
    rows = await database._backend.fetch("SELECT create_time, expected_start_time FROM runs")
    lags = [(ends[bisect_left(ends, created)] - instant) / _SECOND for created, instant in rows]
    return Result(lags, ticks, turns, holds, cpu * 1e6 / max(made, 1))


async def _turns(database: Database, until: int) -> list[float]:
    """Wait until all runs are due, and give them their turn, as the dispatcher does."""
    await asyncio.sleep(max(0.0, (until - SystemClock().now()) / _SECOND))
    turns: list[float] = []
    is_exhausted = False
    while not is_exhausted:
        began = time.perf_counter()
        is_exhausted = (await database.writer.promote_due(0.0)).is_exhausted
        turns.append(time.perf_counter() - began)
    return turns


def _shown(kind: str, what: str, result: Result, folder: pathlib.Path) -> None:
    lags = sorted(result.lags)
    print(
        f"{kind}, {what}: {len(lags)} runs, {result.cpu:.0f} us CPU each\n"
        f"  lag                     p50 {statistics.median(lags):>7.2f} s   "
        f"p99 {lags[int(len(lags) * 0.99)]:>7.2f} s   last    {lags[-1]:>7.2f} s"
    )
    for name, seconds in (
        (f"tick, making runs {len(result.ticks):>5}", result.ticks),
        (f"tick, their turn  {len(result.turns):>5}", result.turns),
        (f"hold             {len(result.holds):>6}", result.holds),
        ("fdatasync           200", fsync_seconds(folder)),
    ):
        found = sorted(seconds)
        print(
            f"  {name} p50 {statistics.median(found) * 1e3:>7.1f} ms  "
            f"p99 {found[int(len(found) * 0.99)] * 1e3:>7.1f} ms  longest {found[-1] * 1e3:>7.1f} ms"
        )


async def _measure(
    kind: str, url: str, schedules: int, spread: bool, folder: pathlib.Path
) -> tuple[float, float, float]:
    """Print what was seen; the last lag, the longest tick and the longest hold, in seconds."""
    await migrations.upgrade(url)
    database = await open_database(url, clock=SystemClock())
    try:
        begin = SystemClock().now()
        begin += (_AHEAD_SECONDS + schedules // 2000) * _SECOND - begin % _SECOND
        step = 60 * _SECOND // schedules if spread else 0
        await database.writer.do(_Put([begin + number * step for number in range(schedules)]))
        if SystemClock().now() > begin - LEAD_MICROS:
            raise SystemExit("the schedules were not there in time: take fewer")
        gc.collect()
        gc.freeze()  # as a server does with what is there when it has started
        expected = schedules * _WATCHED_SECONDS // 60 if spread else schedules
        result = await _watch(database, begin + _WATCHED_SECONDS * _SECOND, expected)
    finally:
        await database.close()
    _shown(kind, "spread" if spread else "at one instant", result, folder)
    return max(result.lags), max(*result.ticks, *result.turns), max(result.holds)


def main() -> int:
    """Measure and print; 1 when a gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    worst = (0.0, 0.0, 0.0)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        for kind in [options.database] if options.database else ["sqlite", "postgresql"]:
            cluster = stack.enter_context(provide_cluster(_DURABLE)) if kind == "postgresql" else None
            for spread in (True, False):
                url = f"sqlite+aiosqlite:///{folder}/schedules-{spread}.db"
                disk = folder
                if cluster is not None:
                    url = stack.enter_context(cluster.database())
                    disk = pathlib.Path(tempfile.gettempdir())
                seen = asyncio.run(_measure(kind, url, options.schedules, spread, disk))
                worst = (max(worst[0], seen[0]), max(worst[1], seen[1]), max(worst[2], seen[2]))
    gates = (GATE_LAG_SECONDS, GATE_TICK_SECONDS, GATE_HOLD_SECONDS)
    for what, most, gate in zip(("run after its instant", "tick", "hold"), worst, gates, strict=True):
        print(f"{what + ', longest':<36} {most * 1e3:>8.0f} ms, gate {gate * 1e3:.0f} ms")
    return 0 if all(most <= gate for most, gate in zip(worst, gates, strict=True)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
