"""Bookkeeping: what a run's row says of its past, after every accepted state."""

from __future__ import annotations

from typing import NamedTuple

from headrace.core.states import StateType
from headrace_services.domain.states import FINAL_TYPES, RUNNING, SCHEDULED

__all__ = ["Books", "estimated_run_time", "keep_books", "lateness"]


class Books(NamedTuple):
    """A run's times and counts. Instants and durations in microseconds.

    Attributes:
        type: type of the current state; None before the first.
        timestamp: when the current state was entered.
        start_time: first entry into RUNNING, or the end of a run that never ran.
        end_time: entry into the first of its final states.
        expected_start_time: when it was first meant to start.
        next_scheduled_start_time: set while SCHEDULED.
        total_run_time: spent in RUNNING, up to the last change of state.
        run_count: entries into RUNNING, but for resumed pauses.
        is_resuming: a pause has ended and the run does not run yet.
    """

    type: StateType | None = None
    timestamp: int = 0
    start_time: int | None = None
    end_time: int | None = None
    expected_start_time: int | None = None
    next_scheduled_start_time: int | None = None
    total_run_time: int = 0
    run_count: int = 0
    is_resuming: bool = False


def keep_books(
    books: Books,
    type: StateType,
    timestamp: int,
    scheduled_time: int | None = None,
    *,
    is_retry: bool = False,
) -> Books:
    """The books after the run has entered a state of `type`.

    A pause that ends adds no try, unless the run was paused before it ever ran.

    RUNNING after RUNNING is the same try, unless `is_retry` says that it is another one: a retry without a
    delay goes from Running to Retrying with nothing in between.

    `timestamp` of the result is the one to write into the state: a state that would share its
    instant with the one before it is moved by a microsecond.
    """
    old, entered, start, end, expected, _, run_time, run_count, resuming = books
    if timestamp == entered and old is not None:
        timestamp += 1
    if expected is None:
        expected = timestamp if scheduled_time is None else scheduled_time
    if old is RUNNING and timestamp > entered:
        run_time += timestamp - entered
    if type is RUNNING:
        if start is None:
            start = timestamp
        if (old is not RUNNING or is_retry) and not (resuming and run_count):
            run_count += 1
        resuming = False
        end = None
    elif type in FINAL_TYPES:
        if start is None:
            start = timestamp
        if end is None:
            end = timestamp
        resuming = False
    else:
        end = None
    upcoming = scheduled_time if type is SCHEDULED else None
    return Books(type, timestamp, start, end, expected, upcoming, run_time, run_count, resuming)


def estimated_run_time(books: Books, now: int) -> int:
    """Time spent in RUNNING up to `now`, microseconds."""
    running = max(0, now - books.timestamp) if books.type is RUNNING else 0
    return books.total_run_time + running


def lateness(books: Books, now: int) -> int:
    """How much later than expected the run started, or how late it is by now; microseconds, at least 0."""
    if books.expected_start_time is None:
        return 0
    if books.start_time is not None:
        # A run that ended without running has a start, but never was late.
        if books.start_time == books.end_time and books.run_count == 0:
            return 0
        return max(0, books.start_time - books.expected_start_time)
    return max(0, now - books.expected_start_time)
