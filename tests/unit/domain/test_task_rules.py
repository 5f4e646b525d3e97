"""The task-run rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from headrace.core.verdicts import Reject, Wait
from headrace_services.domain.books import Books
from headrace_services.domain.effects import Enqueue, InsertCache, ReleaseSlot, TakeSlot
from headrace_services.domain.facts import CacheFacts, FlowFacts, LimitFacts
from headrace_services.domain.pipeline import Decision
from headrace_services.domain.states import StateValue
from headrace_services.domain.task_rules import MINIMAL_TASK_RULES, TASK_RULES
from tests.unit.domain.cases import NOW, SECOND, ask, outcome, value

LIMIT = LimitFacts("database", slots=2)


def task(current: StateValue | None, proposed: StateValue, **given: Any) -> Decision:
    return ask(current, proposed, TASK_RULES, kind="task", **given)


def test_a_cached_result_is_taken_before_any_slot() -> None:
    hit = value("COMPLETED", data=b"42", cache_key="k")
    decision = task(value("PENDING"), value("RUNNING"), cache=CacheFacts(hit), limits=(LIMIT,))
    assert outcome(decision) == "R>Cached"
    assert decision.state is not None
    assert (decision.state.data, decision.state.cache_key, decision.state.id) == (b"42", "k", "fresh")
    assert decision.effects == ()
    refreshed = task(value("PENDING"), value("RUNNING"), cache=CacheFacts(hit, refresh=True))
    assert outcome(refreshed) == "A"


@pytest.mark.parametrize(
    ("current", "proposed", "expected"),
    [
        (value("FAILED"), "CANCELLING", "X"),
        (value("FAILED"), "PAUSED", "X"),
        (value("FAILED"), "CRASHED", "X"),
        (value("COMPLETED", data=b"1"), "RUNNING", "R"),
        (value("COMPLETED", data=b"1"), "FAILED", "R"),
        (value("COMPLETED"), "RUNNING", "A"),
        (value("FAILED"), "PENDING", "A"),
        (value("CANCELLING"), "COMPLETED", "A"),
        (value("PENDING"), "PENDING", "A"),
        (value("RUNNING"), "PAUSED", "A"),
        (None, "PENDING", "A"),
    ],
)
def test_task_pairs(current: StateValue | None, proposed: str, expected: str) -> None:
    assert outcome(task(current, value(proposed))) == expected


def test_a_task_run_that_begins_anew_counts_from_nothing() -> None:
    decision = task(value("FAILED"), value("RUNNING"))
    assert decision.run.books.run_count == 1
    assert decision.state is not None
    assert decision.state.name == "Running"


def test_a_task_run_in_a_later_try_of_its_flow_is_a_retry() -> None:
    flow = FlowFacts(value("RUNNING"), run_count=2)
    decision = task(value("FAILED"), value("RUNNING"), flow=flow, seen_in_flow_run_count=1)
    assert decision.state is not None
    assert decision.state.name == "Retrying"
    assert decision.run.seen_in_flow_run_count == 2
    assert decision.run.books.run_count == 1


def test_a_task_waits_for_a_paused_flow() -> None:
    paused = value("PAUSED", pause_timeout=NOW + SECOND, pause_reschedule=True)
    decision = task(value("PENDING"), value("RUNNING"), flow=FlowFacts(paused))
    assert outcome(decision) == "R>NotReady"
    assert decision.state is not None
    assert (decision.state.pause_timeout, decision.state.pause_reschedule) == (NOW + SECOND, True)


@pytest.mark.parametrize(
    "flow", [FlowFacts(None), FlowFacts(value("COMPLETED")), FlowFacts(value("CANCELLING"))]
)
def test_a_task_does_not_run_without_its_flow(flow: FlowFacts) -> None:
    assert outcome(task(value("PENDING"), value("RUNNING"), flow=flow)) == "X"


def test_a_task_on_its_own_needs_no_flow() -> None:
    assert outcome(task(value("PENDING"), value("RUNNING"))) == "A"


def test_slots_of_all_tags_or_none() -> None:
    other = LimitFacts("disk", slots=1)
    both = task(value("PENDING"), value("RUNNING"), limits=(LIMIT, other))
    assert both.effects == (TakeSlot("database"), TakeSlot("disk"))
    one_full = task(value("PENDING"), value("RUNNING"), limits=(LIMIT, replace(other, taken=1)))
    assert isinstance(one_full.verdict, Wait)
    assert one_full.effects == ()


@pytest.mark.parametrize(
    ("occupancy", "spread", "seconds"), [(4.0, 0.5, 4.0), (4.0, 0.0, 2.0), (60.0, 0.5, 10.0)]
)
def test_waiting_for_a_slot_takes_about_as_long_as_others_hold_it(
    occupancy: float, spread: float, seconds: float
) -> None:
    full = replace(LIMIT, taken=2, mean_occupancy_seconds=occupancy)
    decision = task(value("PENDING"), value("RUNNING"), limits=(full,), spread=spread)
    assert decision.verdict == Wait(seconds, "The limit 'database' is full.")


def test_a_tag_limit_of_nothing_aborts() -> None:
    assert outcome(task(value("PENDING"), value("RUNNING"), limits=(replace(LIMIT, slots=0),))) == "X"


@pytest.mark.parametrize("next_type", ["COMPLETED", "FAILED", "PAUSED", "PENDING", "SCHEDULED", "CRASHED"])
def test_a_task_that_does_not_run_frees_its_slots(next_type: str) -> None:
    decision = task(value("RUNNING"), value(next_type), limits=(replace(LIMIT, holds=True),))
    assert ReleaseSlot("database") in decision.effects


def test_retry_unless_the_author_says_no() -> None:
    retried = task(value("RUNNING"), value("FAILED"), max_retries=1, retry_delay=SECOND)
    assert outcome(retried) == "R>AwaitingRetry"
    refused = task(value("RUNNING"), value("FAILED", retriable=False), max_retries=1)
    assert outcome(refused) == "A"
    used_up = task(value("RUNNING"), value("FAILED"), max_retries=0)
    assert outcome(used_up) == "A"


@pytest.mark.parametrize(
    ("current", "name"),
    [
        (value("SCHEDULED", is_retry=True, name="AwaitingRetry"), "Retrying"),
        (value("SCHEDULED"), "Rerunning"),
    ],
)
def test_later_tries_say_so(current: StateValue, name: str) -> None:
    books = Books(current.type, current.timestamp, run_count=1)
    decision = task(current, value("RUNNING"), books=books)
    assert decision.state is not None
    assert decision.state.name == name


def test_the_names_of_authors_are_kept() -> None:
    books = Books(value("SCHEDULED").type, NOW - SECOND, run_count=1)
    decision = task(value("SCHEDULED"), value("RUNNING", name="Crunching"), books=books)
    assert decision.state is not None
    assert decision.state.name == "Crunching"


def test_results_with_a_key_are_cached_and_too_long_keys_are_refused_with_the_state_kept() -> None:
    cached = task(value("RUNNING"), value("COMPLETED", cache_key="k", cache_expire_time=9))
    assert InsertCache("k", 9) in cached.effects
    too_long = task(value("RUNNING"), value("COMPLETED", cache_key="k" * 2001))
    assert isinstance(too_long.verdict, Reject)
    assert "2000 characters" in too_long.verdict.reason
    assert too_long.state is not None
    assert too_long.state.name == "Completed"
    assert not any(isinstance(effect, InsertCache) for effect in too_long.effects)


def test_background_tasks_are_queued_and_retries_in_the_lane_for_them() -> None:
    queued = task(None, value("SCHEDULED", is_deferred=True))
    assert queued.effects == (Enqueue(is_retry=False),)
    retried = task(value("RUNNING"), value("FAILED"), max_retries=1, is_background=True)
    assert retried.effects == (Enqueue(is_retry=True),)
    assert retried.state is not None
    assert retried.state.is_deferred


def test_a_background_task_is_started_once() -> None:
    assert outcome(task(value("PENDING"), value("PENDING"), is_background=True)) == "X"


def test_nothing_before_its_time() -> None:
    decision = task(value("SCHEDULED", scheduled_time=NOW + 2 * SECOND), value("RUNNING"))
    assert isinstance(decision.verdict, Wait)
    assert decision.verdict.seconds == 2


def test_force_protects_a_result_and_frees_slots() -> None:
    kept = ask(value("COMPLETED", data=b"1"), value("COMPLETED"), MINIMAL_TASK_RULES, kind="task")
    assert outcome(kept) == "R"
    limits = (replace(LIMIT, holds=True),)
    freed = ask(
        value("RUNNING"), value("FAILED"), MINIMAL_TASK_RULES, kind="task", max_retries=3, limits=limits
    )
    assert (outcome(freed), freed.effects) == ("A", (ReleaseSlot("database"),))


@pytest.mark.parametrize(("left", "expected"), [(0, "A"), (1, "R>AwaitingRetry")])
def test_a_task_run_is_tried_again_before_its_deadline_only(left: int, expected: str) -> None:
    facts = {"kind": "task", "max_retries": 3, "retry_delay": SECOND, "retry_deadline": NOW + SECOND + left}
    assert outcome(ask(value("RUNNING"), value("FAILED"), TASK_RULES, **facts)) == expected
