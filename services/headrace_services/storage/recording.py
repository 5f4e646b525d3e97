"""Recorded entries: what an executor says happened, applied to the rows at hand.

This is the hot path: one pass over entries that were taken apart once, no rule pipeline for states that
are merely recorded, and no copy of a message that need not be changed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from headrace.core.errors import ObjectNotFound, ServiceError, TransitionNotAllowed
from headrace.core.states import default_name
from headrace.v1.event_pb2 import Event
from headrace.v1.log_pb2 import LogEntry
from headrace.v1.record_service_pb2 import DroppedNotice
from headrace.v1.run_pb2 import RUN_KIND_FLOW
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.span_pb2 import Span
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLED, ScheduledDetails, State
from headrace_services.domain.books import keep_books
from headrace_services.domain.effects import RetryType
from headrace_services.domain.record import begins_anew_with, refuse_recorded
from headrace_services.domain.states import (
    CANCELLED,
    CANCELLING,
    FINAL_TYPES,
    PAUSED,
    PENDING,
    RETRYING,
    SCHEDULED,
)
from headrace_services.storage.cancel_notes import note_cancelling
from headrace_services.storage.events import record_event
from headrace_services.storage.instants import micros
from headrace_services.storage.log_fields import encode_fields
from headrace_services.storage.ops import Op, RunOp, StateOp, first_state
from headrace_services.storage.pause_notes import note_pause
from headrace_services.storage.proposals import propose
from headrace_services.storage.rows import ROOT_FENCE, RecorderRow, RunRow, text
from headrace_services.storage.run_making import make_run, stale_attempt, update_from
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["apply_entries", "record_state"]


def apply_entries(
    work: Work, recorder: RecorderRow, first_seq: int, ops: Sequence[Op]
) -> Steps[list[tuple[int, ProposeStateResponse | ServiceError]]]:
    """Apply the entries from `first_seq` on, and advance the recorder.

    Entries that are durable already are skipped, but for those that wait for a verdict: its answer was
    lost on the way, so the question is put again.
    """
    results: list[tuple[int, ProposeStateResponse | ServiceError]] = []
    done = recorder.durable_seq
    seq = first_seq - 1
    for op in ops:
        seq += 1
        if isinstance(op, StateOp):
            if seq <= done and not op.want_verdict:
                continue
            outcome = (
                (yield from _verdict(work, recorder, op)) if op.want_verdict else _record(work, recorder, op)
            )
        elif seq <= done:
            continue
        else:
            outcome = yield from _apply(work, recorder, op)
        if outcome is not None:
            results.append((seq, outcome))
    if seq > done:
        recorder.durable_seq = seq
        work.touch_recorder(recorder)
    return results


def _apply(work: Work, recorder: RecorderRow, op: Op) -> Steps[ServiceError | None]:
    if isinstance(op, RunOp):
        return (yield from _record_run(work, recorder, op))
    if isinstance(op, LogEntry):
        return _record_log(work, op)
    if isinstance(op, Span):
        return _record_span(work, op)
    if isinstance(op, Event):
        return record_event(work, op)
    if isinstance(op, DroppedNotice):
        recorder.dropped_logs += op.logs
        recorder.dropped_spans += op.spans
        return None
    assert isinstance(op, ServiceError)
    return op


# States


def _owned(work: Work, run_id: str, fence: int) -> RunRow | ServiceError:
    """The run, if the writer with `fence` may write to it."""
    run = work.runs.get(run_id)
    if run is None:
        return ObjectNotFound.of("run", run_id)
    owner = run if run.owner_id == run_id else work.runs.get(run.owner_id)
    if owner is None:
        return ObjectNotFound.of("run", run.owner_id)
    if owner.fence != fence:
        return stale_attempt(owner, fence)
    return run


def _record(work: Work, recorder: RecorderRow, op: StateOp) -> ServiceError | None:
    run = _owned(work, op.run_id, op.fence)
    if isinstance(run, ServiceError):
        return run
    if run.recorder_id != recorder.id:
        run.recorder_id = recorder.id
        work.touch(run)
    return record_state(work, run, op)


def record_state(work: Work, run: RunRow, op: StateOp, *, begins_anew: bool = False) -> ServiceError | None:
    """Write a state that its executor has decided on; the reason if nobody may.

    Args:
        work: the rows at hand.
        run: the run.
        op: the state.
        begins_anew: a run that has ended is run again.
    """
    if op.state_id == run.state_id:
        return None
    books, type, state = run.books, op.type, op.state
    assert type is not None
    refusal = None if begins_anew else refuse_recorded(books.type, run.is_presumed, type, state.name)
    if refusal is not None:
        return TransitionNotAllowed(refusal, facts={"run_id": run.id, "state_name": run.state_name})
    if books.type is CANCELLING and run.kind == RUN_KIND_FLOW and type in FINAL_TYPES:
        type, state = CANCELLED, _cancelled(state)
    scheduled_time = None
    if type is SCHEDULED:
        scheduled_time = micros(state.scheduled.scheduled_time) or work.now
        is_retry = state.scheduled.cause == ScheduledDetails.CAUSE_RETRY
        run.retry_type = RetryType.IN_PROCESS if is_retry else RetryType.NONE
        if is_retry:
            run.pause_keys = ""
    elif type is PENDING and state.pending.HasField("scheduled_time"):
        scheduled_time = micros(state.pending.scheduled_time)
    elif type is PAUSED:
        state = _noted_pause(work, run, state)
    books = keep_books(books, type, op.time, scheduled_time, is_retry=state.name == RETRYING)
    run.is_presumed = False
    body = work.stamp.body(state, type, books.timestamp, books.run_count)
    work.enter(run, op.state_id, text(state.name) or default_name(type), books, body)
    if type is CANCELLING:
        note_cancelling(work, run, state)
    return None


def _cancelled(state: State) -> State:
    """The state in which a flow run ends that is being cancelled, whatever its process ended with."""
    if state.type == STATE_TYPE_CANCELLED:
        return state
    kept = State(id=state.id, type=STATE_TYPE_CANCELLED, message=state.message)
    kept.event_time.CopyFrom(state.event_time)
    return kept


def _noted_pause(work: Work, run: RunRow, state: State) -> State:
    """The paused state as it is kept. Only a process that had no server to ask records one."""
    kept = State()
    kept.CopyFrom(state)
    note_pause(work, run, kept)
    if state.paused.pause_key:
        fired = set(json.loads(run.pause_keys)) if run.pause_keys else set[str]()
        run.pause_keys = json.dumps(sorted(fired | {text(state.paused.pause_key)}))
    return kept


def _verdict(work: Work, recorder: RecorderRow, op: StateOp) -> Steps[ProposeStateResponse | ServiceError]:
    run = _owned(work, op.run_id, op.fence)
    if isinstance(run, ServiceError):
        return run
    if run.recorder_id != recorder.id:
        run.recorder_id = recorder.id
        work.touch(run)
    return (yield from propose(work, run, op.state, by_executor=True))


# Runs


def _record_run(work: Work, recorder: RecorderRow, op: RunOp) -> Steps[ServiceError | None]:
    run = work.runs.get(op.id)
    if run is None:
        made = make_run(work, op, recorder.id)
        if isinstance(made, ServiceError):
            return made
        run = made
    else:
        owned = _owned(work, op.id, op.run.fence or ROOT_FENCE)
        if isinstance(owned, ServiceError):
            return owned
        yield from update_from(work, run, op.run)
        run.recorder_id = recorder.id
        work.touch(run)
    if not op.run.HasField("state"):
        return None
    state = first_state(op.run.state)
    if isinstance(state, ServiceError):
        return state
    begins_anew = begins_anew_with(run.books.type, op.run.step_key, state.type)
    if begins_anew:
        run.attempt, run.fence = op.run.attempt or run.attempt, op.run.fence or run.fence
    return record_state(work, run, state, begins_anew=begins_anew)


# Logs and spans


def _record_log(work: Work, log: LogEntry) -> ServiceError | None:
    root_id = _root_of(work, log)
    if isinstance(root_id, ServiceError):
        return root_id
    work.writes.logs.append(
        (
            log.run_id.lower(),
            root_id,
            micros(log.time),
            log.level,
            text(log.logger),
            text(log.message),
            _rest(log),
            encode_fields(log.fields) if log.HasField("fields") else None,
        )
    )
    return None


def _rest(log: LogEntry) -> bytes | None:
    """What of a log line has no column."""
    if not (log.trace_id or log.span_id or log.attempt or log.HasField("fields")):
        return None
    rest = LogEntry(trace_id=log.trace_id, span_id=log.span_id, attempt=log.attempt)
    if log.HasField("fields"):
        rest.fields.CopyFrom(log.fields)
    return rest.SerializeToString()


def _record_span(work: Work, span: Span) -> ServiceError | None:
    root_id = _root_of(work, span)
    if isinstance(root_id, ServiceError):
        return root_id
    body = span.SerializeToString()
    work.writes.spans.append((span.run_id.lower(), root_id, span.trace_id, micros(span.start_time), body))
    return None


def _root_of(work: Work, item: LogEntry | Span) -> str | ServiceError:
    if item.root_run_id:
        return item.root_run_id.lower()
    run_id = item.run_id.lower()
    run = work.runs.get(run_id)
    return ObjectNotFound.of("run", run_id) if run is None else run.root_id
