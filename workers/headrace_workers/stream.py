"""The streams of a session over real connections: what it wants written is written, what comes is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import grpc.aio

from headrace.client.errors import from_rpc_error
from headrace.client.streaming import raise_status, read_message
from headrace.core.errors import ServiceError
from headrace.v1.worker_service_pb2 import Assignment, ConnectRequest, ConnectResponse
from headrace_workers.actions import (
    Attempt,
    Begin,
    Cancel,
    Close,
    Finish,
    FoundInfrastructure,
    Kill,
    LetGo,
    Notice,
    Open,
    Remove,
    Send,
)
from headrace_workers.session import WorkerSession

__all__ = ["Dial", "Executor", "SessionDriver"]

Dial: TypeAlias = Callable[[], Awaitable[tuple[str, Any]]]
"""Gives the address of the server and a channel to it, each time a new one."""

METHOD: Final = "/headrace.v1.WorkerService/Connect"
_FLUSH_SECONDS: Final = 2.0
"""How long a stream that is being ended may take to write what was sent."""


class Executor(Protocol):
    """What starts and ends infrastructure. None of these may block or raise."""

    def begin(self, attempt: Attempt, assignment: Assignment) -> None:
        """Start it, and tell the driver of its start and end."""
        ...

    def cancel(self, attempt: Attempt, grace_seconds: float, reason: str) -> None:
        """Let it end by itself, then make it end."""
        ...

    def kill(self, attempt: Attempt, reason: str) -> None:
        """End it now."""
        ...

    def let_go(self, attempt: Attempt) -> None:
        """Have nothing to do with it any more."""
        ...

    def remove(self, attempt: Attempt, infrastructure_id: str) -> None:
        """Remove what may be left of it, and tell the driver."""
        ...


class SessionDriver:
    """Runs one session on an event loop, from `run` to its end. It never runs code of a user.

    Args:
        session: the rules.
        executor: does the work.
        dial: connects.
        metadata: what every stream carries.
        tell: takes lines for whoever looks at the worker.
    """

    def __init__(
        self,
        session: WorkerSession,
        executor: Executor,
        dial: Dial,
        metadata: tuple[tuple[str, str], ...],
        tell: Callable[[Notice], None],
    ) -> None:
        self.session = session
        self._executor = executor
        self._dial = dial
        self._metadata = metadata
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[ServiceError | None] = self._loop.create_future()
        self._streams: dict[int, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    async def run(self) -> None:
        """Until the session is over.

        Raises:
            ServiceError: what ended it, unless it was drained.
            Exception: a defect.
        """
        self._tick()
        try:
            error = await self._finished
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_FLUSH_SECONDS)
        finally:
            self._is_over = True
            if self._timer is not None:
                self._timer.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is not None:
            raise error

    # What the executor tells.

    def started(self, attempt: Attempt, infrastructure_id: str) -> None:
        """The infrastructure is there."""
        self.session.started(attempt, infrastructure_id, self._loop.time())
        self._act()

    def exited(self, attempt: Attempt, exit_code: int | None, message: str, never_started: bool) -> None:
        """The infrastructure is gone."""
        self.session.exited(attempt, exit_code, message, never_started, self._loop.time())
        self._act()

    def removed(self, attempt: Attempt, removed: bool) -> None:
        """What a removal came to."""
        self.session.removed(attempt, removed)
        self._act()

    def found(self, infrastructure: Sequence[FoundInfrastructure]) -> None:
        """What there is of infrastructure, this worker's own included."""
        self.session.found(infrastructure)
        self._act()

    def drain(self, deadline_seconds: float | None) -> None:
        """Take nothing new, and end when nothing runs any more."""
        self.session.drain(self._loop.time(), deadline_seconds)
        self._act()

    # What the session wants.

    def _tick(self) -> None:
        self._timer = None
        try:
            self.session.tick(self._loop.time())
            self._act()
        except Exception as error:
            self._fail(error)

    def _act(self) -> None:
        if self._is_over:
            return  # something was still heard while the streams ended
        while actions := self.session.take():
            for action in actions:
                self._do(action)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.session.due()
        if due is not None:
            self._timer = self._loop.call_at(due, self._tick)

    def _do(self, action: Any) -> None:
        match action:
            case Send(stream, request):
                if stream in self._streams:
                    self._streams[stream].outbox.put_nowait(request)
            case Open(stream, hello):
                self._open(stream, hello)
            case Close(stream, abort):
                self._close(stream, abort)
            case Begin(attempt, assignment):
                self._executor.begin(attempt, assignment)
            case Cancel(attempt, grace_seconds, reason):
                self._executor.cancel(attempt, grace_seconds, reason)
            case Kill(attempt, reason):
                self._executor.kill(attempt, reason)
            case LetGo(attempt):
                self._executor.let_go(attempt)
            case Remove(attempt, infrastructure_id):
                self._executor.remove(attempt, infrastructure_id)
            case Notice():
                self._tell(action)
            case Finish(error):
                if not self._finished.done():
                    self._finished.set_result(error)
            case _:
                raise TypeError(f"{action!r} is no action")

    def _open(self, number: int, hello: ConnectRequest) -> None:
        stream = self._streams[number] = _Stream(hello)
        task = asyncio.ensure_future(self._converse(number, stream))
        stream.task = task
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """A defect ends the worker, and is seen: one that only seems to be there would be worse."""
        if not self._finished.done():
            self._finished.set_exception(error)

    def _close(self, number: int, abort: bool) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if abort:
            stream.abort()
        else:
            stream.outbox.put_nowait(None)

    async def _converse(self, number: int, stream: _Stream) -> None:
        error: ServiceError | None = None
        address = "its address"
        try:
            address, channel = await self._dial()
            try:
                await stream.run(channel, self._metadata, lambda message: self._came(number, message))
            finally:
                await channel.close(None)
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure, address)
        except ServiceError as failure:
            error = failure
        finally:
            self._streams.pop(number, None)
        self.session.ended(number, error, self._loop.time())
        self._act()

    def _came(self, number: int, message: ConnectResponse) -> None:
        self.session.received(number, message, self._loop.time())
        self._act()


