"""A worker that completes at once, without a process for each run: `dispatch.py ADDRESS`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import grpc.aio

from headrace.core.ids import new_id
from headrace.v1 import record_service_pb2 as records
from headrace.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc, state_pb2
from headrace.v1 import worker_service_pb2 as workers
from headrace.v1.record_service_pb2_grpc import RecordServiceStub
from headrace.v1.work_pool_pb2 import WorkPool
from headrace.v1.work_pool_service_pb2 import CreateWorkPoolRequest
from headrace.v1.work_pool_service_pb2_grpc import WorkPoolServiceStub
from headrace.v1.worker_service_pb2_grpc import WorkerServiceStub

_CREDIT = 200
_MOST_ENTRIES = 1000


async def _pool(channel: grpc.aio.Channel) -> str:
    """A pool that nobody else uses."""
    pool = WorkPool(name=f"bench-{new_id()}", type="process")
    await WorkPoolServiceStub(channel).CreateWorkPool(CreateWorkPoolRequest(work_pool=pool))
    return pool.name


async def _connect(channel: grpc.aio.Channel, pool: str, credit: int) -> Any:
    """The stream of a worker that was welcomed."""
    call: Any = WorkerServiceStub(channel).Connect()
    hello = workers.WorkerHello(
        protocol_min=1, protocol_max=1, worker_id=new_id(), name="bench", work_pool=pool, type="process"
    )
    hello.credit.granted_total = credit
    await call.write(workers.ConnectRequest(hello=hello))
    await call.read()
    return call


async def _create(channel: grpc.aio.Channel, pool: str) -> None:
    run = run_pb2.Run(id=new_id(), kind=run_pb2.RUN_KIND_FLOW, name="b", flow_name="bench", work_pool=pool)
    await run_service_pb2_grpc.RunServiceStub(channel).CreateRun(run_service_pb2.CreateRunRequest(run=run))


def _accept(assignment: workers.Assignment) -> workers.ConnectRequest:
    accept = workers.AssignmentReply.Accept()
    return workers.ConnectRequest(
        reply=workers.AssignmentReply(assignment_id=assignment.assignment_id, accept=accept)
    )


async def latency(address: str, count: int) -> list[float]:
    """Seconds from asking for a run to having it assigned, one after the other."""
    found: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        pool = await _pool(channel)
        call = await _connect(channel, pool, 8)
        for number in range(count):
            start = time.perf_counter()
            created = asyncio.create_task(_create(channel, pool))
            response = await call.read()
            found.append(time.perf_counter() - start)
            await created
            await call.write(_accept(response.assignment))
            await call.write(workers.ConnectRequest(credit=workers.WorkerCredit(granted_total=number + 9)))
        call.cancel()
    return found


async def rate(address: str, count: int) -> float:
    """Seconds until `count` runs that wait are assigned, accepted and durably completed."""
    async with grpc.aio.insecure_channel(address) as channel:
        pool = await _pool(channel)

        async def some(share: int) -> None:
            for _ in range(share):
                await _create(channel, pool)

        await asyncio.gather(*(some(count // 32) for _ in range(32)))
        count = count // 32 * 32
        record: Any = RecordServiceStub(channel).Record()
        opening = records.RecorderOpen(protocol_min=1, protocol_max=1, recorder_id=new_id())
        await record.write(records.RecordRequest(open=opening))
        await record.read()
        start = time.perf_counter()
        call = await _connect(channel, pool, _CREDIT)
        done = asyncio.create_task(_durable(record, 2 * count))
        await _complete(call, record, count)
        await done
        seconds = time.perf_counter() - start
        call.cancel()
        record.cancel()
        return seconds


async def _durable(record: Any, last: int) -> None:
    while (await record.read()).ack.durable_seq < last:
        pass


async def _complete(call: Any, record: Any, count: int) -> None:
    """Take `count` runs and complete each; what comes while the last ones are sent goes together."""
    arrived: asyncio.Queue[workers.Assignment] = asyncio.Queue()

    async def read() -> None:
        for _ in range(count):
            await arrived.put((await call.read()).assignment)

    reading = asyncio.create_task(read())
    taken, seq = 0, 1
    while taken < count:
        batch = [await arrived.get()]
        while not arrived.empty():
            batch.append(arrived.get_nowait())
        entries = [entry for assignment in batch for entry in _entries(assignment)]
        for first in range(0, len(entries), _MOST_ENTRIES):
            part = entries[first : first + _MOST_ENTRIES]
            message = records.RecordEntries(first_seq=seq, entries=part)
            await record.write(records.RecordRequest(entries=message))
            seq += len(part)
        for assignment in batch:
            await call.write(_accept(assignment))
        taken += len(batch)
        credit = workers.WorkerCredit(granted_total=_CREDIT + taken)
        await call.write(workers.ConnectRequest(credit=credit))
    await reading


def _entries(assignment: workers.Assignment) -> list[records.RecordEntry]:
    """The run begins and completes."""
    entries: list[records.RecordEntry] = []
    for type in (state_pb2.STATE_TYPE_RUNNING, state_pb2.STATE_TYPE_COMPLETED):
        state = state_pb2.State(id=new_id(), type=type)
        state.event_time.GetCurrentTime()
        entries.append(records.RecordEntry(state=records.StateEntry(attempt=assignment.attempt, state=state)))
    return entries


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["work"] == "latency":
            print(json.dumps({"seconds": asyncio.run(latency(sys.argv[1], asked["count"]))}), flush=True)
        else:
            print(json.dumps({"seconds": asyncio.run(rate(sys.argv[1], asked["count"]))}), flush=True)


main()
