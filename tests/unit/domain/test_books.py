"""Bookkeeping, attempts, recorded states."""

from __future__ import annotations

from functools import reduce

import pytest

from headrace.core.states import StateType
from headrace_services.domain.attempts import AttemptSpan, fold_attempts
from headrace_services.domain.books import Books, estimated_run_time, keep_books, lateness
from headrace_services.domain.record import refuse_recorded


def after(*steps: tuple[str, int]) -> Books:
    """The books after states entered at these instants."""
    return reduce(lambda books, step: keep_books(books, StateType(step[0]), step[1]), steps, Books())


def test_a_plain_run() -> None:
    books = after(("PENDING", 10), ("RUNNING", 20), ("COMPLETED", 50))
    assert (books.expected_start_time, books.start_time, books.end_time) == (10, 20, 50)
    assert (books.total_run_time, books.run_count) == (30, 1)


def test_an_end_without_a_run_is_also_the_start() -> None:
    books = after(("SCHEDULED", 10), ("CANCELLED", 40))
    assert books.start_time == books.end_time == 40
    assert (books.total_run_time, books.run_count, lateness(books, 99)) == (0, 0, 0)


def test_two_states_never_share_an_instant() -> None:
    books = after(("PENDING", 10), ("RUNNING", 10))
    assert books.timestamp == 11


def test_clocks_that_step_back_cost_no_run_time() -> None:
    assert after(("RUNNING", 50), ("COMPLETED", 20)).total_run_time == 0


def test_the_start_is_never_moved_and_the_end_is_that_of_the_first_final_state() -> None:
    books = after(("RUNNING", 10), ("FAILED", 20), ("COMPLETED", 30))
    assert (books.start_time, books.end_time) == (10, 20)
    again = keep_books(books, StateType.RUNNING, 40)
    assert (again.start_time, again.end_time, again.run_count) == (10, None, 2)


def test_pauses_do_not_count() -> None:
    books = after(("RUNNING", 10), ("PAUSED", 20))
    books = keep_books(books._replace(is_resuming=True), StateType.RUNNING, 70)
    books = keep_books(books, StateType.COMPLETED, 80)
    assert (books.total_run_time, books.run_count) == (20, 1)


def test_a_run_that_was_paused_before_it_ran_is_counted_when_it_runs() -> None:
    books = keep_books(Books(), StateType.PAUSED, 5)
    books = keep_books(books._replace(is_resuming=True), StateType.RUNNING, 9)
    assert (books.run_count, books.start_time, books.is_resuming) == (1, 9, False)


def test_running_again_while_running_is_no_other_run() -> None:
    books = after(("RUNNING", 10), ("RUNNING", 15), ("COMPLETED", 20))
    assert (books.run_count, books.total_run_time) == (1, 10)


def test_a_retry_without_a_delay_is_another_run() -> None:
    books = keep_books(after(("RUNNING", 10)), StateType.RUNNING, 15, is_retry=True)
    assert (books.run_count, books.total_run_time) == (2, 5)


def test_what_is_scheduled_is_set_while_scheduled() -> None:
    books = keep_books(Books(), StateType.SCHEDULED, 10, scheduled_time=100)
    assert (books.next_scheduled_start_time, books.expected_start_time) == (100, 100)
    books = keep_books(books, StateType.PENDING, 90, scheduled_time=100)
    assert books.next_scheduled_start_time is None
    books = keep_books(books, StateType.SCHEDULED, 95, scheduled_time=500)
    assert (books.next_scheduled_start_time, books.expected_start_time) == (500, 100)


@pytest.mark.parametrize(
    ("books", "now", "late"),
    [
        (Books(), 50, 0),
        (Books(expected_start_time=10), 50, 40),
        (Books(expected_start_time=90), 50, 0),
        (Books(expected_start_time=10, start_time=25, run_count=1), 50, 15),
        (Books(expected_start_time=30, start_time=25, run_count=1), 50, 0),
    ],
)
def test_lateness(books: Books, now: int, late: int) -> None:
    assert lateness(books, now) == late


def test_the_estimate_grows_while_running() -> None:
    running = after(("RUNNING", 10))
    assert (estimated_run_time(running, 25), running.total_run_time) == (15, 0)
    assert estimated_run_time(after(("RUNNING", 10), ("FAILED", 12)), 25) == 2


def history(*steps: str) -> list[tuple[StateType, str, int]]:
    """States ten microseconds apart; `TYPE/Name` for one with a name of its own."""
    parts = [step.partition("/") for step in steps]
    return [(StateType(type), name, 10 * place) for place, (type, _, name) in enumerate(parts)]


@pytest.mark.parametrize(
    ("states", "tries"),
    [
        ([], []),
        (["PENDING"], []),
        (["PENDING", "RUNNING"], [AttemptSpan(1, 10)]),
        (["RUNNING", "COMPLETED"], [AttemptSpan(1, 0, 10, 1)]),
        (
            ["RUNNING", "SCHEDULED", "RUNNING", "FAILED"],
            [AttemptSpan(1, 0, 10, 1), AttemptSpan(2, 20, 30, 3)],
        ),
        (["RUNNING", "PAUSED", "RUNNING", "COMPLETED"], [AttemptSpan(1, 0, 30, 3)]),
        (["RUNNING", "PAUSED", "SCHEDULED", "RUNNING", "COMPLETED"], [AttemptSpan(1, 0, 40, 4)]),
        (["RUNNING", "RUNNING", "COMPLETED"], [AttemptSpan(1, 0, 20, 2)]),
        (
            ["RUNNING", "RUNNING/Retrying", "COMPLETED"],
            [AttemptSpan(1, 0, 10, 1), AttemptSpan(2, 10, 20, 2)],
        ),
        (["RUNNING", "PAUSED", "RUNNING/Retrying", "COMPLETED"], [AttemptSpan(1, 0, 30, 3)]),
        (["RUNNING", "CANCELLING", "CANCELLED"], [AttemptSpan(1, 0, 20, 2)]),
        (["SCHEDULED", "CANCELLED"], []),
        (["RUNNING", "PAUSED", "CANCELLED"], [AttemptSpan(1, 0, 20, 2)]),
    ],
)
def test_tries_are_read_off_the_history(states: list[str], tries: list[AttemptSpan]) -> None:
    assert fold_attempts(history(*states)) == tries


@pytest.mark.parametrize("type", list(StateType))
def test_only_what_has_ended_cannot_be_recorded_over(type: StateType) -> None:
    new = (StateType.RUNNING, "Running")
    is_cancelled = type is StateType.CANCELLING  # it goes on to an end, and to nothing else
    assert (refuse_recorded(type, False, *new) is None) is not (type.is_final or is_cancelled)
    assert (refuse_recorded(type, True, *new) is None) is not is_cancelled
    assert refuse_recorded(StateType.CANCELLING, False, StateType.COMPLETED, "Completed") is None
    assert refuse_recorded(None, False, *new) is None


@pytest.mark.parametrize("type", list(StateType))
def test_only_what_has_completed_can_be_rolled_back(type: StateType) -> None:
    refusal = refuse_recorded(type, False, StateType.COMPLETED, "RolledBack")
    assert (refusal is None) is (not type.is_final or type is StateType.COMPLETED)
    assert refuse_recorded(StateType.COMPLETED, False, StateType.FAILED, "RolledBack") is not None
    assert refuse_recorded(StateType.COMPLETED, False, StateType.COMPLETED, "Again") is not None
