"""What a decision asks to be written beside the state, in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

__all__ = [
    "AddPauseKey",
    "Announce",
    "ClearPauseKeys",
    "DropPauseKey",
    "Effect",
    "Enqueue",
    "ExtendSlot",
    "InsertCache",
    "NoteFlowRunCount",
    "ReleaseSlot",
    "ResetRunCount",
    "RetryType",
    "SetResuming",
    "SetRetryType",
    "TakeSlot",
]


class RetryType(IntEnum):
    """Who runs the next try of a run that awaits one."""

    NONE = 0
    IN_PROCESS = 1
    """The process that holds the run: it is not offered to workers."""
    RESCHEDULE = 2
    """Whoever takes it."""


@dataclass(frozen=True, slots=True)
class AddPauseKey:
    """The key has fired in this run."""

    key: str


@dataclass(frozen=True, slots=True)
class DropPauseKey:
    """The key may fire again: its pause was not seen through."""

    key: str


@dataclass(frozen=True, slots=True)
class ClearPauseKeys:
    """Every key may fire again."""


@dataclass(frozen=True, slots=True)
class SetResuming:
    """A pause has ended, or is forgotten."""

    is_resuming: bool


@dataclass(frozen=True, slots=True)
class SetRetryType:
    """Who runs the next try."""

    retry_type: RetryType


@dataclass(frozen=True, slots=True)
class ResetRunCount:
    """The run begins anew: its tries are counted from 0."""


@dataclass(frozen=True, slots=True)
class NoteFlowRunCount:
    """In which try of its flow run a task run was entered."""

    run_count: int


@dataclass(frozen=True, slots=True)
class TakeSlot:
    """The run holds one slot of the limit from now on."""

    limit: str


@dataclass(frozen=True, slots=True)
class ExtendSlot:
    """The run keeps its slot of the limit for as long as it runs."""

    limit: str


@dataclass(frozen=True, slots=True)
class ReleaseSlot:
    """The run's slot of the limit is free."""

    limit: str


@dataclass(frozen=True, slots=True)
class InsertCache:
    """The result may be found under the key."""

    key: str
    expire_time: int | None


@dataclass(frozen=True, slots=True)
class Enqueue:
    """A background task run waits in its queue, in the lane for retries or the one for the rest."""

    is_retry: bool


@dataclass(frozen=True, slots=True)
class Announce:
    """The world is told, e.g. `headrace.flow-run.Completed`."""

    event: str


Effect: TypeAlias = (
    AddPauseKey
    | DropPauseKey
    | ClearPauseKeys
    | SetResuming
    | SetRetryType
    | ResetRunCount
    | NoteFlowRunCount
    | TakeSlot
    | ExtendSlot
    | ReleaseSlot
    | InsertCache
    | Enqueue
    | Announce
)
