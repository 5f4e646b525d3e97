"""Recorded entries: what an executor says happened, applied to the rows at hand.

This is the hot path: one pass over entries that were taken apart once, no rule pipeline for states that
are merely recorded, and no copy of a message that need not be changed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from headrace.core.errors import (
    FieldsInvalid,
    ObjectNotFound,
    ServiceError,
    StaleAttempt,
    TransitionNotAllowed,
)
from headrace.core.states import StateType, default_name
from headrace.v1.log_pb2 import LogEntry
from headrace.v1.record_service_pb2 import DroppedNotice, RecordEntry
from headrace.v1.run_pb2 import Run
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.span_pb2 import Span
from headrace.v1.state_pb2 import ScheduledDetails, State
from headrace_services.domain.books import Books, keep_books
from headrace_services.domain.effects import RetryType
from headrace_services.domain.record import refuse_recorded
from headrace_services.domain.states import PAUSED, PENDING, RETRYING, SCHEDULED
from headrace_services.storage import steps
from headrace_services.storage.instants import micros
from headrace_services.storage.pause_notes import note_pause
from headrace_services.storage.proposals import propose
from headrace_services.storage.rows import (
    ROOT_FENCE,
    RecorderRow,
    RunRow,
    encode_tags,
    flow_id_of,
    full_spec,
    split_spec,
    text,
)
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["Op", "apply_entries", "make_run", "prepare", "record_state", "wanted_by"]


class StateOp(NamedTuple):
    """A recorded state, taken apart."""

    run_id: str
    fence: int
    state: State
    type: StateType | None
    state_id: str
    time: int
    want_verdict: bool


class RunOp(NamedTuple):
    """A run that begins, or new facts about one."""

    run: Run
    id: str
    owner_id: str
    parent_id: str
    root_id: str


Op: TypeAlias = StateOp | RunOp | LogEntry | Span | DroppedNotice | ServiceError
"""One entry, taken apart; an error in its place when it cannot be applied."""


def prepare(entries: Sequence[RecordEntry]) -> list[Op]:
    """Take the entries apart, once, however often the transaction is tried."""
    return [_prepared(entry) for entry in entries]


def _prepared(entry: RecordEntry) -> Op:
    kind = entry.WhichOneof("kind")
    if kind == "state":
        return _state_op(entry)
    if kind == "run":
        return _run_op(entry.run)
    if kind == "log":
        return entry.log
    if kind == "span":
        return entry.span
    if kind == "dropped":
        return entry.dropped
    return FieldsInvalid.of("kind", "an entry of a kind that this server does not know was left out")


def _state_op(entry: RecordEntry) -> Op:
    what = entry.state
    attempt, state = what.attempt, what.state
    try:
        type = StateType.from_number(state.type)
    except ValueError:
        return FieldsInvalid.of("state.type", "must be one of the defined state types")
    time = state.event_time
    return StateOp(
        attempt.run_id.lower(),
        attempt.fence,
        state,
        type,
        state.id.lower(),
        time.seconds * 1_000_000 + time.nanos // 1000,
        what.want_verdict,
    )


def _run_op(run: Run) -> RunOp:
    id, root_id = run.id.lower(), run.root_run_id.lower()
    return RunOp(run, id, run.owner_run_id.lower() or root_id, run.parent_run_id.lower(), root_id)


class Wanted(NamedTuple):
    """What must be loaded before entries can be applied."""

    runs: set[str]
    facts: list[tuple[str, str]]
    flows: set[str]
    roots: set[str]

    @classmethod
    def nothing(cls) -> Wanted:
        """Nothing yet."""
        return cls(set(), [], set(), set())


def wanted_by(ops: Sequence[Op], wanted: Wanted) -> None:
    """Add what `ops` need to `wanted`."""
    runs = wanted.runs
    for op in ops:
        if isinstance(op, StateOp):
            runs.add(op.run_id)
            if op.want_verdict:
                wanted.facts.append((op.run_id, op.state_id))
        elif isinstance(op, RunOp):
            _wanted_by_run(op, wanted)
        elif isinstance(op, (LogEntry, Span)) and not op.root_run_id:
            runs.add(op.run_id.lower())


def _wanted_by_run(op: RunOp, wanted: Wanted) -> None:
    wanted.runs.add(op.id)
    if op.owner_id:
        wanted.runs.add(op.owner_id)
    if op.parent_id and not op.root_id:
        wanted.runs.add(op.parent_id)
    if op.run.flow_name:
        wanted.flows.add(op.run.flow_name)
    if not op.parent_id:
        wanted.roots.add(op.id)


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
        return _stale(owner, fence)
    return run


def _stale(owner: RunRow, fence: int) -> StaleAttempt:
    return StaleAttempt(
        f"Run {owner.id} is owned by its attempt {owner.attempt} with fence {owner.fence}; "
        f"this write came with fence {fence}.",
        facts={"run_id": owner.id, "fence": str(owner.fence)},
    )


def _record(work: Work, recorder: RecorderRow, op: StateOp) -> ServiceError | None:
    run = _owned(work, op.run_id, op.fence)
    if isinstance(run, ServiceError):
        return run
    if run.recorder_id != recorder.id:
        run.recorder_id = recorder.id
        work.touch(run)
    return record_state(work, run, op)


def record_state(work: Work, run: RunRow, op: StateOp) -> ServiceError | None:
    """Write a state that its executor has decided on; the reason if nobody may."""
    if op.state_id == run.state_id:
        return None
    books, type, state = run.books, op.type, op.state
    assert type is not None
    refusal = refuse_recorded(books.type, run.is_presumed)
    if refusal is not None:
        return TransitionNotAllowed(refusal, facts={"run_id": run.id, "state_name": run.state_name})
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
    return None


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
        yield from _update_from(work, run, op.run)
        run.recorder_id = recorder.id
        work.touch(run)
    if not op.run.HasField("state"):
        return None
    state = _first_state(op.run.state)
    return state if isinstance(state, ServiceError) else record_state(work, run, state)


def _first_state(state: State) -> StateOp | ServiceError:
    try:
        type = StateType.from_number(state.type)
    except ValueError:
        return FieldsInvalid.of("run.state.type", "must be one of the defined state types")
    return StateOp("", 0, state, type, state.id.lower(), micros(state.event_time), False)


def make_run(work: Work, op: RunOp, recorder_id: str | None) -> RunRow | ServiceError:
    """A new run, without a state, among the rows at hand."""
    source = op.run
    if op.id in work.deleted:
        return StaleAttempt(f"Run {op.id} was deleted.", facts={"run_id": op.id})
    root_id, owner_id = op.root_id, op.owner_id
    if op.parent_id and not root_id:
        parent = work.runs.get(op.parent_id)
        if parent is None:
            return ObjectNotFound.of("run", op.parent_id)
        root_id = parent.root_id
        owner_id = owner_id or parent.owner_id
    root_id = root_id or op.id
    owner_id = owner_id or root_id
    if owner_id != op.id:
        owner = work.runs.get(owner_id)
        if owner is None:
            return ObjectNotFound.of("run", owner_id)
        fence = source.fence or ROOT_FENCE
        if recorder_id is not None and owner.fence != fence:
            return _stale(owner, fence)
    run = _blank_run(work, source)
    run.id, run.root_id, run.owner_id = op.id, root_id, owner_id
    run.parent_id = op.parent_id or None
    run.recorder_id = recorder_id
    work.runs[op.id] = run
    work.touch(run)
    return run


def _blank_run(work: Work, source: Run) -> RunRow:
    run = RunRow()
    run.kind = source.kind
    run.name = text(source.name)
    run.task_name = text(source.task_name) if source.task_name else None
    run.flow_id = _note_flow(work, source.flow_name) if source.flow_name else None
    run.deployment_id = source.deployment_id or None
    run.work_pool = source.work_pool or None
    run.work_queue = source.work_queue or None
    run.idempotency_key = run.create_digest = None
    run.tags = run.stored_tags = None
    if source.tags:
        run.tags = encode_tags(source)
    run.books = _NO_BOOKS
    run.state_name, run.state_id, run.state_seq = "", None, 0
    run.is_presumed = False
    run.attempt = source.attempt or 1
    run.fence = source.fence or ROOT_FENCE
    run.flow_run_count = 0
    run.retry_type, run.pause_keys = RetryType.NONE, ""
    run.create_time = work.now
    run.version = 0
    run.spec, run.full_spec = split_spec(source)
    run.body = None
    run.stored_version, run.stored_type = None, 0
    run.writes_spec = run.writes_full_spec = True
    return run


_NO_BOOKS: Final = Books()


def _note_flow(work: Work, name: str) -> str:
    """The flow's id; it is made if it is not there."""
    name = text(name)
    id = flow_id_of(name)
    if id not in work.known_flows:
        work.known_flows.add(id)
        work.writes.flows[id] = name
    return id


def _update_from(work: Work, run: RunRow, source: Run) -> Steps[None]:
    """Take over the facts that a further entry about a run brings."""
    if source.name:
        run.name = text(source.name)
    if source.tags:
        run.tags = encode_tags(source)
    if source.HasField("parameters"):
        yield from load_full(run)
        full = Run.FromString(run.full_spec or b"")
        full.parameters.CopyFrom(source.parameters)
        run.full_spec, run.writes_full_spec = full_spec(full), True
    if source.inputs or source.labels:
        spec = Run.FromString(run.spec)
        if source.inputs:
            spec.ClearField("inputs")
            spec.inputs.extend(source.inputs)
        if source.labels:
            spec.ClearField("labels")
            spec.labels.update(source.labels)
        run.spec, run.writes_spec = spec.SerializeToString(), True


def load_full(run: RunRow) -> Steps[None]:
    """Make sure that `run.full_spec` is what the database has."""
    if run.stored_version is not None and run.full_spec is None:
        run.full_spec = yield from steps.load_full_spec(run.id)


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
