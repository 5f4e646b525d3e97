"""What a paused state brings with it: a timer, and what it asks for."""

from __future__ import annotations

import json

from headrace.v1.run_pb2 import RUN_KIND_FLOW
from headrace.v1.state_pb2 import State
from headrace_services.storage.instants import micros
from headrace_services.storage.rows import RunRow, text
from headrace_services.storage.work import TimerKind, Work

__all__ = ["input_key", "note_pause"]


def input_key(keyset: str, part: str) -> str:
    """The key of one part of what belongs to a pause: its schema, description or response."""
    return f"{keyset}-{part}"


def note_pause(work: Work, run: RunRow, state: State) -> None:
    """Set the timer of a pause that `run` is about to enter, and keep what it asks for as run inputs.

    An earlier answer under the same keys is forgotten.

    Args:
        work: the rows at hand.
        run: the run.
        state: its paused state; what is kept elsewhere is taken out of it.
    """
    paused = state.paused
    schema, description = paused.input_schema, paused.input_description
    paused.ClearField("input_schema")
    paused.ClearField("input_description")
    if run.kind != RUN_KIND_FLOW:
        return
    if paused.HasField("timeout_time"):
        work.writes.timers[TimerKind.PAUSE, run.id] = (state.id.lower(), micros(paused.timeout_time))
    keyset = text(paused.input_keyset)
    if not keyset:
        return
    inputs = work.writes.inputs
    inputs[run.id, input_key(keyset, "schema")] = (schema.encode(), "") if schema else None
    said = json.dumps(description).encode() if description else None
    inputs[run.id, input_key(keyset, "description")] = (said, "") if said else None
    inputs[run.id, input_key(keyset, "response")] = None
