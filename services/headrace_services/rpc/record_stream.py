"""One `Record` call: batches in, acknowledgements out, in the order of the batches.

Two parties share the stream. The reader takes requests in and hands each batch to the writer of the
database without waiting for the one before. The handler's own generator is the only one that sends; it
awaits the batches in their order and acknowledges what is durable, several batches at a time when they have
piled up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.core import limits
from headrace.core.errors import FieldsInvalid, ProtocolUnsupported, RecorderSealed, ServiceError
from headrace.v1 import record_service_pb2 as pb
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace_services.rpc.entries import refused_entries
from headrace_services.rpc.errors import status_of
from headrace_services.rpc.validation import rules
from headrace_services.storage.values import EntryOutcome, RecordOutcome
from headrace_services.storage.writer import Writer

__all__ = ["RecordPolicy", "RecordStream", "Renewals", "ack_of", "check_protocol", "with_refused"]


class Renewals(Protocol):
    """Takes renewals in and tells, once they are in the database, which attempts are lost."""

    def renew(
        self, recorder_id: str, executing: Sequence[AttemptRef]
    ) -> asyncio.Future[list[pb.AttemptVerdict]]: ...


@dataclass(frozen=True, slots=True)
class RecordPolicy:
    """What the server tells every recorder.

    Attributes:
        replica_id: this server process.
        lease_seconds: how long a recorder may be silent.
        renew_seconds: how often it should renew.
        window: how many entries may be on their way beyond the last durable one.
    """

    replica_id: str
    lease_seconds: float
    renew_seconds: float
    window: int = limits.RECORD_WINDOW_ENTRIES


@dataclass(slots=True)
class _Batch:
    size: int
    refused: dict[int, ServiceError]
    outcome: asyncio.Future[RecordOutcome]


class RecordStream:
    """The state of one stream.

    Attributes:
        open: the first message, once it has come.
        sealed: whether the recorder has said that it is done, durably.
    """

    def __init__(self, writer: Writer, policy: RecordPolicy, renewals: Renewals) -> None:
        self._writer = writer
        self._policy = policy
        self._renewals = renewals
        self.open: pb.RecorderOpen | None = None
        self.sealed = False
        self._batches: deque[_Batch] = deque()
        self._in_flight = 0
        self._room = asyncio.Event()
        self._notices: deque[pb.RecordResponse] = deque()
        self._renewing: set[asyncio.Future[list[pb.AttemptVerdict]]] = set()
        self._wake = asyncio.Event()
        self._superseded = False
        self._told: dict[str, float] = {}

    async def responses(
        self,
        requests: AsyncIterator[pb.RecordRequest],
        opened: Callable[[RecordStream], None],
    ) -> AsyncGenerator[pb.RecordResponse, None]:
        """Everything to send.

        Args:
            requests: what the recorder sends.
            opened: called once the recorder is known to the database.

        Raises:
            SequenceGap, RecorderSealed, DatabaseUnavailable, StorageFull: connect again, resume from the
                durable sequence that the new stream names.
            FieldsInvalid, ProtocolUnsupported: the client breaks the protocol.
        """
        reader = asyncio.ensure_future(self._read(requests, opened))
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            while True:
                while self._notices:
                    yield self._notices.popleft()
                if self._superseded:
                    return
                if self._batches and self._batches[0].outcome.done():
                    yield self._acknowledge()
                    continue
                if reader.done() and not self._batches:
                    reader.result()
                    return
                self._wake.clear()
                await self._wake.wait()
        finally:
            reader.cancel()
            for renewing in self._renewing:
                renewing.cancel()

    def go_away(self, reason: str, reconnect_after_seconds: float, *, superseded: bool = False) -> None:
        """Asks the recorder to connect anew.

        Args:
            superseded: the stream ends at once, because a newer one has taken over.
        """
        notice = pb.GoAway(reason=reason)
        notice.reconnect_after.FromMicroseconds(int(reconnect_after_seconds * 1e6))
        self._notices.append(pb.RecordResponse(go_away=notice))
        self._superseded = self._superseded or superseded
        self._wake.set()

    def direct(self, directives: Sequence[pb.RunDirective], now: float, repeat_seconds: float) -> None:
        """Tells the recorder what is wanted of its runs.

        Args:
            directives: all that is wanted of them now.
            now: monotonic seconds.
            repeat_seconds: how long ago a directive must have been told to be told again.
        """
        told = {d.state.id: self._told.get(d.state.id, -repeat_seconds) for d in directives}
        due = [
            d for d in directives if d.state.id not in self._told or now - told[d.state.id] >= repeat_seconds
        ]
        self._told = told
        if due:
            told.update((d.state.id, now) for d in due)
            self._notices.append(pb.RecordResponse(directives=pb.RunDirectives(directives=due)))
            self._wake.set()

    async def _read(
        self, requests: AsyncIterator[pb.RecordRequest], opened: Callable[[RecordStream], None]
    ) -> None:
        async for request in requests:
            kind = request.WhichOneof("message")
            if self.open is None:
                if kind != "open":
                    raise FieldsInvalid.of("message", "the first message of a stream must be `open`")
                await self._opened(request.open)
                opened(self)
            elif kind == "entries":
                await self._entries(request.entries)
            elif kind == "renew":
                self._renew(request.renew.executing)
            elif kind == "seal":
                await self._seal()
            elif kind == "open":
                raise FieldsInvalid.of("open", "may be sent once per stream")
            # Anything else comes from a newer client, which knows that we may not know it.

    async def _opened(self, open: pb.RecorderOpen) -> None:
        protocol = check_protocol(open)
        status = await self._writer.open_recorder(open, self._policy.replica_id, self._policy.lease_seconds)
        self.open = open
        self.sealed = status.sealed
        answer = pb.RecorderOpened(
            protocol=protocol,
            durable_seq=status.durable_seq,
            max_entries=limits.BATCH_ENTRIES,
            max_bytes=limits.BATCH_BYTES,
            window=self._policy.window,
            verdicts=status.verdicts,
        )
        answer.lease_ttl.FromMicroseconds(int(self._policy.lease_seconds * 1e6))
        answer.renew_interval.FromMicroseconds(int(self._policy.renew_seconds * 1e6))
        self._notices.append(pb.RecordResponse(opened=answer))
        self._wake.set()

    async def _entries(self, batch: pb.RecordEntries) -> None:
        if not batch.first_seq:
            raise FieldsInvalid.of("entries.first_seq", "must be greater than 0")
        if self.sealed:
            raise RecorderSealed
        assert self.open is not None
        entries, refused = refused_entries(batch)
        while self._in_flight and self._in_flight + len(entries) > self._policy.window:
            self._room.clear()
            await self._room.wait()
        if not entries:
            return
        outcome = self._writer.recorded(
            self.open.recorder_id, batch.first_seq, entries, on_done=self._wake.set
        )
        outcome.add_done_callback(_seen)
        self._batches.append(_Batch(len(entries), refused, outcome))
        self._in_flight += len(entries)

    def _acknowledge(self) -> pb.RecordResponse:
        """One acknowledgement for every finished batch at the head of the queue."""
        durable: int | None = None
        results: list[tuple[int, EntryOutcome]] = []
        while self._batches and self._batches[0].outcome.done() and len(results) < limits.BATCH_ENTRIES:
            batch = self._batches[0]
            if durable is not None and batch.outcome.exception() is not None:
                break  # first say what is durable, then fail
            self._batches.popleft()
            self._in_flight -= batch.size
            self._room.set()
            outcome = batch.outcome.result()
            durable = outcome.durable_seq
            results.extend(with_refused(outcome.results, batch.refused))
        assert durable is not None
        return pb.RecordResponse(ack=ack_of(durable, self._policy.window, results))

    def _renew(self, executing: Sequence[AttemptRef]) -> None:
        assert self.open is not None
        renewing = self._renewals.renew(self.open.recorder_id, executing)
        self._renewing.add(renewing)
        renewing.add_done_callback(self._renewed)

    def _renewed(self, renewing: asyncio.Future[list[pb.AttemptVerdict]]) -> None:
        self._renewing.discard(renewing)
        # A renewal that the database did not take is not answered: the recorder knows by the silence.
        if not renewing.cancelled() and renewing.exception() is None:
            renewed = pb.RecordRenewed(verdicts=renewing.result())
            self._notices.append(pb.RecordResponse(renewed=renewed))
            self._wake.set()

    async def _seal(self) -> None:
        assert self.open is not None
        pending = [batch.outcome for batch in self._batches]
        if pending:
            await asyncio.wait(pending)
        if any(outcome.exception() is not None for outcome in pending):
            return
        await self._writer.seal_recorder(self.open.recorder_id)
        self.sealed = True


def _seen(outcome: asyncio.Future[RecordOutcome]) -> None:
    """Marks a failure as seen: a stream that has ended asks no more."""
    if not outcome.cancelled():
        outcome.exception()


def ack_of(durable_seq: int, window: int, results: Sequence[tuple[int, EntryOutcome]]) -> pb.RecordAck:
    """The acknowledgement that says what is durable and what became of single entries."""
    ack = pb.RecordAck(durable_seq=durable_seq, window=window)
    for seq, outcome in results:
        if isinstance(outcome, ProposeStateResponse):
            ack.results.add(seq=seq, verdict=outcome)
        else:
            ack.results.add(seq=seq, error=status_of(outcome))
    return ack


def with_refused(
    results: Sequence[tuple[int, EntryOutcome]], refused: Mapping[int, ServiceError]
) -> Sequence[tuple[int, EntryOutcome]]:
    """The results of a batch in order; a refused entry has its own reason, whatever storage says of it."""
    if not refused:
        return results
    return sorted([*(r for r in results if r[0] not in refused), *refused.items()], key=lambda r: r[0])


def check_protocol(open: pb.RecorderOpen) -> int:
    """The newest version of the protocol that both sides speak.

    Raises:
        ProtocolUnsupported: there is none.
        FieldsInvalid: a field of the message breaks a rule.
    """
    error = rules().check("headrace.v1.RecorderOpen", open.SerializeToString(), "open.")
    if error is not None:
        raise error
    newest = min(open.protocol_max, limits.PROTOCOL_MAX)
    if newest < max(open.protocol_min, limits.PROTOCOL_MIN):
        raise ProtocolUnsupported(
            f"The client speaks versions {open.protocol_min} to {open.protocol_max} of the protocol, this "
            f"server {limits.PROTOCOL_MIN} to {limits.PROTOCOL_MAX}. Upgrade the older of the two.",
            facts={"protocol_min": str(limits.PROTOCOL_MIN), "protocol_max": str(limits.PROTOCOL_MAX)},
        )
    return newest
