"""Counts over a number of states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from headrace.core.states import StateType
from headrace.states.value import State

__all__ = ["StateGroup"]


class StateGroup:
    """Counts over a number of states."""

    def __init__(self, states: Iterable[State[Any]]) -> None:
        self.states: list[State[Any]] = list(states)
        self.type_counts: Counter[StateType] = Counter(state.type for state in self.states)
        self.total_count = len(self.states)
        self.not_final_count = sum(not state.is_final() for state in self.states)

    @property
    def fail_count(self) -> int:
        """How many are FAILED or CRASHED."""
        return self.type_counts[StateType.FAILED] + self.type_counts[StateType.CRASHED]

    def all_completed(self) -> bool:
        """Whether every one is COMPLETED."""
        return self.type_counts[StateType.COMPLETED] == self.total_count

    def any_cancelled(self) -> bool:
        """Whether at least one is CANCELLED."""
        return self.type_counts[StateType.CANCELLED] > 0

    def any_failed(self) -> bool:
        """Whether at least one is FAILED or CRASHED."""
        return self.fail_count > 0

    def any_paused(self) -> bool:
        """Whether at least one is PAUSED."""
        return self.type_counts[StateType.PAUSED] > 0

    def all_final(self) -> bool:
        """Whether every one is final."""
        return self.not_final_count == 0

    def counts_message(self) -> str:
        """How many there are of each type, e.g. `total=3, COMPLETED=2, FAILED=1`."""
        parts = [f"total={self.total_count}"]
        parts += [f"{t.value}={n}" for t in StateType if (n := self.type_counts[t])]
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"StateGroup<{self.counts_message()}>"
