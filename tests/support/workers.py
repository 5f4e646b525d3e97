"""A worker reduced to the wire: one `Connect` stream by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import grpc

from headrace.core.clock import SystemClock
from headrace.core.ids import new_id
from headrace.v1 import record_service_pb2, run_pb2, state_pb2, worker_pb2
from headrace.v1 import worker_service_pb2 as pb
from headrace.v1.worker_service_pb2_grpc import WorkerServiceStub

__all__ = ["WireWorker", "complete", "held"]

_clock = SystemClock()
_PATIENCE_SECONDS = 20.0


def held(
    attempt: run_pb2.AttemptRef,
    phase: worker_pb2.AttemptPhase.ValueType = worker_pb2.ATTEMPT_PHASE_EXECUTING,
) -> worker_pb2.HeldAttempt:
    """An attempt that the worker names in a heartbeat."""
    return worker_pb2.HeldAttempt(attempt=attempt, phase=phase)


class WireWorker:
    """One stream of one worker; says only what it is told to say.

    Attributes:
        hello: what it says first; change it before it is entered.
        welcome: the answer.
        assignments: all that came, in order.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        pool: str = "default",
        *,
        credit: int = 0,
        worker_id: str = "",
        session_id: str = "",
        **hello: Any,
    ) -> None:
        kind = (
            {} if {"task_keys", "deployment_ids"} & hello.keys() else {"work_pool": pool, "type": "process"}
        )
        said: dict[str, Any] = {"name": "otter", **kind, **hello}
        self.hello = pb.WorkerHello(
            protocol_min=1,
            protocol_max=1,
            worker_id=worker_id or new_id(),
            session_id=session_id,
            credit=pb.WorkerCredit(granted_total=credit),
            **said,
        )
        self.granted = credit
        self.welcome = pb.ServerWelcome()
        self.assignments: list[pb.Assignment] = []
        self._seq = 0
        # A stream takes one write at a time, and tests beat while they say other things.
        self._writing = asyncio.Lock()
        self._call: Any = WorkerServiceStub(channel).Connect()
        self._received: list[pb.ConnectResponse] = []
        self._news = asyncio.Event()
        self._error: BaseException | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.say(hello=self.hello)
        self._reader = asyncio.create_task(self._read())
        self.welcome = (await self.expect("welcome")).welcome
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    @property
    def session_id(self) -> str:
        """Of the session that it was welcomed with."""
        return self.welcome.session_id

    def cut(self) -> None:
        """Break the stream without a word."""
        self._call.cancel()

    async def _read(self) -> None:
        try:
            async for message in self._call:
                if message.WhichOneof("message") == "assignment":
                    self.assignments.append(message.assignment)
                self._received.append(message)
                self._news.set()
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            self._error = error
        finally:
            self._error = self._error or EOFError("the server ended the stream")
            self._news.set()

    async def expect(
        self, kind: str, where: Callable[[Any], bool] = lambda _: True, timeout: float = _PATIENCE_SECONDS
    ) -> pb.ConnectResponse:
        """The next message of that kind, which is taken; others stay.

        Raises:
            TimeoutError: none came.
            grpc.aio.AioRpcError, EOFError: the stream ended first.
        """
        async with asyncio.timeout(timeout):
            while True:
                for index, message in enumerate(self._received):
                    if message.WhichOneof("message") == kind and where(getattr(message, kind)):
                        return self._received.pop(index)
                if self._error is not None:
                    raise self._error
                self._news.clear()
                await self._news.wait()

    async def ended(self) -> BaseException:
        """What the stream ended with."""
        assert self._reader is not None
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._reader
        assert self._error is not None
        return self._error

    async def assignment(self) -> pb.Assignment:
        """The next assignment."""
        return (await self.expect("assignment")).assignment

    def has(self, kind: str) -> bool:
        """Whether a message of that kind is there."""
        return any(message.WhichOneof("message") == kind for message in self._received)

    async def say(self, **message: Any) -> None:
        """Send one message, given by its field.

        Raises:
            EOFError: the stream has ended.
        """
        try:
            async with self._writing:
                await self._call.write(pb.ConnectRequest(**message))
        except (asyncio.CancelledError, asyncio.InvalidStateError, grpc.aio.UsageError):
            # A write on a stream that has ended looks as if its task were cancelled.
            if self._call.done():
                raise EOFError("the stream has ended") from None
            raise

    async def grant(self, more: int) -> None:
        """Take so many more runs."""
        self.granted += more
        await self.say(credit=pb.WorkerCredit(granted_total=self.granted))

    async def accept(self, assignment: pb.Assignment) -> None:
        """Answer for the assignment."""
        accept = pb.AssignmentReply.Accept()
        await self.say(reply=pb.AssignmentReply(assignment_id=assignment.assignment_id, accept=accept))

    async def refuse(self, assignment: pb.Assignment, reason: str = "full", **refuse: Any) -> None:
        """Do not take the assignment."""
        said = pb.AssignmentReply.Refuse(reason=reason, **refuse)
        await self.say(reply=pb.AssignmentReply(assignment_id=assignment.assignment_id, refuse=said))

    async def heartbeat(self, *attempts: run_pb2.AttemptRef) -> pb.HeartbeatAck:
        """Name everything that it holds; the answer."""
        self._seq += 1
        held_ones = [held(attempt) for attempt in attempts]
        await self.say(heartbeat=pb.WorkerHeartbeat(seq=self._seq, held=held_ones))
        seq = self._seq
        return (await self.expect("heartbeat_ack", lambda ack: ack.seq >= seq)).heartbeat_ack

    async def report_exit(
        self, attempt: run_pb2.AttemptRef, seq: int, exit_code: int | None = None, **exited: Any
    ) -> None:
        """Say that the infrastructure of an attempt is gone."""
        said = pb.AttemptReport.InfrastructureExited(exit_code=exit_code, **exited)
        await self.say(report=pb.AttemptReport(attempt=attempt, exited=said, report_seq=seq))

    async def goodbye(self, released: Iterable[run_pb2.AttemptRef] = ()) -> None:
        """Leave, and give back what is named."""
        await self.say(goodbye=pb.WorkerGoodbye(released=released))


def complete(attempt: run_pb2.AttemptRef) -> list[record_service_pb2.RecordEntry]:
    """The entries of a run that begins and completes at once in the attempt."""
    entries: list[record_service_pb2.RecordEntry] = []
    for type in (state_pb2.STATE_TYPE_RUNNING, state_pb2.STATE_TYPE_COMPLETED):
        state = state_pb2.State(id=new_id(), type=type)
        state.event_time.FromMicroseconds(_clock.now())
        entries.append(
            record_service_pb2.RecordEntry(state=record_service_pb2.StateEntry(attempt=attempt, state=state))
        )
    return entries
