"""How PostgreSQL finds the writer's rows: plans made over empty tables must not scan full ones."""

from __future__ import annotations

import asyncpg

from headrace_services.storage.database import open_database
from headrace_services.storage.urls import postgresql_dsn
from tests.storage.build import ManualClock, Recording, flow_run, run_of, state, task_run


async def test_recording_reads_no_table_from_end_to_end(postgresql_url: str, clock: ManualClock) -> None:
    database = await open_database(postgresql_url, clock=clock, read_pool_size=1)
    recording = Recording(database)
    await recording.open()
    flow = flow_run(state=state("RUNNING"))
    await recording.post(run_of(flow))
    for _ in range(20):  # well past the five executions after which a statement's plan stays
        tasks = [task_run(flow, state=state("PENDING")) for _ in range(10)]
        await recording.post(*map(run_of, tasks))
        for task in tasks[:2]:
            await recording.run_through(task, ["RUNNING", "COMPLETED"])
    await database.close()  # a session that ends gives its statistics away
    assert await rows_scanned(postgresql_url) == {}


async def rows_scanned(url: str) -> dict[str, int]:
    """Rows that sequential scans have read so far, by table of the hot path."""
    connection = await asyncpg.connect(postgresql_dsn(url))
    try:
        found = await connection.fetch(
            "SELECT relname, seq_tup_read FROM pg_stat_user_tables "
            "WHERE relname IN ('runs', 'run_states', 'recorders', 'flows') AND seq_tup_read > 0"
        )
    finally:
        await connection.close()
    return {row["relname"]: row["seq_tup_read"] for row in found}
