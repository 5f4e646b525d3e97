"""The checks themselves: each finds what it is there for, and nothing where all is well."""

from __future__ import annotations

from pathlib import Path

from tests.support import invariants
from tests.support.invariants import Execution, StateNote
from tests.support.journals import executions, read_journal


def test_what_was_acknowledged_is_kept() -> None:
    assert invariants.acknowledged_is_kept({"a": "x"}, {"a": "x", "b": "y"}) == []
    assert len(invariants.acknowledged_is_kept({"a": "x", "b": "y"}, {"a": "z"})) == 2


def test_a_body_begins_once_under_a_fence() -> None:
    once = [Execution("a", 2, 0, 5), Execution("a", 4, 6, None), Execution("b", 2, 0, 5)]
    assert invariants.begun_once_per_fence(once) == []
    assert invariants.executed_once(once) == ["a was executed 2 times"]
    assert invariants.begun_once_per_fence([*once, Execution("a", 2, 9, 10)]) == [
        "a began 2 times under fence 2"
    ]


def test_a_run_completes_once() -> None:
    completed = StateNote("COMPLETED")
    assert invariants.one_accepted_end({"a": [StateNote("RUNNING"), completed]}) == []
    assert invariants.one_accepted_end({"a": [completed, completed]}) == ["a has completed 2 times"]


def test_bodies_of_one_run_do_not_overlap() -> None:
    after = [Execution("a", 4, 10, 20), Execution("a", 2, 0, 10)]
    assert invariants.only_the_last_overlaps(after, {}) == []
    beside = [Execution("a", 2, 0, 15), Execution("a", 4, 10, 20)]
    assert len(invariants.only_the_last_overlaps(beside, {})) == 1
    assert invariants.only_the_last_overlaps(beside, {("a", 2): 16}) == [], "it was still to be told"


def test_fires_are_those_of_the_oracle() -> None:
    wanted = [("s", 1), ("s", 2)]
    assert invariants.fires_are_exact([("s", 2), ("s", 1)], wanted) == []
    assert len(invariants.fires_are_exact([("s", 1), ("s", 1), ("s", 3)], wanted)) == 3


def test_a_limit_is_kept_at_every_instant() -> None:
    assert invariants.limit_is_kept([(0, 5), (5, 9), (1, None)], 2) == []
    assert invariants.limit_is_kept([(0, 5), (4, 9), (1, None)], 2) == ["3 held at once what 2 may hold"]


def test_what_has_ended_stays_so() -> None:
    guess = StateNote("CRASHED", is_guess=True)
    legal = {
        "ended": [StateNote("RUNNING"), StateNote("COMPLETED")],
        "back from the dead": [guess, StateNote("COMPLETED")],
        "asked to run again": [StateNote("FAILED"), StateNote("SCHEDULED"), StateNote("PENDING")],
        "undone": [StateNote("COMPLETED"), StateNote("COMPLETED", "RolledBack")],
    }
    assert invariants.terminal_is_final(legal) == []
    overwritten = {
        "a": [StateNote("COMPLETED"), StateNote("CRASHED")],
        "b": [guess, StateNote("RUNNING")] * 2,
    }
    assert invariants.terminal_is_final(overwritten) == ["a was COMPLETED and became CRASHED"]


def test_nothing_is_left_unexplained() -> None:
    states = {"a": "COMPLETED", "b": "RUNNING", "c": "SCHEDULED"}
    assert invariants.all_settled(states, lambda id: id == "c") == ["b is still RUNNING"]


def test_one_key_is_one_run() -> None:
    assert invariants.one_run_per_key([("k", "a"), ("k", "a")], {"k": 1}) == []
    assert len(invariants.one_run_per_key([("k", "a"), ("k", "b"), ("l", "c")], {"k": 1, "l": 2})) == 2


def test_logs_and_figures() -> None:
    assert invariants.log_is_clean("INFO all is well\nWARNING trying again") == []
    bad = "Traceback (most recent call last):\nERROR deadlock detected\nTask exception was never retrieved"
    assert len(invariants.log_is_clean(bad)) == 3
    assert invariants.within("connections", 10, 10) == []
    assert len(invariants.within("connections", 11, 10)) == 1


def test_a_journal_is_read_up_to_a_line_that_is_being_written(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    assert read_journal(journal) == []
    begin = '{"event": "begin", "run": "a", "fence": 2, "pid": 7, "at": 1}\n'
    end = '{"event": "end", "run": "a", "fence": 2, "pid": 7, "at": 9}\n'
    journal.write_text(begin + '{"event": "be')
    assert executions(read_journal(journal)) == [Execution("a", 2, 1, None)]
    journal.write_text(begin + end)
    assert executions(read_journal(journal)) == [Execution("a", 2, 1, 9)]
