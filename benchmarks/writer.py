"""What recording one task run costs the server: its CPU in the writer, and how many go through.

    python -m benchmarks.writer [--tasks 10000] [--database sqlite|postgresql]

One task run is one run and three states, in batches as they come off the wire, four of them in flight.
CPU is that of the process; PostgreSQL's own is not counted. Medians of five rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import ExitStack
from typing import Final

from headrace.core.clock import SystemClock
from headrace.core.ids import new_id
from headrace.v1.record_service_pb2 import RecordEntry, RecorderOpen
from headrace.v1.run_pb2 import RUN_KIND_FLOW, RUN_KIND_TASK, Run
from headrace_services.storage import migrations
from headrace_services.storage.database import Database, open_database
from tests.support.postgres import provide_cluster

__all__ = ["main"]

GATE_MICROSECONDS: Final = 100.0
_ROUNDS: Final = 5
_BATCHES: Final = (1, 10, 100, 250)
_IN_FLIGHT: Final = 4
_DURABLE: Final = {"fsync": "on", "full_page_writes": "on"}


def _task(flow_id: str, place: int) -> list[RecordEntry]:
    """The entries of one task run."""
    id = new_id()
    run = Run(id=id, kind=RUN_KIND_TASK, name=f"step-{place}", task_name="step", task_key="pipeline.step")
    run.flow_name, run.root_run_id, run.parent_run_id, run.dynamic_key = (
        "pipeline",
        flow_id,
        flow_id,
        str(place),
    )
    entries = [RecordEntry(run=run)]
    for type in (2, 3, 6):
        entry = RecordEntry()
        entry.state.attempt.run_id, entry.state.attempt.attempt, entry.state.attempt.fence = id, 1, 1
        entry.state.state.id, entry.state.state.type = new_id(), type  # type: ignore[assignment]
        entry.state.state.event_time.FromMicroseconds(time.time_ns() // 1000)
        entries.append(entry)
    return [RecordEntry.FromString(entry.SerializeToString()) for entry in entries]


async def _round(database: Database, tasks: int, batch: int) -> tuple[float, float]:
    """Task runs per second, and microseconds of CPU per task run."""
    writer, recorder, flow_id = database.writer, new_id(), new_id()
    await writer.open_recorder(RecorderOpen(recorder_id=recorder), "benchmark", 60)
    flow = Run(id=flow_id, kind=RUN_KIND_FLOW, name="pipeline", flow_name="pipeline")
    await writer.record(recorder, 1, [RecordEntry(run=flow)])
    batches = [
        [entry for place in range(start, min(start + batch, tasks)) for entry in _task(flow_id, place)]
        for start in range(0, tasks, batch)
    ]
    seq = 2
    cpu, began = time.process_time(), time.perf_counter()
    for start in range(0, len(batches), _IN_FLIGHT):
        calls = []
        for entries in batches[start : start + _IN_FLIGHT]:
            calls.append(writer.record(recorder, seq, entries))
            seq += len(entries)
        await asyncio.gather(*calls)
    cpu, elapsed = time.process_time() - cpu, time.perf_counter() - began
    return tasks / elapsed, cpu * 1e6 / tasks


async def _measure(kind: str, url: str, tasks: int) -> float:
    """Print the lines of one database; the median at batches of 100."""
    await migrations.upgrade(url)
    database = await open_database(url, clock=SystemClock())
    judged = 0.0
    try:
        for batch in _BATCHES:
            number = min(tasks, batch * 400)
            rounds = [await _round(database, number, batch) for _ in range(_ROUNDS)]
            rate, cost = (statistics.median(values) for values in zip(*rounds, strict=True))
            print(f"{kind:<10}  batches of {batch:>3} task runs  {rate:>8,.0f}/s  {cost:>7.1f} us CPU each")
            judged = cost if batch == 100 else judged
    finally:
        await database.close()
    return judged


def main() -> int:
    """Measure and print; 1 when the gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    worst = 0.0
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-"))
        for kind in [options.database] if options.database else ["sqlite", "postgresql"]:
            if kind == "sqlite":
                url = f"sqlite+aiosqlite:///{folder}/writer.db"
            else:
                url = stack.enter_context(stack.enter_context(provide_cluster(_DURABLE)).database())
            worst = max(worst, asyncio.run(_measure(kind, url, options.tasks)))
    print(f"in batches of 100: at most {worst:.1f} us, gate {GATE_MICROSECONDS:.0f} us")
    return 0 if worst <= GATE_MICROSECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
