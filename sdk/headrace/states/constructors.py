"""One function for each state that the system has a name for.

Each takes the class to make (`State`), what is special about the state, and the fields of `State` by keyword.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.core.states import StateType
from headrace.states.value import State, StateDetails

__all__ = [
    "AwaitingConcurrencySlot",
    "AwaitingRetry",
    "Cancelled",
    "Cancelling",
    "Completed",
    "Crashed",
    "Failed",
    "InfrastructurePending",
    "Late",
    "Paused",
    "Pending",
    "Retrying",
    "Running",
    "Scheduled",
    "Submitting",
    "Suspended",
]


def _named(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a state that is called `name` unless they say otherwise."""
    return {"name": name, **fields}


def Scheduled(
    cls: type[State[Any]] = State, scheduled_time: datetime | None = None, **fields: Any
) -> State[Any]:
    """A state in which a run waits for `scheduled_time` (default: now).

    Raises:
        ValueError: the time is given twice, as an argument and in the details.
    """
    details: StateDetails = fields.pop("state_details", None) or StateDetails()
    if scheduled_time and details.scheduled_time:
        raise ValueError("An extra scheduled_time was provided in state_details.")
    details = replace(details, scheduled_time=scheduled_time or details.scheduled_time or datetime.now(UTC))
    return cls(type=StateType.SCHEDULED, state_details=details, **fields)


def Late(cls: type[State[Any]] = State, scheduled_time: datetime | None = None, **fields: Any) -> State[Any]:
    """SCHEDULED, and past its time."""
    return Scheduled(cls, scheduled_time, **_named("Late", fields))


def AwaitingRetry(
    cls: type[State[Any]] = State, scheduled_time: datetime | None = None, **fields: Any
) -> State[Any]:
    """SCHEDULED for another attempt after a failure."""
    return Scheduled(cls, scheduled_time, **_named("AwaitingRetry", fields))


def AwaitingConcurrencySlot(
    cls: type[State[Any]] = State, scheduled_time: datetime | None = None, **fields: Any
) -> State[Any]:
    """SCHEDULED until a concurrency limit has a free slot."""
    return Scheduled(cls, scheduled_time, **_named("AwaitingConcurrencySlot", fields))


def Pending(cls: type[State[Any]] = State, **fields: Any) -> State[Any]:
    """Accepted, about to start."""
    return cls(type=StateType.PENDING, **fields)


def Submitting(cls: type[State[Any]] = State, **fields: Any) -> State[Any]:
    """PENDING: being handed to its infrastructure."""
    return cls(type=StateType.PENDING, **_named("Submitting", fields))


def InfrastructurePending(cls: type[State[Any]] = State, **fields: Any) -> State[Any]:
    """PENDING: waiting for its infrastructure to start."""
    return cls(type=StateType.PENDING, **_named("InfrastructurePending", fields))


def Running(cls: type[State[Any]] = State, **fields: Any) -> State[Any]:
    """The body runs."""
    return cls(type=StateType.RUNNING, **fields)


def Retrying(cls: type[State[Any]] = State, **fields: Any) -> State[Any]:
    """RUNNING, for the second time or more."""
    return cls(type=StateType.RUNNING, **_named("Retrying", fields))


def Paused(
    cls: type[State[Any]] = State,
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    reschedule: bool = False,
    pause_key: str | None = None,
    **fields: Any,
) -> State[Any]:
    """Waiting to be resumed, until a time if one is given.

    Raises:
        ValueError: both a timeout and an expiration are given.
    """
    if timeout_seconds is not None and pause_expiration_time is not None:
        raise ValueError("Cannot supply both of pause_expiration_time and timeout_seconds")
    details: StateDetails = fields.pop("state_details", None) or StateDetails()
    if timeout_seconds is not None:
        pause_expiration_time = datetime.now(UTC) + timedelta(seconds=timeout_seconds)
    details = replace(
        details,
        pause_timeout=pause_expiration_time or details.pause_timeout,
        pause_reschedule=reschedule or details.pause_reschedule,
        pause_key=pause_key or details.pause_key,
    )
    return cls(type=StateType.PAUSED, state_details=details, **fields)


def Suspended(
    cls: type[State[Any]] = State,
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    pause_key: str | None = None,
    **fields: Any,
) -> State[Any]:
    """PAUSED, and the process has left."""
    fields = _named("Suspended", fields)
    return Paused(cls, timeout_seconds, pause_expiration_time, True, pause_key, **fields)


def Cancelling(cls: type[State[Any]] = State, **fields: Any) -> State[Any]:
    """Asked to end; the body is being interrupted."""
    return cls(type=StateType.CANCELLING, **fields)


def Cancelled(cls: type[State[Any]] = State, **fields: Any) -> State[Any]:
    """Ended because somebody asked for it."""
    return cls(type=StateType.CANCELLED, **fields)


def Completed(cls: type[State[Any]] = State, **fields: Any) -> State[Any]:
    """Ended well."""
    return cls(type=StateType.COMPLETED, **fields)


def Failed(cls: type[State[Any]] = State, **fields: Any) -> State[Any]:
    """Ended because the user's code failed."""
    return cls(type=StateType.FAILED, **fields)


def Crashed(cls: type[State[Any]] = State, **fields: Any) -> State[Any]:
    """Ended because the infrastructure went away."""
    return cls(type=StateType.CRASHED, **fields)
