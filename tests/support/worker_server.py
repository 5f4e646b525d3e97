"""A server of workers' streams that does what it is told, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import grpc.aio

from headrace.core.ids import new_id
from headrace.v1 import worker_service_pb2 as pb
from headrace.v1 import worker_service_pb2_grpc as pb_grpc
from headrace_workers.actions import Attempt

__all__ = ["Stream", "WorkerServer"]


class Stream:
    """One stream, as the server sees it.

    Attributes:
        hello: its first message.
        came: everything after it.
        ended: how it ended: "goodbye", "end" or "broken"; empty while it has not.
    """

    def __init__(self, hello: pb.WorkerHello) -> None:
        self.hello = hello
        self.came: list[pb.ConnectRequest] = []
        self.ended = ""
        self.outbox: asyncio.Queue[pb.ConnectResponse | None] = asyncio.Queue()

    def say(self, **message: Any) -> None:
        """Send something."""
        self.outbox.put_nowait(pb.ConnectResponse(**message))

    def end(self) -> None:
        """End it without a word."""
        self.outbox.put_nowait(None)

    def assign(self, attempt: Attempt, **more: Any) -> None:
        """Hand a run over."""
        message = pb.Assignment(assignment_id=new_id(), attempt=attempt.to_message(), **more)
        message.run.id = attempt.run_id
        self.say(assignment=message)

    def of(self, kind: str) -> list[Any]:
        """The messages of one kind that have come."""
        return [getattr(r, kind) for r in self.came if r.WhichOneof("message") == kind]


class WorkerServer(pb_grpc.WorkerServiceServicer):
    """Serves on a port of 127.0.0.1; `async with` it.

    Attributes:
        streams: all that there were.
        heartbeat_seconds: what workers are told.
        answers: whether heartbeats are answered.
        refuse: raises for a hello that is not wanted.
    """

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.heartbeat_seconds = 0.2
        self.answers = True
        self.port = 0
        self.refuse: Callable[[pb.WorkerHello], tuple[grpc.StatusCode, str] | None] = lambda _: None
        self._sessions: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._server: Any = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the port of the time before if there was one."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        pb_grpc.add_WorkerServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Cut every stream."""
        for stream in self.streams:
            stream.end()
        await self._server.stop(None)

    async def until(self, condition: Callable[[], Any], timeout_seconds: float = 20.0) -> Any:
        """What `condition` gives once that is true; it is asked whenever something has come.

        Raises:
            TimeoutError: it was not within the time.
        """
        async with asyncio.timeout(timeout_seconds), self._changed:
            while not (found := condition()):
                await self._changed.wait()
            return found

    async def connected(self, count: int = 1) -> Stream:
        """The stream of that number, from 1, once it is there."""
        await self.until(lambda: len(self.streams) >= count)
        return self.streams[count - 1]

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def Connect(
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: Any
    ) -> AsyncIterator[pb.ConnectResponse]:
        first = await anext(request_iterator)
        refused = self.refuse(first.hello)
        if refused is not None:
            await context.abort(*refused)
        stream = Stream(first.hello)
        stream.say(welcome=self._welcome(first.hello))
        reader = asyncio.ensure_future(self._read(stream, request_iterator))
        self.streams.append(stream)
        await self._notify()
        try:
            while (message := await stream.outbox.get()) is not None:
                yield message
        finally:
            reader.cancel()
            stream.ended = stream.ended or "broken"

    def _welcome(self, hello: pb.WorkerHello) -> pb.ServerWelcome:
        session_id = hello.session_id or new_id()
        epoch = self._sessions[session_id] = self._sessions.get(session_id, 0) + 1
        welcome = pb.ServerWelcome(protocol=1, session_id=session_id, session_epoch=epoch)
        welcome.heartbeat_interval.FromMicroseconds(int(self.heartbeat_seconds * 1e6))
        welcome.lease_ttl.FromMicroseconds(int(self.heartbeat_seconds * 6e6))
        return welcome

    async def _read(self, stream: Stream, requests: AsyncIterator[pb.ConnectRequest]) -> None:
        async for request in requests:
            stream.came.append(request)
            kind = request.WhichOneof("message")
            if kind == "heartbeat" and self.answers:
                reports = [report.report_seq for report in stream.of("report")]
                ack = pb.HeartbeatAck(seq=request.heartbeat.seq, report_seq=max(reports, default=0))
                stream.say(heartbeat_ack=ack)
            if kind == "goodbye":
                stream.ended = "goodbye"
                stream.end()
            await self._notify()
        stream.ended = stream.ended or "end"
        stream.end()
        await self._notify()
