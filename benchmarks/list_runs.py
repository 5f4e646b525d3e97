"""How long it takes to list the newest 50 of a million runs under a state and a tag filter.

    python -m benchmarks.list_runs [--runs 1000000] [--database sqlite|postgresql]

The rows are put into the tables directly, in numbers like those of a busy installation: nine task runs
to a flow run, nearly all completed, one tag that half of them have and one that hardly any has. The
gate is the slowest line's median.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import asyncpg

from headrace.core.clock import SystemClock
from headrace.core.ids import new_id
from headrace.core.states import StateType, default_name
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.state_pb2 import State
from headrace_services.storage import migrations
from headrace_services.storage.blobs import blob
from headrace_services.storage.columns import RUN_COLUMNS, RUN_ID_COLUMNS
from headrace_services.storage.database import Database, open_database
from headrace_services.storage.rows import encode_tags, flow_id_of
from headrace_services.storage.urls import postgresql_dsn, sqlite_path
from tests.support.postgres import provide_cluster

__all__ = ["QUERIES", "fill", "main"]

GATE_MILLISECONDS: Final = 20.0
_REPEATS: Final = 60
_CHUNK: Final = 20_000
_START: Final = 1_800_000_000_000_000
_SECOND: Final = 1_000_000
_STATE_COLUMNS: Final = ("run_id", "seq", "id", "type", "name", "event_time", "record_time", "body")
_TAG_COLUMNS: Final = ("tag", "kind", "state_type", "create_time", "run_id")


@dataclass(frozen=True)
class Query:
    """One line of the table."""

    title: str
    filter: RunFilter


QUERIES: Final = (
    Query("common state, common tag", RunFilter(state_types=[6], tags_all=["nightly"])),
    Query("rare state, common tag", RunFilter(state_types=[3], tags_all=["nightly"])),
    Query("common state, rare tag", RunFilter(state_types=[6], tags_all=["audit"])),
    Query("rare state, rare tag", RunFilter(state_types=[3], tags_all=["audit"])),
    Query("two states, common and rare tag", RunFilter(state_types=[6, 7], tags_all=["nightly", "audit"])),
    Query("any of two tags", RunFilter(state_types=[7], tags_any=["nightly", "audit"])),
    Query("flow runs, common state and tag", RunFilter(kinds=[1], state_types=[6], tags_all=["nightly"])),
    Query("one flow, rare state, common tag", RunFilter(
        kinds=[1], state_types=[7], flow_names=["flow-3"], tags_all=["nightly"])),
    Query("state only", RunFilter(state_types=[7])),
    Query("no filter", RunFilter()),
)  # fmt: skip


def _types(rng: random.Random) -> StateType:
    at = rng.random()
    if at < 0.0001:
        return StateType.RUNNING
    if at < 0.92:
        return StateType.COMPLETED
    return StateType.FAILED if at < 0.98 else StateType.CRASHED


_TAG_SHARES: Final = {"nightly": 0.5, "team-b": 0.05, "audit": 0.0001}


def _rows(number: int) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...], list[tuple[Any, ...]]]]:
    """A run, its state and its tags, `number` times; ids are text."""
    rng = random.Random(7)
    root = ""
    for place in range(number):
        kind = 1 if place % 10 == 0 else 2
        id, state_id, flow = new_id(), new_id(), f"flow-{rng.randrange(40)}"
        root = id if kind == 1 else root
        type, at = _types(rng), _START + place * 1000
        name, type_number = default_name(type), type.number
        tags = [tag for tag, share in _TAG_SHARES.items() if rng.random() < share]
        known = _common_values(at) | {
            "id": id,
            "kind": kind,
            "flow_id": flow_id_of(flow),
            "name": f"{flow}-{place}",
            "root_run_id": root,
            "owner_run_id": root,
            "parent_run_id": None if kind == 1 else root,
            "task_name": None if kind == 1 else "step",
            "tags": encode_tags(Run(tags=tags)),
            "state_type": type_number,
            "state_name": name,
            "state_id": state_id,
            "end_time": None if type is StateType.RUNNING else at + _SECOND,
            "spec": Run(kind=kind, flow_name=flow).SerializeToString(),  # type: ignore[arg-type]
        }
        run = tuple(known.get(column) for column in RUN_COLUMNS)
        body = State(id=state_id, type=type_number, name=name).SerializeToString()  # type: ignore[arg-type]
        history = (id, 1, state_id, type_number, name, at, at, body)
        yield run, history, [(tag, kind, type_number, at, id) for tag in tags]


def _common_values(at: int) -> dict[str, Any]:
    """What all runs say, but for the instant."""
    return {
        **dict.fromkeys(("state_time", "create_time", "start_time", "expected_start_time"), at),
        **dict.fromkeys(("state_seq", "attempt", "fence", "run_count", "version"), 1),
        **dict.fromkeys(("flow_run_count", "retry_type"), 0),
        **dict.fromkeys(("is_presumed", "is_resuming"), False),
        "pause_keys": "",
        "total_run_time": _SECOND,
    }


def _chunks(number: int) -> Iterator[tuple[list[Any], list[Any], list[Any]]]:
    rows = _rows(number)
    while chunk := list(islice(rows, _CHUNK)):
        yield [r[0] for r in chunk], [r[1] for r in chunk], [tag for r in chunk for tag in r[2]]


async def fill(url: str, number: int) -> None:
    """Make the tables in the empty database of `url`, and put `number` runs into them."""
    await migrations.upgrade(url)
    if url.startswith("sqlite"):
        await asyncio.to_thread(_fill_sqlite, sqlite_path(url), number)
    else:
        await _fill_postgresql(url, number)


def _fill_sqlite(path: Path, number: int) -> None:
    ids = [i for i, name in enumerate(RUN_COLUMNS) if name in RUN_ID_COLUMNS]
    statements = [
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        for table, columns in (
            ("runs", RUN_COLUMNS),
            ("run_states", _STATE_COLUMNS),
            ("run_tags", _TAG_COLUMNS),
        )
    ]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for runs, states, tags in _chunks(number):
            connection.executemany(statements[0], [_blobs(run, ids) for run in runs])
            connection.executemany(statements[1], [_blobs(state, [0, 2]) for state in states])
            connection.executemany(statements[2], [_blobs(tag, [4]) for tag in tags])
            connection.commit()


def _blobs(row: tuple[Any, ...], positions: list[int]) -> tuple[Any, ...]:
    values = list(row)
    for position in positions:
        values[position] = None if values[position] is None else blob(values[position])
    return tuple(values)


async def _fill_postgresql(url: str, number: int) -> None:
    connection: Any = await asyncpg.connect(postgresql_dsn(url))
    try:
        for runs, states, tags in _chunks(number):
            await connection.copy_records_to_table("runs", records=runs, columns=RUN_COLUMNS)
            await connection.copy_records_to_table("run_states", records=states, columns=_STATE_COLUMNS)
            await connection.copy_records_to_table("run_tags", records=tags, columns=_TAG_COLUMNS)
        # As a database that has lived for a while; autovacuum would come in the middle of the measurement.
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


async def _measure(database: Database, query: Query) -> tuple[int, float, float]:
    """Runs on the page, and the median and the 95th percentile in milliseconds."""
    found, times = 0, []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        runs, _token = await database.reader.list_runs(query.filter, page_size=50)
        times.append((time.perf_counter() - began) * 1000)
        found = len(runs)
    return found, statistics.median(times), statistics.quantiles(times, n=20)[-1]


async def _run(kind: str, url: str, number: int) -> float:
    """Fill the database, print its part of the table; the slowest median."""
    began = time.perf_counter()
    await fill(url, number)
    print(f"{kind}: {number:,} runs, filled in {time.perf_counter() - began:.0f} s")
    database = await open_database(url, clock=SystemClock())
    slowest = 0.0
    try:
        for query in QUERIES:
            found, median, most = await _measure(database, query)
            print(f"  {query.title:<34} {found:>3} rows   p50 {median:6.2f} ms   p95 {most:6.2f} ms")
            slowest = max(slowest, median)
    finally:
        await database.close()
    return slowest


def main() -> int:
    """Measure and print; 1 when the gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    slowest = 0.0
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-"))
        for kind in [options.database] if options.database else ["sqlite", "postgresql"]:
            if kind == "sqlite":
                url = f"sqlite+aiosqlite:///{folder}/runs.db"
            else:
                url = stack.enter_context(stack.enter_context(provide_cluster()).database())
            slowest = max(slowest, asyncio.run(_run(kind, url, options.runs)))
    print(f"slowest p50 {slowest:.2f} ms, gate {GATE_MILLISECONDS:.0f} ms")
    return 0 if slowest <= GATE_MILLISECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
