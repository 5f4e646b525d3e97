"""`headrace.v1.RecordService`: what executing code tells the server."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

from headrace.core.errors import FieldsInvalid
from headrace.v1 import record_service_pb2 as pb
from headrace_services.rpc.call import Call
from headrace_services.rpc.drain import Drain
from headrace_services.rpc.entries import refused_entries
from headrace_services.rpc.record_stream import (
    RecordPolicy,
    RecordStream,
    Renewals,
    ack_of,
    check_protocol,
    with_refused,
)
from headrace_services.storage.writer import Writer

__all__ = ["RecordService", "StreamListener", "Streams"]

_RECONNECT_SPREAD_SECONDS: Final = 2.0


class StreamListener(Protocol):
    """Is told of streams that open and end."""

    def opened(self, open: pb.RecorderOpen) -> None: ...

    def ended(self, open: pb.RecorderOpen, *, sealed: bool) -> None: ...


class Streams:
    """The open record streams of this server, one per recorder.

    Attributes:
        listener: told of each recorder that gets its first stream, or loses its only one.
        directed: called when there may be something to tell a process.
    """

    def __init__(self, drain: Drain) -> None:
        self._by_recorder: dict[str, RecordStream] = {}
        self._drain = drain
        self.listener: StreamListener | None = None
        self.directed: Callable[[], None] = lambda: None
        drain.listen(self._say_goodbye)

    def __contains__(self, recorder_id: object) -> bool:
        return recorder_id in self._by_recorder

    def __len__(self) -> int:
        return len(self._by_recorder)

    def direct(
        self, recorder_id: str, directives: Sequence[pb.RunDirective], now: float, repeat_seconds: float
    ) -> None:
        """Tell a recorder what is wanted of its runs, if its stream is here; see `RecordStream.direct`."""
        stream = self._by_recorder.get(recorder_id)
        if stream is not None:
            stream.direct(directives, now, repeat_seconds)

    def add(self, stream: RecordStream) -> None:
        """A stream has opened; an older one of the same recorder ends."""
        assert stream.open is not None
        older = self._by_recorder.get(stream.open.recorder_id)
        self._by_recorder[stream.open.recorder_id] = stream
        if older is not None:
            older.go_away("SESSION_SUPERSEDED", 0.0, superseded=True)
        if self.listener is not None:
            self.listener.opened(stream.open)
        self.directed()
        if self._drain.begun:
            self._tell(stream)

    def remove(self, stream: RecordStream) -> None:
        """A stream has ended."""
        if stream.open is None or self._by_recorder.get(stream.open.recorder_id) is not stream:
            return
        del self._by_recorder[stream.open.recorder_id]
        if self.listener is not None and not self._drain.begun:
            self.listener.ended(stream.open, sealed=stream.sealed)

    def _say_goodbye(self) -> None:
        for stream in self._by_recorder.values():
            self._tell(stream)

    def _tell(self, stream: RecordStream) -> None:
        # Spread, so that a restarted server is not met by everybody at once.
        stream.go_away("SERVER_DRAINING", random.uniform(0.1, _RECONNECT_SPREAD_SECONDS))


class RecordService:
    """The record stream, and the same as single calls."""

    checks_itself = frozenset({"RecordBatch"})
    """Methods whose requests are not checked as a whole: a bad entry must not refuse its batch."""

    def __init__(self, writer: Writer, policy: RecordPolicy, renewals: Renewals, streams: Streams) -> None:
        self._writer = writer
        self._policy = policy
        self._renewals = renewals
        self._streams = streams

    async def Record(
        self, requests: AsyncIterator[pb.RecordRequest], call: Call
    ) -> AsyncIterator[pb.RecordResponse]:
        stream = RecordStream(self._writer, self._policy, self._renewals)
        responses = stream.responses(requests, self._streams.add)
        try:
            async for response in responses:
                yield response
        finally:
            self._streams.remove(stream)
            await responses.aclose()

    async def RecordBatch(self, request: pb.RecordBatchRequest, call: Call) -> pb.RecordBatchResponse:
        if not request.recorder_id and request.HasField("open"):
            request.recorder_id = request.open.recorder_id
        if request.HasField("open"):
            if request.recorder_id != request.open.recorder_id:
                raise FieldsInvalid.of("recorder_id", "must be the one of `open`")
            check_protocol(request.open)
            status = await self._writer.open_recorder(
                request.open, self._policy.replica_id, self._policy.lease_seconds
            )
            ack = ack_of(status.durable_seq, self._policy.window, ())
        else:
            ack = pb.RecordAck()
        if request.HasField("entries"):
            ack = await self._record(request.recorder_id, request.entries)
        if request.seal:
            await self._writer.seal_recorder(request.recorder_id)
        return pb.RecordBatchResponse(ack=ack)

    async def _record(self, recorder_id: str, batch: pb.RecordEntries) -> pb.RecordAck:
        if not batch.first_seq:
            raise FieldsInvalid.of("entries.first_seq", "must be greater than 0")
        entries, refused = refused_entries(batch)
        outcome = await self._writer.record(recorder_id, batch.first_seq, entries)
        return ack_of(outcome.durable_seq, self._policy.window, with_refused(outcome.results, refused))
