"""Records a flow run and a task run, says their ids, and waits to be killed.

    python recording_process.py ADDRESS SPOOL_ROOT

A line on standard input says whether it keeps a spool, as the real recorder does.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import grpc

from headrace.core.ids import new_id
from headrace.v1 import state_pb2
from tests.support.recording import RecordingClient, flow_run_entry, state_entry, task_run_entry
from tests.support.spools import write_spool


async def main(address: str, root: Path) -> None:
    flow, task, recorder_id = new_id(), new_id(), new_id()
    entries = [
        flow_run_entry(flow),
        task_run_entry(task, flow),
        state_entry(task, state_pb2.STATE_TYPE_RUNNING),
    ]
    if sys.stdin.readline().strip() == "with a spool":
        folder = write_spool(root, recorder_id, entries, pid=os.getpid())
        fcntl.flock(os.open(folder / "lock", os.O_RDWR), fcntl.LOCK_EX)
    async with grpc.aio.insecure_channel(address) as channel, RecordingClient(channel, recorder_id) as client:
        await client.record(*entries)
        print(flow, task, flush=True)
        await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
