"""Runs and states as they go on the record, and states as they come back."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from headrace.core.clock import from_micros, to_micros
from headrace.core.limits import CACHE_KEY_CHARACTERS, NAME_CHARACTERS, STATE_MESSAGE_BYTES, TAGS_PER_RUN
from headrace.core.states import FINAL, StateType
from headrace.exceptions import RecordedError, SerializationError
from headrace.execution.parameters import recorded_parameters
from headrace.results import InlineResult, StoredResult
from headrace.runs import FlowRun, RunPolicy, TaskRun
from headrace.states.value import NO_DATA, State, StateDetails
from headrace.v1 import run_pb2, state_pb2
from headrace.v1.record_service_pb2 import RecordEntry

__all__ = ["run_entry", "state_entry", "state_from_proto"]

_TRACEBACK_CHARACTERS: Final = 16_000
_CAUSES: Final = 8
_log = logging.getLogger("headrace.results")


def run_entry(run: FlowRun | TaskRun, state: State[Any] | None) -> RecordEntry:
    """The entry that says that `run` exists, with its first state; without one: what has changed in it."""
    entry = RecordEntry()
    message = entry.run
    message.id = run.id
    message.name = run.name[:NAME_CHARACTERS]
    message.root_run_id = run.root_run_id
    message.owner_run_id = run.owner.run_id
    if run.parent_run_id is not None:
        message.parent_run_id = run.parent_run_id
    if isinstance(run, TaskRun):
        message.kind = run_pb2.RUN_KIND_TASK
        message.task_key = run.task_key
        message.task_name = run.task_name[:NAME_CHARACTERS]
        message.dynamic_key = run.dynamic_key
    else:
        message.kind = run_pb2.RUN_KIND_FLOW
        message.flow_version = (run.flow_version or "")[:NAME_CHARACTERS]
        if run.deployment_id is not None:
            message.deployment_id = run.deployment_id
    message.flow_name = run.flow_name[:NAME_CHARACTERS]
    if run.tags:
        message.tags.extend(tag[:NAME_CHARACTERS] for tag in run.tags[:TAGS_PER_RUN])
    if run.inputs:
        _put_inputs(message, run.inputs)
    if run.parameters:
        message.parameters.encoding = "json"
        message.parameters.inline = recorded_parameters(run.parameters)
    if run.step_key:
        message.step_key = run.step_key
        message.step_committed = run.step_committed
    if run.traceparent:
        message.traceparent = run.traceparent
    message.attempt = run.owner.attempt
    message.fence = run.owner.fence
    if run.policy is not None:
        _put_policy(message, run.policy)
    if state is not None:
        _put_state(message.state, run, state)
    return entry


def _put_inputs(message: run_pb2.Run, inputs: Mapping[str, Any]) -> None:
    for parameter, run_ids in inputs.items():
        message.inputs.add(parameter=parameter[:NAME_CHARACTERS], run_ids=run_ids)


def _put_policy(message: run_pb2.Run, policy: RunPolicy) -> None:
    if policy.timeout_seconds:
        message.timeout.FromMicroseconds(round(policy.timeout_seconds * 1_000_000))
    if policy.is_durable:
        message.retry_policy.on_lost = run_pb2.LOST_ATTEMPT_POLICY_RESCHEDULE
    if policy.deadline_seconds:
        message.retry_policy.deadline.FromMicroseconds(round(policy.deadline_seconds * 1_000_000))
    if policy.retries:
        message.retry_policy.max_retries = policy.retries
        message.retry_policy.jitter_factor = policy.retry_jitter_factor
        for delay in policy.retry_delays:
            message.retry_policy.delays.add().FromMicroseconds(round(delay * 1_000_000))


def state_entry(run: FlowRun | TaskRun, state: State[Any]) -> RecordEntry:
    """The entry that says that `run` has entered `state`."""
    entry = RecordEntry()
    message = entry.state
    owner = run.owner
    attempt = message.attempt
    attempt.run_id = run.id
    attempt.attempt = owner.attempt
    attempt.fence = owner.fence
    _put_state(message.state, run, state)
    return entry


def _put_state(message: state_pb2.State, run: FlowRun | TaskRun, state: State[Any]) -> None:
    message.id = state.id
    message.type = state.type.number  # type: ignore[assignment]
    message.name = state.name[:64]
    micros = state.micros
    message.event_time.seconds = micros // 1_000_000
    message.event_time.nanos = micros % 1_000_000 * 1000
    if state.message:
        message.message = _cut(state.message, STATE_MESSAGE_BYTES)
    kind = state.type
    if kind is StateType.RUNNING or kind is StateType.PENDING:
        return
    if kind in FINAL:
        _put_data(message, run, state)
    _put_details(message, state)


LEFT_TO: Final = {
    "server": state_pb2.ScheduledDetails.CAUSE_ATTEMPT_LOST,
    "infrastructure": state_pb2.ScheduledDetails.CAUSE_RELINQUISHED,
}
"""Why a run is scheduled whose process leaves it."""


def _put_details(message: state_pb2.State, state: State[Any]) -> None:
    details = state.state_details
    if state.type is StateType.SCHEDULED:
        _put_time(message.scheduled.scheduled_time, details.scheduled_time)
        if details.left_to:
            message.scheduled.cause = LEFT_TO[details.left_to]
        elif state.name == "AwaitingRetry":
            message.scheduled.cause = state_pb2.ScheduledDetails.CAUSE_RETRY
    elif state.type is StateType.PAUSED:
        message.paused.reschedule = details.pause_reschedule
        message.paused.pause_key = details.pause_key or ""
        _put_time(message.paused.timeout_time, details.pause_timeout)
    elif state.type is StateType.COMPLETED:
        if details.cache_key:
            message.completed.cache_key = details.cache_key[:CACHE_KEY_CHARACTERS]
            message.completed.from_cache = state.name == "Cached"
            _put_time(message.completed.cache_expire_time, details.cache_expiration)
            if details.producer_run_id:
                message.completed.producer_run_id = details.producer_run_id
        if details.returned_state:
            message.completed.returned_state = True
        if details.untrackable_result:
            message.completed.untrackable_result = True
    elif state.type is StateType.FAILED:
        if details.retriable is not None:
            message.failed.retriable = details.retriable
        if isinstance(state.data, BaseException):
            _put_error(message.failed.error, state.data)
    elif state.type is StateType.CRASHED and isinstance(state.data, BaseException):
        _put_error(message.crashed.error, state.data)


def _put_time(message: Any, time: datetime | None) -> None:
    if time is not None:
        message.FromMicroseconds(to_micros(time))


def _put_data(message: state_pb2.State, run: FlowRun | TaskRun, state: State[Any]) -> None:
    if not state.has_data or run.persist_result is False:
        return
    if state.kept is not None:
        state.kept.put_in(message.data)
        return
    try:
        result = InlineResult.of(state.data)
    except SerializationError as error:
        if run.persist_result:
            _log.warning("The result of run %r is not recorded: %s", run.name, error)
        return
    result.put_in(message.data)


def _put_error(message: state_pb2.ErrorDescription, error: BaseException, left: int = _CAUSES) -> None:
    cls = type(error)
    message.type = f"{cls.__module__}.{cls.__qualname__}"
    try:
        text, lines = str(error), traceback.format_exception(cls, error, error.__traceback__, chain=False)
    except Exception:  # a user's __str__ raises
        text, lines = "", traceback.format_tb(error.__traceback__)
    message.message = _cut(text, STATE_MESSAGE_BYTES)
    message.traceback = _cut("".join(lines), _TRACEBACK_CHARACTERS, keep_end=True)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and left:
        _put_error(message.cause, cause, left - 1)


def _cut(text: str, limit_bytes: int, keep_end: bool = False) -> str:
    """`text` in at most so many bytes of UTF-8; what cannot be encoded becomes question marks."""
    if len(text) * 4 <= limit_bytes and text.isascii():
        return text
    blob = text.encode("utf-8", "replace")
    if len(blob) > limit_bytes:
        blob = b"..." + blob[-limit_bytes + 3 :] if keep_end else blob[: limit_bytes - 3] + b"..."
    return blob.decode("utf-8", "ignore")


def state_from_proto(
    message: state_pb2.State, *, flow_run_id: str | None = None, task_run_id: str | None = None
) -> State[Any]:
    """A state of a run as a server tells it; its data is decoded only when somebody asks for it.

    Args:
        message: the state.
        flow_run_id: the flow run that the state belongs to.
        task_run_id: the task run that it belongs to.
    """
    type = StateType.from_number(message.type)
    details = StateDetails(flow_run_id=flow_run_id, task_run_id=task_run_id)
    _take_details(message, details)
    error = _recorded_error_of(message)
    data = StoredResult(message.data, error) if message.HasField("data") else error or NO_DATA
    micros = message.event_time.ToMicroseconds()
    state = State.at(micros, type, message.name or type.value.title(), details, message.message or None, data)
    state.id = message.id
    return state


def _take_details(message: state_pb2.State, details: StateDetails) -> None:
    kind = message.WhichOneof("details")
    if kind == "scheduled":
        details.scheduled_time = from_micros(message.scheduled.scheduled_time.ToMicroseconds())
        details.deferred = message.scheduled.deferred
    elif kind == "paused":
        details.pause_reschedule = message.paused.reschedule
        details.pause_key = message.paused.pause_key or None
        if message.paused.HasField("timeout_time"):
            details.pause_timeout = from_micros(message.paused.timeout_time.ToMicroseconds())
    elif kind == "completed":
        details.cache_key = message.completed.cache_key or None
        details.producer_run_id = message.completed.producer_run_id or None
        details.returned_state = message.completed.returned_state
        details.untrackable_result = message.completed.untrackable_result
        if message.completed.HasField("cache_expire_time"):
            details.cache_expiration = from_micros(message.completed.cache_expire_time.ToMicroseconds())
    elif kind == "failed" and message.failed.HasField("retriable"):
        details.retriable = message.failed.retriable


def _recorded_error_of(message: state_pb2.State) -> RecordedError | None:
    if message.failed.error.type:
        return _recorded_error(message.failed.error)
    return _recorded_error(message.crashed.error) if message.crashed.error.type else None


def _recorded_error(message: state_pb2.ErrorDescription) -> RecordedError:
    error = RecordedError(message.message, message.type, message.traceback)
    if message.HasField("cause"):
        error.__cause__ = _recorded_error(message.cause)
    return error
