"""States: from the wire to what rules see, and back."""

from __future__ import annotations

from typing import Final

from headrace.core.states import StateType, default_name
from headrace.core.verdicts import Abort, Accept, Reject, Verdict, Wait
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import ScheduledDetails, State
from headrace_services.domain.states import (
    COMPLETED,
    FAILED,
    PAUSED,
    PENDING,
    RUNNING,
    SCHEDULED,
    StateValue,
)
from headrace_services.storage.instants import micros, set_micros, to_duration

__all__ = ["StateStamp", "decode_state", "encode_state", "verdict_message"]


def decode_state(state: State) -> StateValue:
    """What rules see of `state`, which travels along as its details."""
    scheduled_time: int | None = None
    type = StateType.from_number(state.type)
    cause = state.scheduled.cause
    if type is SCHEDULED and state.scheduled.HasField("scheduled_time"):
        scheduled_time = micros(state.scheduled.scheduled_time)
    elif type is PENDING and state.pending.HasField("scheduled_time"):
        scheduled_time = micros(state.pending.scheduled_time)
    return StateValue(
        type,
        state.id.lower(),
        micros(state.event_time),
        name=state.name,
        message=state.message,
        data=state.data if state.HasField("data") else None,
        scheduled_time=scheduled_time,
        is_retry=cause == ScheduledDetails.CAUSE_RETRY,
        is_resumption=cause == ScheduledDetails.CAUSE_RESUMED,
        is_given_back=cause == ScheduledDetails.CAUSE_ATTEMPT_LOST,
        is_relinquished=cause == ScheduledDetails.CAUSE_RELINQUISHED,
        is_deferred=state.scheduled.deferred,
        pause_timeout=micros(state.paused.timeout_time) if state.paused.HasField("timeout_time") else None,
        pause_reschedule=state.paused.reschedule,
        pause_key=state.paused.pause_key,
        retriable=state.failed.retriable if state.failed.HasField("retriable") else None,
        cache_key=state.completed.cache_key,
        cache_expire_time=_cache_expire_time(state),
        details=state,
    )


def _cache_expire_time(state: State) -> int | None:
    completed = state.completed
    return micros(completed.cache_expire_time) if completed.HasField("cache_expire_time") else None


def encode_state(value: StateValue, *, run_count: int, record_time: int, forced_by: str = "") -> State:
    """The message of a state that is about to be written."""
    state = State()
    if isinstance(value.details, State):
        state.CopyFrom(value.details)
    state.id = value.id
    state.type = value.type.number  # type: ignore[assignment]  # the number is the wire's own
    state.name = value.name
    state.message = value.message
    state.forced_by = forced_by
    set_micros(state.event_time, value.timestamp)
    set_micros(state.record_time, record_time)
    if value.data is None:
        state.ClearField("data")
    else:
        state.data.CopyFrom(value.data)  # type: ignore[arg-type]  # opaque above, a Payload here
    _encode_details(state, value, run_count)
    return state


def _encode_details(state: State, value: StateValue, run_count: int) -> None:
    if value.type is SCHEDULED:
        if value.scheduled_time is not None:
            set_micros(state.scheduled.scheduled_time, value.scheduled_time)
        if not state.scheduled.cause:
            state.scheduled.cause = _cause(value)
        state.scheduled.deferred = value.is_deferred
    elif value.type is PENDING and value.scheduled_time is not None:
        set_micros(state.pending.scheduled_time, value.scheduled_time)
    elif value.type is RUNNING:
        state.running.run_count = run_count
    elif value.type is PAUSED:
        _encode_pause(state, value)
    elif value.type is COMPLETED and (value.cache_key or value.name == "Cached"):
        state.completed.cache_key = value.cache_key
        if value.cache_expire_time is not None:
            set_micros(state.completed.cache_expire_time, value.cache_expire_time)
        if not isinstance(value.details, State):
            state.completed.from_cache = True
    elif value.type is FAILED and value.retriable is not None:
        state.failed.retriable = value.retriable


def _encode_pause(state: State, value: StateValue) -> None:
    state.paused.reschedule = value.pause_reschedule
    state.paused.pause_key = value.pause_key
    if value.pause_timeout is not None:
        set_micros(state.paused.timeout_time, value.pause_timeout)


def _cause(value: StateValue) -> ScheduledDetails.Cause.ValueType:
    if value.is_retry:
        return ScheduledDetails.CAUSE_RETRY
    if value.is_resumption:
        return ScheduledDetails.CAUSE_RESUMED
    if value.name == "AwaitingConcurrencySlot":
        return ScheduledDetails.CAUSE_AWAITING_CONCURRENCY
    return ScheduledDetails.CAUSE_UNSPECIFIED


def verdict_message(verdict: Verdict[StateValue], written: State | None) -> ProposeStateResponse:
    """The wire's form of a verdict; `written` is the state that was written, if one was."""
    response = ProposeStateResponse()
    match verdict:
        case Accept(state):
            response.accepted.state.CopyFrom(_known(state, written))
        case Reject(state, reason):
            response.rejected.state.CopyFrom(_known(state, written))
            response.rejected.reason = reason
        case Wait(seconds, reason):
            response.wait.retry_after.CopyFrom(to_duration(int(seconds * 1_000_000)))
            response.wait.reason = reason
        case Abort(reason):
            response.abort.reason = reason
    return response


def _known(value: StateValue, written: State | None) -> State:
    """The state that was written, or the one that was read."""
    if written is not None:
        return written
    assert isinstance(value.details, State)
    return value.details


_DEFAULT_NAMES: Final = {type: default_name(type) for type in StateType}
_NAME_FIELDS: Final = {
    type: b"\x1a" + bytes([len(name)]) + name.encode() for type, name in _DEFAULT_NAMES.items()
}


class StateStamp:
    """Adds what the server knows to states that are kept as they came.

    Bytes appended to a serialised message are merged into it when it is read, so a recorded state is
    stored without being taken apart.
    """

    __slots__ = ("_recorded", "record_time")

    def __init__(self, record_time: int) -> None:
        self.record_time = record_time
        stamp = State()
        set_micros(stamp.record_time, record_time)
        self._recorded = stamp.SerializeToString()

    def body(self, state: State, type: StateType, timestamp: int, run_count: int) -> bytes:
        """`state`, serialised, with the server's facts.

        Args:
            state: as it came; not changed.
            type: its type.
            timestamp: when it was entered, microseconds.
            run_count: of the run, for a RUNNING state.
        """
        if (
            state.forced_by
            or state.HasField("record_time")
            or timestamp != state.event_time.seconds * 1_000_000 + state.event_time.nanos // 1000
        ):
            state = self._corrected(state, timestamp)
        body = state.SerializeToString() + self._recorded
        if not state.name:
            body += _NAME_FIELDS[type]
        if type is RUNNING:
            body += _running_field(run_count)
        return body

    def _corrected(self, state: State, timestamp: int) -> State:
        copy = State()
        copy.CopyFrom(state)
        copy.forced_by = ""
        copy.ClearField("record_time")
        set_micros(copy.event_time, timestamp)
        return copy


def _running_field(run_count: int) -> bytes:
    if run_count < 128:
        return b"\x62\x02\x08" + bytes((run_count,))
    stamp = State()
    stamp.running.run_count = run_count
    return stamp.SerializeToString()
