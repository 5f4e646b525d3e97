"""A recorder reduced to the wire: entries, and one record stream by hand."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from types import TracebackType

import grpc

from headrace.core.clock import SystemClock
from headrace.core.ids import new_id
from headrace.v1 import log_pb2, record_service_pb2, record_service_pb2_grpc, run_pb2, state_pb2

__all__ = [
    "RecordingClient",
    "attempt_of",
    "flow_run_entry",
    "log_entry",
    "opening",
    "state",
    "state_entry",
    "task_run_entry",
]

_clock = SystemClock()


def state(kind: state_pb2.StateType.ValueType, name: str = "") -> state_pb2.State:
    """A state of that type, now."""
    made = state_pb2.State(id=new_id(), type=kind, name=name)
    made.event_time.FromMicroseconds(_clock.now())
    return made


def flow_run_entry(
    run_id: str, *, flow_name: str = "etl", tags: Sequence[str] = ()
) -> record_service_pb2.RecordEntry:
    """A flow run of this recorder's own, already running."""
    run = run_pb2.Run(
        id=run_id,
        kind=run_pb2.RUN_KIND_FLOW,
        name="wise-otter",
        flow_name=flow_name,
        root_run_id=run_id,
        owner_run_id=run_id,
        tags=tags,
        attempt=1,
        fence=1,
        state=state(state_pb2.STATE_TYPE_RUNNING),
    )
    return record_service_pb2.RecordEntry(run=run)


def task_run_entry(run_id: str, flow_run_id: str) -> record_service_pb2.RecordEntry:
    """A task run below a flow run, pending."""
    run = run_pb2.Run(
        id=run_id,
        kind=run_pb2.RUN_KIND_TASK,
        name="extract-0",
        flow_name="etl",
        task_name="extract",
        task_key="etl.extract",
        dynamic_key=run_id,
        root_run_id=flow_run_id,
        parent_run_id=flow_run_id,
        owner_run_id=flow_run_id,
        state=state(state_pb2.STATE_TYPE_PENDING),
    )
    return record_service_pb2.RecordEntry(run=run)


def attempt_of(run_id: str, fence: int = 1) -> run_pb2.AttemptRef:
    """The first attempt of a run."""
    return run_pb2.AttemptRef(run_id=run_id, attempt=1, fence=fence)


def state_entry(
    run_id: str, kind: state_pb2.StateType.ValueType, *, want_verdict: bool = False, fence: int = 1
) -> record_service_pb2.RecordEntry:
    """A state of a run."""
    entry = record_service_pb2.StateEntry(
        attempt=attempt_of(run_id, fence), state=state(kind), want_verdict=want_verdict
    )
    return record_service_pb2.RecordEntry(state=entry)


def log_entry(run_id: str, message: str) -> record_service_pb2.RecordEntry:
    """A log line of a run."""
    line = log_pb2.LogEntry(run_id=run_id, root_run_id=run_id, level=20, logger="tests", message=message)
    line.time.FromMicroseconds(_clock.now())
    return record_service_pb2.RecordEntry(log=line)


def opening(
    recorder_id: str, *, pid: int | None = None, host: str | None = None, protocol: tuple[int, int] = (1, 1)
) -> record_service_pb2.RecorderOpen:
    """The first message of a stream of this process."""
    return record_service_pb2.RecorderOpen(
        protocol_min=protocol[0],
        protocol_max=protocol[1],
        recorder_id=recorder_id,
        sdk=record_service_pb2.SdkInfo(
            name="headrace",
            version="test",
            language="python",
            host=socket.gethostname() if host is None else host,
            pid=os.getpid() if pid is None else pid,
        ),
    )


class RecordingClient:
    """One record stream; use it as a context manager.

    Attributes:
        recorder_id: whose stream it is.
        opened: the server's answer to the opening.
        next_seq: the sequence number of the next entry.
        durable_seq: the highest acknowledged sequence number.
        results: what the acknowledgements said of single entries.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        recorder_id: str | None = None,
        *,
        pid: int | None = None,
        host: str | None = None,
    ) -> None:
        self.recorder_id = recorder_id or new_id()
        self._opening = opening(self.recorder_id, pid=pid, host=host)
        self.call = record_service_pb2_grpc.RecordServiceStub(channel).Record()
        self.opened = record_service_pb2.RecorderOpened()
        self.next_seq = 1
        self.durable_seq = 0
        self.results: list[record_service_pb2.EntryResult] = []

    async def open(self) -> RecordingClient:
        await self.call.write(record_service_pb2.RecordRequest(open=self._opening))
        answer = await self.read()
        assert answer.HasField("opened"), answer
        self.opened = answer.opened
        self.durable_seq = self.opened.durable_seq
        self.next_seq = self.durable_seq + 1
        return self

    async def read(self) -> record_service_pb2.RecordResponse:
        """The next message; fails the test when the stream ends instead."""
        answer = await asyncio.wait_for(self.call.read(), 60)
        assert isinstance(answer, record_service_pb2.RecordResponse), "the stream has ended"
        return answer

    async def send(self, *entries: record_service_pb2.RecordEntry) -> int:
        """Sends one batch and does not wait; returns the last sequence number."""
        batch = record_service_pb2.RecordEntries(first_seq=self.next_seq, entries=entries)
        self.next_seq += len(entries)
        await self.call.write(record_service_pb2.RecordRequest(entries=batch))
        return self.next_seq - 1

    async def acknowledged(self, seq: int) -> None:
        """Reads until `seq` is durable."""
        while self.durable_seq < seq:
            answer = await self.read()
            assert answer.HasField("ack"), answer
            assert answer.ack.durable_seq > self.durable_seq
            self.durable_seq = answer.ack.durable_seq
            self.results.extend(answer.ack.results)

    async def record(self, *entries: record_service_pb2.RecordEntry) -> None:
        """Sends one batch and waits until it is durable."""
        await self.acknowledged(await self.send(*entries))

    async def renew(self, *executing: run_pb2.AttemptRef) -> record_service_pb2.RecordRenewed:
        """Renews the lease and waits for the answer."""
        renewal = record_service_pb2.RecorderRenew(executing=executing)
        await self.call.write(record_service_pb2.RecordRequest(renew=renewal))
        answer = await self.read()
        assert answer.HasField("renewed"), answer
        return answer.renewed

    async def seal(self) -> None:
        """Says that it is done, and reads to the stream's end."""
        seal = record_service_pb2.RecordRequest(seal=record_service_pb2.RecorderSeal())
        await self.call.write(seal)
        await self.call.done_writing()
        assert await asyncio.wait_for(self.call.read(), 60) is grpc.aio.EOF

    async def failure(self) -> grpc.aio.AioRpcError:
        """The error that the stream ends with."""
        try:
            while await asyncio.wait_for(self.call.read(), 60) is not grpc.aio.EOF:
                pass
            await self.call
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError(f"the stream ended with {await self.call.code()}")

    async def __aenter__(self) -> RecordingClient:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call.cancel()
