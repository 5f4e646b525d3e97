"""Record entries for tests."""

from __future__ import annotations

from headrace.core.ids import new_id
from headrace.v1.log_pb2 import LogEntry
from headrace.v1.record_service_pb2 import RecordEntry, StateEntry
from headrace.v1.run_pb2 import RUN_KIND_FLOW, AttemptRef, Run
from headrace.v1.span_pb2 import Span
from headrace.v1.state_pb2 import STATE_TYPE_RUNNING, State

__all__ = ["log_entry", "run_entry", "span_entry", "state_entry"]


def run_entry(name: str = "a run", run_id: str | None = None) -> RecordEntry:
    """A flow run."""
    run_id = run_id or new_id()
    run = Run(id=run_id, kind=RUN_KIND_FLOW, name=name, flow_name="flow", root_run_id=run_id)
    return RecordEntry(run=run)


def state_entry(run_id: str | None = None, type: int = STATE_TYPE_RUNNING, message: str = "") -> RecordEntry:
    """A state of a run, with its first fence."""
    state = State(id=new_id(), type=type, message=message)  # pyright: ignore[reportArgumentType]
    state.event_time.GetCurrentTime()
    attempt = AttemptRef(run_id=run_id or new_id(), attempt=1, fence=1)
    return RecordEntry(state=StateEntry(attempt=attempt, state=state))


def log_entry(message: str, run_id: str | None = None) -> RecordEntry:
    """A line at INFO."""
    entry = LogEntry(run_id=run_id or new_id(), level=20, logger="headrace.flow_runs", message=message)
    entry.time.GetCurrentTime()
    return RecordEntry(log=entry)


def span_entry(name: str) -> RecordEntry:
    """A span."""
    return RecordEntry(span=Span(run_id=new_id(), trace_id="1" * 32, span_id="2" * 16, name=name))
