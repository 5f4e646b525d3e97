"""A state as the rules see it: frozen, with what decisions hang on and nothing of the wire."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from headrace.core.states import StateType, default_name

__all__ = [
    "CANCELLED",
    "CANCELLING",
    "COMPLETED",
    "CRASHED",
    "FAILED",
    "FINAL_TYPES",
    "PAUSED",
    "PENDING",
    "RETRYING",
    "RUNNING",
    "SCHEDULED",
    "StateValue",
    "scheduled_after",
]

SCHEDULED: Final = StateType.SCHEDULED
PENDING: Final = StateType.PENDING
RUNNING: Final = StateType.RUNNING
PAUSED: Final = StateType.PAUSED
CANCELLING: Final = StateType.CANCELLING
COMPLETED: Final = StateType.COMPLETED
FAILED: Final = StateType.FAILED
CANCELLED: Final = StateType.CANCELLED
CRASHED: Final = StateType.CRASHED

RETRYING: Final = "Retrying"
"""The name of RUNNING in a later try: executors that retry at once have nothing else to tell it by."""

# A tuple, because `in` then compares identities; a set would hash an enum member in Python.
FINAL_TYPES: Final = (COMPLETED, FAILED, CANCELLED, CRASHED)


@dataclass(frozen=True, slots=True)
class StateValue:
    """One state of a run, current or proposed.

    Attributes:
        type: what orchestration branches on.
        id: made by the writer; the same id is the same state.
        timestamp: when it was entered on the writer's clock, microseconds.
        name: what people see; the type's own name when none was given.
        message: a sentence, or nothing.
        data: the result, or a failure's data; the rules only ask whether there is any.
        scheduled_time: microseconds; of a SCHEDULED state, carried into PENDING.
        is_retry: SCHEDULED because the run tries again.
        is_resumption: SCHEDULED because a pause has ended.
        is_given_back: SCHEDULED because its process leaves the run to another attempt.
        is_relinquished: SCHEDULED because its process leaves it to another one of the same attempt.
        is_deferred: SCHEDULED for a background task, which is queued and not run by its parent.
        pause_timeout: when a pause ends by itself, microseconds; None: never.
        pause_reschedule: no process stays in the pause; resuming schedules the run.
        pause_key: names the pause; a key fires once.
        retriable: False when a retry condition has said no.
        cache_key: under which a result may be found again.
        cache_expire_time: until when, microseconds; None: for ever.
        details: whatever else the writer attached; carried, never looked at.
    """

    type: StateType
    id: str
    timestamp: int
    name: str = ""
    message: str = ""
    data: object | None = None
    scheduled_time: int | None = None
    is_retry: bool = False
    is_resumption: bool = False
    is_given_back: bool = False
    is_relinquished: bool = False
    is_deferred: bool = False
    pause_timeout: int | None = None
    pause_reschedule: bool = False
    pause_key: str = ""
    retriable: bool | None = None
    cache_key: str = ""
    cache_expire_time: int | None = None
    details: object | None = None

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", default_name(self.type))

    @property
    def is_final(self) -> bool:
        """Whether the run has ended with it."""
        return self.type in FINAL_TYPES

    @property
    def has_result(self) -> bool:
        """COMPLETED, with a result that is kept."""
        return self.type is COMPLETED and self.data is not None

    @property
    def is_suspended(self) -> bool:
        """PAUSED, with no process left."""
        return self.type is PAUSED and self.pause_reschedule

    @property
    def is_another_try(self) -> bool:
        """RUNNING because the run tries again, perhaps with nothing in between: a retry without a delay."""
        return self.type is RUNNING and self.name == RETRYING

    @property
    def is_late(self) -> bool:
        """Marked as late. A decision hangs on the name because marking is renaming."""
        return self.type is SCHEDULED and self.name == "Late"


def scheduled_after(state: StateValue, now: int) -> StateValue:
    """`state`, or, if it is SCHEDULED for no time, the same for `now`."""
    if state.type is SCHEDULED and state.scheduled_time is None:
        return replace(state, scheduled_time=now)
    return state
