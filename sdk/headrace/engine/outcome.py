"""What a run came to, for whoever called it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.states import State

__all__ = ["Outcome", "outcome_of"]


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: the newest state of the run.
        value: what a caller is given that did not ask for the state.
        error: what is raised for such a caller, in place of a value.
    """

    state: State[Any]
    value: Any = None
    error: BaseException | None = None


def outcome_of(state: State[Any]) -> Outcome:
    """How a run ended, as its final state says."""
    try:
        return Outcome(state, state.result(_sync=True))
    except BaseException as error:
        return Outcome(state, error=error)