class _Stream:
    """One stream: a queue with one writer, and a reader."""

    def __init__(self, hello: ConnectRequest) -> None:
        self.outbox: asyncio.Queue[ConnectRequest | None] = asyncio.Queue()
        self.outbox.put_nowait(hello)
        self.task: asyncio.Task[None] | None = None
        self._call: Any = None
        self._is_aborted = False

    def abort(self) -> None:
        """End it at once."""
        self._is_aborted = True
        if self._call is not None:
            self._call.cancel()

    async def run(
        self,
        channel: Any,
        metadata: tuple[tuple[str, str], ...],
        came: Callable[[ConnectResponse], None],
    ) -> None:
        """Until the stream ends.

        Raises:
            grpc.aio.AioRpcError: as it ended.
            ServerUnavailable: it was given up.
        """
        call = self._call = channel.stream_stream(
            METHOD,
            request_serializer=ConnectRequest.SerializeToString,
            response_deserializer=ConnectResponse.FromString,
        )(metadata=metadata)
        if self._is_aborted:
            call.cancel()
        writer = asyncio.ensure_future(self._write(call))
        try:
            while (message := await read_message(call)) is not grpc.aio.EOF:
                came(message)
            await raise_status(call)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            call.cancel()

    async def _write(self, call: Any) -> None:
        """The only writer of the stream."""
        while (request := await self.outbox.get()) is not None:
            await call.write(request)
        await call.done_writing()
        # A server that is told goodbye ends the stream; one that does not is not waited for.
        await asyncio.sleep(_FLUSH_SECONDS)
        call.cancel()
