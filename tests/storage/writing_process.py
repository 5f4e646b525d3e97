"""A process that records until it is killed, and writes down elsewhere what was acknowledged.

It prints an empty line after each acknowledgement.

python -m tests.storage.writing_process DATABASE_URL JOURNAL
"""

from __future__ import annotations

import asyncio
import os
import sys

from headrace.core.clock import SystemClock
from headrace_services.storage.database import open_database
from tests.storage.build import START, Recording, flow_run, record, run_of, state, task_run


async def main(url: str, journal_path: str) -> None:
    """Record for ever."""
    database = await open_database(url, clock=SystemClock())
    recording = Recording(database)
    await recording.open()
    flow = flow_run()
    await recording.post(run_of(flow), record(flow, state("RUNNING")))
    journal = os.open(journal_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(journal, f"recorder {recording.id}\n".encode())

    async def record_one(place: int) -> None:
        task = task_run(flow, f"step-{place}")
        outcome = await recording.post(
            run_of(task), record(task, state("RUNNING")), record(task, state("COMPLETED", START + 5))
        )
        os.write(journal, f"{outcome.durable_seq} {task.id}\n".encode())
        print(flush=True)

    place = 0
    while True:
        await asyncio.gather(*(record_one(place + i) for i in range(8)))
        place += 8


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
