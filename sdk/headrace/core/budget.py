"""The budget of time that a run has over all its attempts: from its first start, without its idle time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from headrace.core.states import StateType

__all__ = ["RETRIES_MAX", "UNTIL_DEADLINE", "idle_time", "is_idle"]

UNTIL_DEADLINE: Final = -1
"""The number of retries where only a deadline ends them."""
RETRIES_MAX: Final = 100_000
"""What stands for it in arithmetic and on the wire: more than anybody waits for."""


def is_idle(type: StateType, name: str) -> bool:
    """Whether a state costs nothing of the budget: the run is paused, or waits for a place."""
    return type is StateType.PAUSED or (type is StateType.SCHEDULED and name == "AwaitingConcurrencySlot")


def idle_time(history: Iterable[tuple[StateType, str, int]], since: int, now: int) -> int:
    """How long a run was idle between two instants.

    Args:
        history: its states, oldest first: type, name, and when it was entered in microseconds.
        since: from when on it counts, microseconds.
        now: until when, microseconds.

    Returns:
        Microseconds.
    """
    idle, began = 0, None
    for type, name, entered in history:
        if began is not None:
            idle += max(0, entered - max(began, since))
        began = entered if is_idle(type, name) else None
    return idle if began is None else idle + max(0, now - max(began, since))
