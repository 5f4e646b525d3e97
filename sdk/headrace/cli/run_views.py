"""How runs, states, logs and spans look, to people and to programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headrace.cli import text
from headrace.cli.as_json import enum_word, payload_value, to_json
from headrace.cli.output import Listing
from headrace.v1.span_pb2 import SpanStatus
from headrace.v1.state_pb2 import StateType

if TYPE_CHECKING:
    from headrace.v1.log_pb2 import LogEntry
    from headrace.v1.run_pb2 import Run
    from headrace.v1.span_pb2 import Span
    from headrace.v1.state_pb2 import ErrorDescription, State

__all__ = [
    "flow_run_listing",
    "log_line",
    "run_details",
    "span_listing",
    "state_listing",
    "state_of",
    "state_word",
    "task_run_listing",
]

_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
_LEVEL_COLOURS = ((50, "91"), (40, "31"), (30, "33"), (20, ""), (0, "90"))


def state_word(number: int) -> str | None:
    """The name of a state type's number: "COMPLETED"."""
    return enum_word(StateType.DESCRIPTOR, number)


def state_of(run: Run) -> text.Cell:
    """The run's state by name, in its colour."""
    return text.state_cell(state_word(run.state.type), run.state.name)


def flow_run_listing(now: datetime) -> Listing[Run]:
    """The list of flow runs."""
    return Listing(
        headers=("ID", "FLOW", "NAME", "STATE", "STARTED", "DURATION"),
        row=lambda run: (run.id, run.flow_name, run.name, state_of(run), _started(run, now), _duration(run)),
        key=lambda run: run.id,
        json=to_json,
        none="No flow runs.",
        shrink=("NAME", "FLOW"),
    )


def task_run_listing(now: datetime) -> Listing[Run]:
    """The list of task runs."""
    return Listing(
        headers=("ID", "TASK", "NAME", "STATE", "STARTED", "DURATION"),
        row=lambda run: (run.id, run.task_name, run.name, state_of(run), _started(run, now), _duration(run)),
        key=lambda run: run.id,
        json=to_json,
        none="No task runs.",
        shrink=("NAME", "TASK"),
    )


def state_listing(now: datetime) -> Listing[State]:
    """The history of a run."""
    return Listing(
        headers=("TIME", "STATE", "TYPE", "MESSAGE"),
        row=lambda state: (
            f"{text.local_time(state.event_time, millis=True)} ({text.age(state.event_time, now)})",
            text.state_cell(state_word(state.type), state.name),
            state_word(state.type) or "-",
            state.message,
        ),
        key=lambda state: state.id,
        json=to_json,
        none="No states.",
        shrink=("MESSAGE",),
    )


def span_listing() -> Listing[Span]:
    """The spans of a run."""
    return Listing(
        headers=("START", "DURATION", "STATUS", "SPAN", "PARENT", "NAME"),
        row=lambda span: (
            text.local_time(span.start_time),
            text.elapsed(span.end_time.ToDatetime() - span.start_time.ToDatetime()),
            enum_word(SpanStatus.DESCRIPTOR, span.status) or "-",
            span.span_id,
            span.parent_span_id or "-",
            span.name,
        ),
        key=lambda span: span.span_id,
        json=to_json,
        none="No spans. They are recorded when HEADRACE_TRACES_EXPORTER=server.",
        shrink=("NAME",),
    )


def log_line(entry: LogEntry, run_name: str, coloured: bool) -> str:
    """A log line for people: time, level, run, message."""
    level = _LEVELS.get(entry.level, str(entry.level))
    head = f"{text.local_time(entry.time, millis=True)} | {level:<8} | {text.clean(run_name)} - "
    message = text.clean(entry.message, keep_breaks=True)
    colour = next(c for least, c in _LEVEL_COLOURS if entry.level >= least) if coloured else ""
    return f"{head}\x1b[{colour}m{message}\x1b[0m" if colour else head + message


def run_details(run: Run, now: datetime) -> Sequence[tuple[str, str]]:
    """Everything about a run that a person may want to know."""
    state = run.state
    return [
        ("ID", run.id),
        ("Name", run.name),
        ("Flow", run.flow_name),
        ("Flow version", run.flow_version),
        ("Task", run.task_name),
        ("Task key", run.task_key),
        ("State", state_of(run)),
        ("State type", state_word(state.type) or ""),
        ("Message", state.message),
        ("Parent run", run.parent_run_id),
        ("Root run", run.root_run_id if run.root_run_id != run.id else ""),
        *_moments(run, now),
        ("Run time", _duration(run)),
        ("Attempts", str(run.run_count) if run.run_count else ""),
        ("Tags", ", ".join(run.tags)),
        ("Labels", ", ".join(f"{k}={run.labels[k]}" for k in sorted(run.labels))),
        ("Parameters", _payload(run.parameters) if run.HasField("parameters") else ""),
        ("Result", _payload(state.data) if state.HasField("data") else ""),
        ("Cache key", text.clean(state.completed.cache_key)),
        ("Computed by", state.completed.producer_run_id),
        ("Inputs from", "\n".join(f"{e.parameter}: {', '.join(e.run_ids)}" for e in run.inputs)),
        ("Created by", run.created_by),
        ("Traceparent", run.traceparent),
        ("Error", _error(state)),
    ]


def _moments(run: Run, now: datetime) -> list[tuple[str, str]]:
    known = [
        ("Created", run.create_time, run.HasField("create_time")),
        ("Expected start", run.expected_start_time, run.HasField("expected_start_time")),
        ("Started", run.start_time, run.HasField("start_time")),
        ("Ended", run.end_time, run.HasField("end_time")),
    ]
    return [
        (label, f"{text.local_time(stamp)} ({text.age(stamp, now)})")
        for label, stamp, is_set in known
        if is_set
    ]


def _started(run: Run, now: datetime) -> str:
    if run.HasField("start_time"):
        return text.age(run.start_time, now)
    if run.HasField("next_scheduled_start_time"):
        return text.age(run.next_scheduled_start_time, now)
    return "-"


def _duration(run: Run) -> str:
    if run.HasField("estimated_run_time"):
        return text.elapsed(run.estimated_run_time)
    return text.elapsed(run.total_run_time) if run.HasField("total_run_time") else "-"


def _payload(payload: Any) -> str:
    return json.dumps(payload_value(payload), indent=2, ensure_ascii=False)


def _error(state: State) -> str:
    error: ErrorDescription | None = None
    if state.HasField("failed"):
        error = state.failed.error
    elif state.HasField("crashed"):
        error = state.crashed.error
    if error is None or not (error.type or error.message):
        return ""
    return error.traceback.rstrip() or f"{error.type}: {error.message}"
