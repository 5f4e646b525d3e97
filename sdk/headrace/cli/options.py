"""Options that mean the same in every command."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli.candidates import flow_run_names, task_run_names

__all__ = [
    "FlowRunArgument",
    "FlowRunArguments",
    "Format",
    "Limit",
    "NameContains",
    "Output",
    "Quiet",
    "Since",
    "StateNames",
    "StateTypes",
    "Tags",
    "TaskRunArgument",
    "Yes",
]

Format: TypeAlias = Literal["table", "json", "jsonl"]

Output = Annotated[
    Format,
    Parameter(
        name=["--output", "-o"],
        help="How to print: a table for people, one JSON document, or one JSON object per line.",
    ),
]
Quiet = Annotated[
    bool, Parameter(name=["--quiet", "-q"], help="Print ids only, one per line (names for what has no id).")
]
Limit = Annotated[
    int, Parameter(name=["--limit", "-n"], validator=Number(gte=0), help="At most this many; 0 for all.")
]
Since = Annotated[
    str | None,
    Parameter(
        name="--since",
        help="Only what began at or after this instant: a duration back from now (90s, 15m, 6h, 7d) or an "
        "ISO 8601 time, local if it names no zone.",
    ),
]
StateNames = Annotated[
    tuple[str, ...],
    Parameter(name="--state", help="Only runs in a state of this name, e.g. Late. Repeatable."),
]
StateTypes = Annotated[
    tuple[str, ...],
    Parameter(name="--state-type", help="Only runs in a state of this type, e.g. FAILED. Repeatable."),
]
Tags = Annotated[
    tuple[str, ...],
    Parameter(name=["--tag", "-t"], help="Only runs with this tag. Repeat for all of several."),
]
NameContains = Annotated[str, Parameter(name="--name", help="Only runs whose name contains this text.")]
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], help="Do not ask.")]
FlowRunArgument = Annotated[
    str,
    Parameter(
        name="FLOW_RUN",
        help="A flow run: its id, a unique beginning of it, or its name.",
        completer=flow_run_names,
    ),
]
FlowRunArguments = Annotated[
    tuple[str, ...],
    Parameter(
        name="FLOW_RUN", help="Flow runs: ids, unique beginnings of ids, or names.", completer=flow_run_names
    ),
]
TaskRunArgument = Annotated[
    str,
    Parameter(
        name="TASK_RUN",
        help="A task run: its id, a unique beginning of it, or its name.",
        completer=task_run_names,
    ),
]
