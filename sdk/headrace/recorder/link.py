"""The link to the server: one stream at a time, for as long as the process lives. Runtime thread only."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from collections.abc import Callable
from typing import Any, Final

import grpc.aio

from headrace.client.calls import Caller
from headrace.client.channel import client_version, open_channel, request_metadata
from headrace.client.errors import from_rpc_error, from_status
from headrace.client.streaming import raise_status, read_message
from headrace.core.errors import ServerUnavailable, ServiceError
from headrace.core.limits import PROTOCOL_MAX, PROTOCOL_MIN
from headrace.recorder.entries import batch_message, chunk, dropped_notice
from headrace.recorder.recorder import SpoolRecorder
from headrace.recorder.replay import adopt
from headrace.recorder.stream import Again, Next, Slice, StreamState
from headrace.v1 import record_service_pb2 as pb

__all__ = ["LINGER_SECONDS", "STALL_SECONDS", "Link"]

LINGER_SECONDS: Final = 0.005
"""How long entries nobody waits for may gather before they are sent."""
STALL_SECONDS: Final = 15.0
"""How long a server may leave something unanswered before the connection is made anew."""
LEAVE_SECONDS: Final = 2.0
"""How long a stream that the server wants to end waits for the last acknowledgements."""
ADOPT_SECONDS: Final = 30.0
"""How often to look for spools that were left behind."""
RENEW_SECONDS: Final = 10.0
"""How often to renew when the server does not say."""

_METHOD: Final = "/headrace.v1.RecordService/Record"
_BATCH_METHOD: Final = "/headrace.v1.RecordService/RecordBatch"


def _as_bytes(message: bytes) -> bytes:
    return message


class Link:
    """Sends what the recorder has and tells it what came back.

    Args:
        recorder: whose entries are sent.
        state: what is sent and what is committed.
    """

    def __init__(self, recorder: SpoolRecorder, state: StreamState) -> None:
        self._recorder = recorder
        self._state = state
        self._wake = asyncio.Event()
        self._linger: asyncio.TimerHandle | None = None
        self._renew_due = False
        self._leaving: Again | None = None
        self._sealing = False
        self._unanswered_since: float | None = None
        self._call: Any = None
        self._caller: Caller | None = None
        self._adopting = asyncio.Lock()

    def posted(self, urgent: bool) -> None:
        """There are new entries; `urgent`: somebody waits for what becomes of them."""
        if urgent:
            self._wake.set()
        elif self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._lingered)

    def _lingered(self) -> None:
        self._linger = None
        self._wake.set()

    def seal(self) -> None:
        """Say that the recorder is done once everything is acknowledged, then end the stream."""
        self._sealing = True
        self._wake.set()

    def cut(self) -> None:
        """End the present connection at once."""
        if self._call is not None:
            self._call.cancel()

    async def session(self, address: str, connected: Callable[[], None]) -> Next:
        """One connection, from the opening message to its end.

        Args:
            address: `host:port`.
            connected: called when the server has answered the opening message.

        Returns:
            What to do next.
        """
        channel = open_channel(address)
        metadata = request_metadata(self._recorder.options.auth_string)
        self._caller = Caller(channel, address, metadata, STALL_SECONDS)
        try:
            return await self._converse(channel, address, connected)
        except grpc.aio.AioRpcError as error:
            return self._state.failed(from_rpc_error(error, address))
        except ServiceError as error:
            return self._state.failed(error)
        except TimeoutError:
            silent = ServerUnavailable(f"The server at {address} has not answered for {STALL_SECONDS:g} s.")
            return self._state.failed(silent)
        finally:
            self._state.is_open = False
            self._caller = None
            await channel.close(None)

    async def _converse(self, channel: grpc.aio.Channel, address: str, connected: Callable[[], None]) -> Next:
        call = channel.stream_stream(
            _METHOD, request_serializer=_as_bytes, response_deserializer=pb.RecordResponse.FromString
        )(metadata=request_metadata(self._recorder.options.auth_string))
        self._call = call
        self._renew_due = False
        self._unanswered_since = None
        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(STALL_SECONDS):
                renew_seconds = await self._open(call)
            connected()
            sender = asyncio.ensure_future(self._send(call))
            sender.add_done_callback(lambda done: call.cancel() if _failed(done) else None)
            tasks = [
                sender,
                asyncio.ensure_future(self._watch(call, renew_seconds)),
                asyncio.ensure_future(self._adopt()),
            ]
            await self._receive(call)
        finally:
            for task in tasks:
                task.cancel()
            call.cancel()
            self._call = None
        if self._leaving is not None:
            leaving, self._leaving = self._leaving, None
            return self._state.redirected(leaving.seconds)
        return self._state.failed(None)

    async def adopt_once(self) -> None:
        """Deliver the spools that other processes of this home have left behind for an explicit address."""
        options = self._recorder.options
        caller = self._caller
        if options.address is None or caller is None:
            return

        async def send(request: pb.RecordBatchRequest) -> pb.RecordBatchResponse:
            return await caller.unary(_BATCH_METHOD, request, pb.RecordBatchResponse.FromString, None)

        async with self._adopting:
            await adopt(send, options.spool_root, options.address)

    async def _adopt(self) -> None:
        while True:
            await self.adopt_once()
            await asyncio.sleep(ADOPT_SECONDS)

    async def _open(self, call: Any) -> float:
        """Say who records, and learn from where to go on.

        Returns:
            Seconds between renewals.
        """
        recorder = self._recorder
        opening = pb.RecorderOpen(
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            recorder_id=recorder.recorder_id,
            known_durable_seq=self._state.durable,
            last_seq=recorder.last_seq,
            executing=recorder.executing(),
            sdk=pb.SdkInfo(
                name="headrace",
                version=client_version(),
                language=f"python {platform.python_version()}",
                host=os.environ.get("HEADRACE__HOST") or socket.gethostname(),
                pid=os.getpid(),
            ),
        )
        await call.write(pb.RecordRequest(open=opening).SerializeToString())
        answer = await read_message(call)
        if answer is grpc.aio.EOF:
            await raise_status(call)
            raise ServerUnavailable("The server ended the stream at once.")
        opened = answer.opened
        self._state.opened(
            protocol=opened.protocol,
            durable_seq=opened.durable_seq,
            window=opened.window,
            max_entries=opened.max_entries,
            max_bytes=opened.max_bytes,
        )
        recorder.resumed_at(opened.durable_seq)
        recorder.owners.judged(opened.verdicts)
        self._wake.set()
        interval = opened.renew_interval
        return (interval.seconds + interval.nanos / 1e9) or RENEW_SECONDS

    async def _send(self, call: Any) -> None:
        """The only writer of the stream."""
        while True:
            self._wake.clear()
            if self._renew_due:
                self._renew_due = False
                renewal = pb.RecorderRenew(executing=self._recorder.executing())
                await self._write(call, pb.RecordRequest(renew=renewal).SerializeToString())
            if self._leaving is None:
                await self._send_entries(call)
            if self._sealing and self._state.durable >= self._recorder.last_seq:
                await call.write(pb.RecordRequest(seal=pb.RecorderSeal()).SerializeToString())
                await call.done_writing()
                return
            if self._leaving is not None and self._state.durable >= self._state.sent:
                await call.done_writing()
                return
            await self._wake.wait()

    async def _send_entries(self, call: Any) -> None:
        """Send what is there now; what comes meanwhile gathers for the next time."""
        newest = self._recorder.last_seq
        while (message := self._next_message(newest)) is not None:
            await self._write(call, message)
        if self._recorder.last_seq > newest:
            self.posted(urgent=False)

    async def _write(self, call: Any, message: bytes) -> None:
        if self._unanswered_since is None:
            self._unanswered_since = asyncio.get_running_loop().time()
        await call.write(message)

    def _next_message(self, newest: int) -> bytes | None:
        part = self._state.next_slice(newest)
        if part is None:
            return None
        batch = self._recorder.take(part)
        first, chunks = batch.first_seq, batch.chunks
        if part.is_quarantined or not chunks:
            first, chunks = part.first_seq, [self._placeholder(part)]
        self._state.wrote(first + len(chunks) - 1)
        return batch_message(first, chunks)

    def _placeholder(self, part: Slice) -> bytes:
        """What takes the place of an entry that is lost, or that ends every stream it is sent on."""
        self._recorder.gave_up(part.first_seq, is_poison=part.is_quarantined)
        return chunk(dropped_notice(0, 0).data)

    async def _receive(self, call: Any) -> None:
        while (answer := await read_message(call)) is not grpc.aio.EOF:
            kind = answer.WhichOneof("message")
            self._unanswered_since = None
            if kind == "ack":
                self._acknowledged(answer.ack)
            elif kind == "renewed":
                self._recorder.owners.judged(answer.renewed.verdicts)
            elif kind == "directives":
                self._recorder.owners.directed(answer.directives.directives)
            elif kind == "go_away":
                after = answer.go_away.reconnect_after
                self._leaving = Again(after.seconds + after.nanos / 1e9)
                asyncio.get_running_loop().call_later(LEAVE_SECONDS, call.cancel)
                self._wake.set()
        if self._leaving is None:
            await raise_status(call)

    def _acknowledged(self, ack: pb.RecordAck) -> None:
        for result in ack.results:
            if result.WhichOneof("outcome") == "verdict":
                self._recorder.answered(result.seq, result.verdict)
            else:
                self._recorder.refused(result.seq, from_status(result.error))
        newest = self._recorder.last_seq
        was_stuck = self._state.sent < newest and self._state.next_slice(newest) is None
        if self._state.acknowledged(ack.durable_seq, ack.window):
            self._recorder.acknowledged(ack.durable_seq)
        if self._state.sent > self._state.durable:
            self._unanswered_since = asyncio.get_running_loop().time()
        if was_stuck or self._sealing or self._leaving is not None:
            self._wake.set()

    async def _watch(self, call: Any, renew_seconds: float) -> None:
        """Renew in time, and end a connection on which nothing comes back."""
        loop = asyncio.get_running_loop()
        next_renewal = loop.time() + renew_seconds
        while True:
            await asyncio.sleep(min(1.0, renew_seconds))
            now = loop.time()
            if now >= next_renewal:
                next_renewal = now + renew_seconds
                self._renew_due = True
                self._wake.set()
            if self._unanswered_since is not None and now - self._unanswered_since > STALL_SECONDS:
                call.cancel()
                return


def _failed(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is not None
