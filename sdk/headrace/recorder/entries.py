"""Entries as bytes: limits checked before anything is recorded, batches put together without re-encoding."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from headrace.core import limits
from headrace.core.errors import FieldsInvalid, PayloadTooLarge
from headrace.v1.log_pb2 import LogEntry
from headrace.v1.record_service_pb2 import DroppedNotice, RecordEntry

__all__ = ["Encoded", "Weight", "batch_message", "chunk", "dropped_notice", "encode", "without_verdict"]


class Weight(IntEnum):
    """How much an entry matters when the spool is short of room; the lightest are left out first."""

    SPAN = 0
    LOG = 1
    FACT = 2


class Encoded(NamedTuple):
    """One entry, serialised."""

    data: bytes
    weight: Weight


_WEIGHTS: Final = {
    "run": Weight.FACT,
    "state": Weight.FACT,
    "log": Weight.LOG,
    "span": Weight.SPAN,
    "event": Weight.FACT,
    "dropped": Weight.FACT,
}
# A field over any of the smaller limits makes the whole entry at least this long.
_LOOK_CLOSER_BYTES: Final = min(limits.STATE_MESSAGE_BYTES, limits.LOG_MESSAGE_BYTES)
_TAG_ENTRY: Final = b"\x12"
_TAG_FIRST_SEQ: Final = b"\x08"
_TAG_ENTRIES: Final = b"\x12"


def encode(entry: RecordEntry) -> Encoded:
    """`entry` as bytes. A log message over its limit is cut, with a note.

    Raises:
        PayloadTooLarge: a field or the whole entry is over its limit.
        FieldsInvalid: the entry is empty.
    """
    kind = entry.WhichOneof("kind")
    if kind is None:
        raise FieldsInvalid.of(
            "kind", "an entry holds a run, a state, a log line, a span, an event or a notice"
        )
    data = entry.SerializeToString()
    if len(data) > _LOOK_CLOSER_BYTES:
        data = _within_limits(entry, kind, data)
    return Encoded(data, _WEIGHTS[kind])


def _within_limits(entry: RecordEntry, kind: str, data: bytes) -> bytes:
    if kind == "log" and len(entry.log.message.encode()) > limits.LOG_MESSAGE_BYTES:
        data = RecordEntry(log=_cut(entry.log)).SerializeToString()
    elif kind == "state":
        state = entry.state.state
        _check("state.data", len(state.data.inline), limits.INLINE_PAYLOAD_BYTES)
        _check("state.message", len(state.message.encode()), limits.STATE_MESSAGE_BYTES)
    elif kind == "run":
        _check("run.parameters", len(entry.run.parameters.inline), limits.INLINE_PAYLOAD_BYTES)
    _check(kind, len(data), limits.MESSAGE_BYTES)
    return data


def _check(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise PayloadTooLarge(
            f"{what} has {size} bytes; {limit} can be recorded. Keep large values in result storage.",
            facts={"field": what, "size_bytes": str(size), "limit_bytes": str(limit)},
        )


def _cut(log: LogEntry) -> LogEntry:
    """A copy whose message fits, and says how much is missing."""
    text = log.message.encode()
    note = f" … [{len(text)} bytes, cut]"
    room = limits.LOG_MESSAGE_BYTES - len(note.encode())
    short = LogEntry()
    short.CopyFrom(log)
    short.message = text[:room].decode(errors="ignore") + note
    return short


def dropped_notice(logs: int, spans: int) -> Encoded:
    """The entry that says what was left out."""
    notice = RecordEntry(dropped=DroppedNotice(logs=logs, spans=spans))
    return Encoded(notice.SerializeToString(), Weight.FACT)


def without_verdict(data: bytes) -> bytes:
    """The entry, with its proposal made a record: for replaying what went on without the answer."""
    entry = RecordEntry.FromString(data)
    if not entry.state.want_verdict:
        return data
    entry.state.want_verdict = False
    return entry.SerializeToString()


def _varint(value: int) -> bytes:
    if value < 0x80:
        return value.to_bytes(1, "little")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def chunk(data: bytes) -> bytes:
    """A serialised entry as a member of `RecordEntries.entries`."""
    return _TAG_ENTRY + _varint(len(data)) + data


def batch_message(first_seq: int, chunks: Iterable[bytes]) -> bytes:
    """The wire form of `RecordRequest(entries=RecordEntries(first_seq, entries))`."""
    body = b"".join((_TAG_FIRST_SEQ, _varint(first_seq), *chunks))
    return b"".join((_TAG_ENTRIES, _varint(len(body)), body))
