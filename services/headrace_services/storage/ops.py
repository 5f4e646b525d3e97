"""Recorded entries, taken apart once: what they are, and what must be loaded for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from headrace.core.errors import FieldsInvalid, ServiceError
from headrace.core.states import StateType
from headrace.v1.event_pb2 import Event
from headrace.v1.log_pb2 import LogEntry
from headrace.v1.record_service_pb2 import DroppedNotice, RecordEntry
from headrace.v1.run_pb2 import Run
from headrace.v1.span_pb2 import Span
from headrace.v1.state_pb2 import State
from headrace_services.storage.instants import micros

__all__ = ["Op", "RunOp", "StateOp", "Wanted", "first_state", "prepare", "run_op", "wanted_by"]


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


Op: TypeAlias = StateOp | RunOp | LogEntry | Span | Event | DroppedNotice | ServiceError
"""One entry, taken apart; an error in its place when it cannot be applied."""


def prepare(entries: Sequence[RecordEntry]) -> list[Op]:
    """Take the entries apart, once, however often the transaction is tried."""
    return [_prepared(entry) for entry in entries]


def _prepared(entry: RecordEntry) -> Op:
    kind = entry.WhichOneof("kind")
    if kind == "state":
        return _state_op(entry)
    if kind == "run":
        return run_op(entry.run)
    if kind == "log":
        return entry.log
    if kind == "span":
        return entry.span
    if kind == "event":
        return entry.event
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


def run_op(run: Run) -> RunOp:
    """A run, taken apart."""
    id, root_id = run.id.lower(), run.root_run_id.lower()
    return RunOp(run, id, run.owner_run_id.lower() or root_id, run.parent_run_id.lower(), root_id)


class Wanted(NamedTuple):
    """What must be loaded before entries can be applied."""

    runs: set[str]
    facts: list[tuple[str, str]]
    flows: set[str]
    roots: set[str]
    keys: set[tuple[str, str]]
    fresh: set[str]
    """Runs that are asked for under ids of their own: hardly ever is there one already."""

    @classmethod
    def nothing(cls) -> Wanted:
        """Nothing yet."""
        return cls(set(), [], set(), set(), set(), set())


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


def first_state(state: State) -> StateOp | ServiceError:
    """The state that came with a run, taken apart."""
    try:
        type = StateType.from_number(state.type)
    except ValueError:
        return FieldsInvalid.of("run.state.type", "must be one of the defined state types")
    return StateOp("", 0, state, type, state.id.lower(), micros(state.event_time), False)
