"""What storage gives back where no message of the wire says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headrace.core.errors import ServiceError
from headrace.v1.record_service_pb2 import AttemptVerdict
from headrace.v1.run_service_pb2 import ProposeStateResponse

__all__ = ["Changes", "EntryOutcome", "RecordOutcome", "RecorderInfo", "RecorderStatus"]

EntryOutcome: TypeAlias = ProposeStateResponse | ServiceError
"""What one recorded entry came to: a verdict that was asked for, or why the entry was dropped."""


@dataclass(frozen=True, slots=True)
class RecorderStatus:
    """Where a recorder stands when its stream opens.

    Attributes:
        durable_seq: the last sequence number that is in the database; 0 for a new recorder.
        sealed: it has said that it is done; it may not record any more.
        verdicts: the attempts it says it executes that it no longer owns.
    """

    durable_seq: int
    sealed: bool
    verdicts: Sequence[AttemptVerdict]


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """What became of a batch of entries, once it is committed.

    Attributes:
        durable_seq: the recorder's last durable sequence number.
        results: per sequence number, in order; only entries with something to say.
    """

    durable_seq: int
    results: Sequence[tuple[int, EntryOutcome]]


@dataclass(frozen=True, slots=True)
class RecorderInfo:
    """One recorder's lease.

    Attributes:
        recorder_id: the recorder.
        replica_id: the server process that holds its stream.
        host: name of the machine it runs on.
        pid: its process id on that machine.
        durable_seq: its last durable sequence number.
        expires_at: when its lease ends, microseconds, on the clock of `Database.now`.
    """

    recorder_id: str
    replica_id: str
    host: str
    pid: int
    durable_seq: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Runs that changed after a resume token.

    Attributes:
        run_ids: runs that were made or changed, each once, in the order of their last change.
        deleted: runs that were deleted.
        token: where to go on. Equal to the token asked with: nothing changed.
    """

    run_ids: Sequence[str]
    deleted: Sequence[str]
    token: str
