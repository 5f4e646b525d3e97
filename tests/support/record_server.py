"""A server of the recording stream that does what it is told: for faults that a real one shows rarely.

It keeps what it applies in a `Journal`, which outlives any number of server starts, as a database would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from headrace.core.errors import RecorderSealed, SequenceGap, ServiceError
from headrace.core.limits import TRANSPORT_MESSAGE_BYTES
from headrace.v1 import record_service_pb2 as pb
from headrace.v1 import record_service_pb2_grpc as pb_grpc
from headrace.v1.run_service_pb2 import ProposeStateResponse

__all__ = ["Faults", "Journal", "RecordServer", "status_of"]


def status_of(error: ServiceError) -> status_pb2.Status:
    """`error` with its details, as it crosses the wire."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain="headrace.dev", metadata=error.facts)
    status.details.add().Pack(info)
    return status


@dataclass
class Recorded:
    """What is durable of one recorder."""

    entries: list[pb.RecordEntry] = field(default_factory=list)
    is_sealed: bool = False


@dataclass
class Journal:
    """What is durable, and a condition that is notified of every change."""

    recorders: dict[str, Recorded] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    opened: list[pb.RecorderOpen] = field(default_factory=list)
    renewals: list[pb.RecorderRenew] = field(default_factory=list)
    batches: list[tuple[int, int]] = field(default_factory=list)

    def entries(self) -> list[pb.RecordEntry]:
        """Everything durable, of all recorders."""
        with self.changed:
            return [entry for recorded in self.recorders.values() for entry in recorded.entries]

    def wait_for(self, condition: Callable[[Journal], bool], timeout: float = 20.0) -> None:
        """Until `condition` holds.

        Raises:
            TimeoutError: it did not within `timeout` seconds.
        """
        with self.changed:
            if not self.changed.wait_for(lambda: condition(self), timeout):
                raise TimeoutError(f"not within {timeout} s; batches: {self.batches[-5:]}")


@dataclass
class Faults:
    """What goes wrong.

    Attributes:
        refuse_open: ends every stream at its first message.
        before_batch: called with each batch before it is applied; raising ends the stream.
        after_batch: called with each batch after it is durable and before it is acknowledged; raising ends
            the stream, so that the acknowledgement is lost.
        verdict: answers proposals.
        refuse_entry: the error an entry is dropped with, if any.
        go_away_after: ask to reconnect after that many batches on a stream.
        window: credit in entries.
        attempts: verdicts on attempts, with `opened` and with each renewal.
    """

    refuse_open: Callable[[pb.RecorderOpen], None] = lambda _: None
    before_batch: Callable[[pb.RecordEntries], None] = lambda _: None
    after_batch: Callable[[pb.RecordEntries], None] = lambda _: None
    verdict: Callable[[pb.StateEntry], ProposeStateResponse] = lambda entry: ProposeStateResponse(
        accepted=ProposeStateResponse.Accepted(state=entry.state)
    )
    refuse_entry: Callable[[pb.RecordEntry], ServiceError | None] = lambda _: None
    go_away_after: int | None = None
    window: int = 10_000
    max_entries: int = 1000
    protocol: int = 1
    renew_seconds: float = 10.0
    attempts: Callable[[], list[pb.AttemptVerdict]] = list


class RecordServer(pb_grpc.RecordServiceServicer):
    """Serves on a port of 127.0.0.1 from `start` to `stop`."""

    def __init__(self, journal: Journal | None = None, faults: Faults | None = None) -> None:
        self.journal = journal or Journal()
        self.faults = faults or Faults()
        self.port = 0
        self._server: Any = None

    def start(self) -> RecordServer:
        """Listen, on the port of the time before if there was one."""
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", TRANSPORT_MESSAGE_BYTES),
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        ]
        self._server = grpc.server(ThreadPoolExecutor(8), options=options)
        pb_grpc.add_RecordServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()
        return self

    def stop(self) -> None:
        """Cut every stream."""
        self._server.stop(None).wait()

    def __enter__(self) -> RecordServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    def Record(
        self, request_iterator: Iterator[pb.RecordRequest], context: Any
    ) -> Iterator[pb.RecordResponse]:
        try:
            yield from self._answers(request_iterator)
        except ServiceError as error:
            context.abort_with_status(rpc_status.to_status(status_of(error)))

    def RecordBatch(self, request: pb.RecordBatchRequest, context: Any) -> pb.RecordBatchResponse:
        with self.journal.changed:
            recorded = self.journal.recorders.setdefault(request.recorder_id, Recorded())
        try:
            if request.HasField("entries"):
                ack = self._apply(recorded, request.entries)
            else:
                ack = pb.RecordAck(durable_seq=len(recorded.entries), window=self.faults.window)
        except ServiceError as error:
            context.abort_with_status(rpc_status.to_status(status_of(error)))
        with self.journal.changed:
            recorded.is_sealed = recorded.is_sealed or request.seal
            self.journal.changed.notify_all()
        return pb.RecordBatchResponse(ack=ack)

    def _answers(self, requests: Iterator[pb.RecordRequest]) -> Iterator[pb.RecordResponse]:
        faults = self.faults
        opening = next(requests).open
        faults.refuse_open(opening)
        with self.journal.changed:
            recorded = self.journal.recorders.setdefault(opening.recorder_id, Recorded())
            self.journal.opened.append(opening)
            self.journal.changed.notify_all()
        opened = pb.RecorderOpened(
            protocol=faults.protocol,
            durable_seq=len(recorded.entries),
            window=faults.window,
            max_entries=faults.max_entries,
            verdicts=faults.attempts(),
        )
        opened.renew_interval.FromMicroseconds(int(faults.renew_seconds * 1e6))
        yield pb.RecordResponse(opened=opened)
        batches = 0
        for request in requests:
            kind = request.WhichOneof("message")
            if kind == "entries":
                batches += 1
                yield pb.RecordResponse(ack=self._apply(recorded, request.entries))
                if batches == faults.go_away_after:
                    yield pb.RecordResponse(go_away=pb.GoAway(reason="told to"))
            elif kind == "renew":
                with self.journal.changed:
                    self.journal.renewals.append(request.renew)
                    self.journal.changed.notify_all()
                yield pb.RecordResponse(renewed=pb.RecordRenewed(verdicts=faults.attempts()))
            elif kind == "seal":
                with self.journal.changed:
                    recorded.is_sealed = True
                    self.journal.changed.notify_all()
                return

    def _apply(self, recorded: Recorded, batch: pb.RecordEntries) -> pb.RecordAck:
        self.faults.before_batch(batch)
        ack = pb.RecordAck(window=self.faults.window)
        with self.journal.changed:
            if recorded.is_sealed:
                raise RecorderSealed
            skip = len(recorded.entries) - batch.first_seq + 1
            if skip < 0:
                raise SequenceGap.at(len(recorded.entries))
            for seq, entry in enumerate(batch.entries[skip:], start=batch.first_seq + skip):
                recorded.entries.append(entry)
                error = self.faults.refuse_entry(entry)
                if error is not None:
                    ack.results.add(seq=seq, error=status_of(error))
                elif entry.state.want_verdict:
                    ack.results.add(seq=seq, verdict=self.faults.verdict(entry.state))
            ack.durable_seq = len(recorded.entries)
            self.journal.batches.append((batch.first_seq, len(batch.entries)))
            self.journal.changed.notify_all()
        self.faults.after_batch(batch)
        return ack
