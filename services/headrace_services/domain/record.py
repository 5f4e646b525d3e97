"""Recorded states: the executor says what happened, the server keeps it.

The executor has applied the rules itself. What is left to refuse is what nobody may do: changing a run
that has ended, or going on with one that is to end.
"""

from __future__ import annotations

from headrace.core.states import StateType
from headrace_services.domain.states import FINAL_TYPES

__all__ = ["begins_anew_with", "refuse_recorded"]


def refuse_recorded(
    current: StateType | None, is_presumed: bool, proposed: StateType, name: str
) -> str | None:
    """Why a state cannot be recorded over `current`; None: it can.

    A run that completed may be undone with the transaction it belonged to: it stays COMPLETED, and says so.

    `is_presumed` says that the current state is a guess of the server's about a process that it had
    lost sight of. The process knows better.
    """
    if current is StateType.CANCELLING and proposed not in FINAL_TYPES:
        return "The run is being cancelled."
    if current is StateType.COMPLETED and proposed is StateType.COMPLETED and name == "RolledBack":
        return None
    if current is not None and current in FINAL_TYPES and not is_presumed:
        return f"The run has ended: it is {current.value}."
    return None


def begins_anew_with(current: StateType | None, step_key: str, first: StateType | None) -> bool:
    """Whether a run that is recorded once more, with a first state, is run again although it has ended.

    It is when its caller's body is run again and comes to the step that it is, unless it completed: what has
    completed stays as it is.
    """
    is_over = current in FINAL_TYPES and current is not StateType.COMPLETED
    return is_over and bool(step_key) and first not in FINAL_TYPES
