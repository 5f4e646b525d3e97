"""Task runs over a real record stream, batched as the SDK does: `recordings.py ADDRESS`.

One task run is a run entry with its first state, and two more states. So many batches are on their way at
once; each line of standard input asks for so many task runs and is answered when all are durable.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator

import grpc

from headrace.core.ids import new_id
from headrace.v1 import record_service_pb2, record_service_pb2_grpc, run_pb2, state_pb2

_FENCE = 1
_BATCH_TASKS = 33
_BATCHES_IN_FLIGHT = 4


def _state(kind: state_pb2.StateType.ValueType) -> state_pb2.State:
    state = state_pb2.State(id=new_id(), type=kind)
    state.event_time.GetCurrentTime()
    return state


def _attempt(run_id: str) -> run_pb2.AttemptRef:
    return run_pb2.AttemptRef(run_id=run_id, attempt=1, fence=_FENCE)


def _change(
    run_id: str, owner_id: str, kind: state_pb2.StateType.ValueType
) -> record_service_pb2.RecordEntry:
    entry = record_service_pb2.StateEntry(attempt=_attempt(run_id), state=_state(kind))
    return record_service_pb2.RecordEntry(state=entry)


def _run(run_id: str, owner_id: str) -> record_service_pb2.RecordEntry:
    is_task = run_id != owner_id
    run = run_pb2.Run(
        id=run_id,
        kind=run_pb2.RUN_KIND_TASK if is_task else run_pb2.RUN_KIND_FLOW,
        name="step-1",
        flow_name="recorded",
        task_key="recorded.step" if is_task else "",
        task_name="step" if is_task else "",
        dynamic_key=run_id if is_task else "",
        root_run_id=owner_id,
        parent_run_id=owner_id if is_task else "",
        owner_run_id=owner_id,
        attempt=1,
        fence=_FENCE,
        state=_state(state_pb2.STATE_TYPE_PENDING if is_task else state_pb2.STATE_TYPE_RUNNING),
    )
    return record_service_pb2.RecordEntry(run=run)


def _task(owner_id: str) -> list[record_service_pb2.RecordEntry]:
    run_id = new_id()
    return [
        _run(run_id, owner_id),
        _change(run_id, owner_id, state_pb2.STATE_TYPE_RUNNING),
        _change(run_id, owner_id, state_pb2.STATE_TYPE_COMPLETED),
    ]


class Recorder:
    """One recorder with its stream."""

    def __init__(self, stub: record_service_pb2_grpc.RecordServiceAsyncStub) -> None:
        self._call = stub.Record()
        self._next_seq = 1
        self._durable = 0

    async def open(self) -> None:
        opening = record_service_pb2.RecorderOpen(protocol_min=1, protocol_max=1, recorder_id=new_id())
        await self._call.write(record_service_pb2.RecordRequest(open=opening))
        await self._call.read()

    async def record(self, batches: AsyncIterator[list[record_service_pb2.RecordEntry]]) -> None:
        """Sends the batches, so many at a time, until all of them are durable."""
        ends: list[int] = []
        async for entries in batches:
            batch = record_service_pb2.RecordEntries(first_seq=self._next_seq, entries=entries)
            await self._call.write(record_service_pb2.RecordRequest(entries=batch))
            self._next_seq += len(entries)
            ends.append(self._next_seq - 1)
            if len(ends) >= _BATCHES_IN_FLIGHT:
                await self._until(ends[-_BATCHES_IN_FLIGHT])
        await self._until(self._next_seq - 1)

    async def _until(self, seq: int) -> None:
        while self._durable < seq:
            answer = await self._call.read()
            assert isinstance(answer, record_service_pb2.RecordResponse), "the stream has ended"
            assert not answer.ack.results, answer
            self._durable = answer.ack.durable_seq


async def _batches(count: int) -> AsyncIterator[list[record_service_pb2.RecordEntry]]:
    flow = new_id()
    yield [_run(flow, flow)]
    for begin in range(0, count, _BATCH_TASKS):
        size = min(_BATCH_TASKS, count - begin)
        yield [entry for _ in range(size) for entry in _task(flow)]
    yield [_change(flow, flow, state_pb2.STATE_TYPE_COMPLETED)]


async def main(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        recorder = Recorder(record_service_pb2_grpc.RecordServiceStub(channel))  # type: ignore[arg-type]
        await recorder.open()
        while line := await asyncio.to_thread(sys.stdin.readline):
            start = time.perf_counter()
            await recorder.record(_batches(json.loads(line)["count"]))
            print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


asyncio.run(main(sys.argv[1]))
