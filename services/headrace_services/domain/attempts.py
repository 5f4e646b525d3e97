"""The tries of a run's body, read off its history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from headrace.core.states import StateType
from headrace_services.domain.states import FINAL_TYPES, PAUSED, RETRYING, RUNNING

__all__ = ["AttemptSpan", "fold_attempts"]


@dataclass(frozen=True, slots=True)
class AttemptSpan:
    """One try: from an entry into RUNNING to the state that ended it.

    Attributes:
        number: from 1.
        start_time: microseconds.
        end_time: microseconds; None while it goes on.
        end_index: index in the history of the state that ended it; None while it goes on.
    """

    number: int
    start_time: int
    end_time: int | None = None
    end_index: int | None = None


def fold_attempts(history: Iterable[tuple[StateType, str, int]]) -> list[AttemptSpan]:
    """The tries in a history of (type, name, timestamp), oldest first.

    RUNNING after RUNNING is the same try, unless its name says that it is another one. A pause belongs
    to the try it interrupts, as in the books: going on after it begins no new one, by way of SCHEDULED
    neither.
    """
    tries: list[AttemptSpan] = []
    is_open = False
    was_paused = False
    for index, (type, name, timestamp) in enumerate(history):
        if type is RUNNING:
            if is_open and name == RETRYING and not was_paused:
                tries[-1] = replace(tries[-1], end_time=timestamp, end_index=index)
                is_open = False
            if not is_open:
                tries.append(AttemptSpan(len(tries) + 1, timestamp))
            is_open, was_paused = True, False
        elif type is PAUSED:
            was_paused = is_open
        elif is_open and (type in FINAL_TYPES or not was_paused) and type is not StateType.CANCELLING:
            tries[-1] = replace(tries[-1], end_time=timestamp, end_index=index)
            is_open = was_paused = False
    return tries
