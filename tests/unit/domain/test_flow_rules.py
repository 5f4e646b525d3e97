"""What the flow-run rules do beyond the verdict: states they make, effects they plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.core.states import StateType
from headrace.core.verdicts import Abort, Accept, Reject, Wait
from headrace_services.domain.effects import (
    Announce,
    ExtendSlot,
    ReleaseSlot,
    RetryType,
    TakeSlot,
)
from headrace_services.domain.facts import LimitFacts
from headrace_services.domain.flow_rules import ANY, FLOW_RULES, LATE_MARKER_RULES, MINIMAL_FLOW_RULES
from headrace_services.domain.pipeline import Replace, Rule, decide
from headrace_services.domain.states import StateValue
from tests.unit.domain.cases import NOW, SECOND, ask, context, outcome, value

LIMIT = LimitFacts("deployment/etl", slots=1)
FULL = replace(LIMIT, taken=1)


def effects_of(decision_effects: object, *kinds: type) -> list[object]:
    assert isinstance(decision_effects, tuple)
    return [effect for effect in decision_effects if isinstance(effect, kinds)]


def test_the_same_state_again_is_accepted_again_and_not_written() -> None:
    running = value("RUNNING")
    decision = ask(running, replace(running, timestamp=NOW))
    assert decision.verdict == Accept(running)
    assert decision.state is None
    assert decision.run.books.run_count == 1


def test_a_state_of_the_past_is_accepted_again_and_not_written() -> None:
    earlier = value("RUNNING")
    decision = ask(value("COMPLETED"), replace(earlier, timestamp=NOW), earlier=earlier)
    assert decision.verdict == Accept(earlier)
    assert decision.state is None


def test_a_retry_keeps_the_failure_and_waits_in_its_process() -> None:
    failure = value("FAILED", message="boom", data=b"trace")
    decision = ask(
        *(value("RUNNING"), failure),
        max_retries=2,
        retry_delay=3 * SECOND,
        pause_keys=frozenset({"one"}),
    )
    state = decision.state
    assert state is not None
    assert isinstance(decision.verdict, Reject)
    assert (state.name, state.message, state.data) == ("AwaitingRetry", "boom", b"trace")
    assert state.scheduled_time == NOW + 3 * SECOND
    assert state.is_retry
    assert decision.run.retry_type is RetryType.IN_PROCESS
    assert decision.run.pause_keys == frozenset()
    assert decision.run.books.next_scheduled_start_time == NOW + 3 * SECOND


def test_the_last_failure_is_accepted_and_no_retry_is_expected() -> None:
    decision = ask(value("RUNNING"), value("FAILED"), max_retries=0, retry_type=RetryType.IN_PROCESS)
    assert outcome(decision) == "A"
    assert decision.run.retry_type is RetryType.NONE


def test_retries_are_counted_by_runs() -> None:
    """retries=2: three tries, and the waits between them are no run time."""
    current: StateValue | None = None
    run = context(None, value("RUNNING")).run
    names: list[str] = []
    at = NOW
    for type in ("RUNNING", "FAILED") * 3:
        at += SECOND
        proposed = value(type, timestamp=at)
        given = context(current, proposed)
        decision = decide(
            FLOW_RULES, replace(given, run=replace(run, max_retries=2), proposed=proposed, now=at)
        )
        assert decision.state is not None
        current, run = decision.state, decision.run
        names.append(current.name)
    assert names == ["Running", "AwaitingRetry", "Running", "AwaitingRetry", "Running", "Failed"]
    assert run.books.run_count == 3
    assert run.books.total_run_time == 3 * SECOND
    assert run.books.start_time == NOW + SECOND


def test_pending_remembers_what_it_was_scheduled_for() -> None:
    decision = ask(value("SCHEDULED", scheduled_time=5), value("PENDING"))
    assert decision.state is not None
    assert decision.state.scheduled_time == 5
    own = ask(value("SCHEDULED", scheduled_time=5), value("PENDING", scheduled_time=7))
    assert own.state is not None
    assert own.state.scheduled_time == 7


def test_pending_renamed_keeps_its_time() -> None:
    decision = ask(value("PENDING", scheduled_time=5), value("PENDING", name="Submitting"))
    assert decision.state is not None
    assert (decision.state.name, decision.state.scheduled_time) == ("Submitting", 5)


@pytest.mark.parametrize(("early", "seconds"), [(1, 1), (SECOND, 1), (SECOND + 1, 2), (90 * SECOND, 90)])
def test_waiting_is_counted_in_whole_seconds_and_never_too_short(early: int, seconds: int) -> None:
    decision = ask(value("SCHEDULED", scheduled_time=NOW + early), value("RUNNING"))
    assert decision.verdict == Wait(float(seconds), "The run is scheduled for later.")
    assert decision.state is None


def test_an_executor_decides_when_the_delay_of_its_own_retry_is_over() -> None:
    awaiting = value("SCHEDULED", name="AwaitingRetry", scheduled_time=NOW + 90 * SECOND, is_retry=True)
    own = ask(awaiting, value("RUNNING", name="Retrying"), by_executor=True)
    assert isinstance(own.verdict, Accept)
    assert ask(awaiting, value("RUNNING")).verdict == Wait(90.0, "The run is scheduled for later.")
    deployed = value("SCHEDULED", scheduled_time=NOW + 90 * SECOND)
    asked_early = ask(deployed, value("RUNNING"), by_executor=True)
    assert asked_early.verdict == Wait(90.0, "The run is scheduled for later.")


def test_scheduled_for_no_time_means_now() -> None:
    decision = ask(None, StateValue(value("SCHEDULED").type, "id", NOW))
    assert decision.state is not None
    assert decision.state.scheduled_time == NOW


def test_a_pause_without_a_key_gets_a_fresh_one_and_a_key_fires_once() -> None:
    decision = ask(value("RUNNING"), value("PAUSED"))
    assert decision.state is not None
    assert decision.state.pause_key == "fresh"
    assert decision.run.pause_keys == {"fresh"}


def test_resuming_in_process_does_not_count_as_another_run() -> None:
    decision = ask(value("PAUSED"), value("RUNNING"))
    assert decision.run.books.run_count == 1
    assert not decision.run.books.is_resuming


def test_resuming_by_schedule_is_remembered_until_the_run_runs() -> None:
    suspended = value("PAUSED", pause_reschedule=True)
    decision = ask(suspended, value("SCHEDULED", is_resumption=True), has_deployment=True)
    assert decision.run.books.is_resuming
    assert decision.state is not None
    resumed = decide(FLOW_RULES, replace(context(decision.state, value("RUNNING")), run=decision.run))
    assert resumed.run.books.run_count == 1


def test_leaving_a_final_state_forgets_pauses() -> None:
    again = ask(value("FAILED"), value("RUNNING"), pause_keys=frozenset({"one"}))
    assert again.run.pause_keys == frozenset()
    assert again.run.retry_type is RetryType.NONE
    assert again.run.books.end_time is None
    rescheduled = ask(value("FAILED"), value("SCHEDULED"), has_deployment=True)
    assert rescheduled.run.retry_type is RetryType.RESCHEDULE


def test_cancelling_a_run_that_nobody_holds_cancels_it_with_the_reason_given() -> None:
    proposed = value("CANCELLING", message="not today")
    decision = ask(value("SCHEDULED"), proposed, is_held=False)
    assert decision.state is not None
    assert (decision.state.name, decision.state.message) == ("Cancelled", "not today")


def test_every_accepted_state_is_announced_under_its_name() -> None:
    assert Announce("headrace.flow-run.Completed") in ask(value("RUNNING"), value("COMPLETED")).effects
    retried = ask(value("RUNNING"), value("FAILED"), max_retries=1)
    assert Announce("headrace.flow-run.AwaitingRetry") in retried.effects


def test_a_run_without_a_state_has_none_to_keep() -> None:
    decision = ask(None, value("SCHEDULED", name="Late"))
    assert isinstance(decision.verdict, Abort)


# Slots


def test_submitting_takes_a_slot() -> None:
    decision = ask(value("SCHEDULED"), value("PENDING"), limits=(LIMIT,))
    assert effects_of(decision.effects, TakeSlot) == [TakeSlot("deployment/etl")]


def test_a_full_limit_queues_or_cancels() -> None:
    queued = ask(value("SCHEDULED"), value("PENDING"), limits=(replace(FULL, wait_seconds=30),))
    assert queued.state is not None
    assert (queued.state.name, queued.state.scheduled_time) == ("AwaitingConcurrencySlot", NOW + 30 * SECOND)
    cancelled = ask(value("SCHEDULED"), value("PENDING"), limits=(replace(FULL, cancels_new=True),))
    assert outcome(cancelled) == "R>Cancelled"


def test_a_limit_of_nothing_aborts_and_a_disabled_one_is_none() -> None:
    assert outcome(ask(value("SCHEDULED"), value("PENDING"), limits=(replace(LIMIT, slots=0),))) == "X"
    disabled = replace(LIMIT, slots=0, is_enabled=False)
    assert outcome(ask(value("SCHEDULED"), value("PENDING"), limits=(disabled,))) == "A"


def test_a_run_of_a_deleted_deployment_is_not_submitted() -> None:
    assert outcome(ask(value("SCHEDULED"), value("PENDING"), is_deployment_deleted=True)) == "X"


def test_starting_extends_the_slot_or_takes_a_lost_one_again() -> None:
    held = ask(value("PENDING"), value("RUNNING"), limits=(replace(LIMIT, holds=True),))
    assert effects_of(held.effects, ExtendSlot, TakeSlot) == [ExtendSlot("deployment/etl")]
    lost = ask(value("PENDING"), value("RUNNING"), limits=(LIMIT,))
    assert effects_of(lost.effects, ExtendSlot, TakeSlot) == [TakeSlot("deployment/etl")]
    gone = ask(value("PENDING"), value("RUNNING"), limits=(FULL,))
    assert outcome(gone) == "R>Cancelled"
    assert "lost while the run was starting" in (gone.state.message if gone.state else "")


@pytest.mark.parametrize(
    ("current", "proposed", "given", "is_freed"),
    [
        ("RUNNING", value("COMPLETED"), {}, True),
        ("RUNNING", value("CANCELLING"), {}, False),
        ("RUNNING", value("PAUSED"), {}, False),
        ("RUNNING", value("PAUSED", pause_reschedule=True), {"has_deployment": True}, True),
        ("RUNNING", value("FAILED"), {"max_retries": 1}, False),
        ("RUNNING", value("SCHEDULED", is_retry=True), {"by_executor": True}, False),
        ("RUNNING", value("SCHEDULED"), {}, True),
        ("PENDING", value("CRASHED"), {}, True),
        ("PAUSED", value("CANCELLED"), {}, True),
    ],
)
def test_a_slot_is_freed_when_the_process_is_left(
    current: str, proposed: StateValue, given: dict[str, object], is_freed: bool
) -> None:
    decision = ask(value(current), proposed, limits=(replace(LIMIT, holds=True),), **given)
    assert bool(effects_of(decision.effects, ReleaseSlot)) is is_freed


def test_being_late_for_a_full_limit_that_cancels_new_runs_cancels() -> None:
    decision = ask(
        value("SCHEDULED"), value("SCHEDULED", name="Late"), limits=(replace(FULL, cancels_new=True),)
    )
    assert outcome(decision) == "R>Cancelled"


@pytest.mark.parametrize("number", [rule.number for rule in FLOW_RULES if not rule.is_universal])
@pytest.mark.parametrize(("current", "proposed"), [("SCHEDULED", "PENDING"), ("PENDING", "RUNNING")])
def test_a_rejection_by_any_rule_leaves_the_slots_as_they_were(
    number: int, current: str, proposed: str
) -> None:
    """Each rule is made to reject in its turn; what rules before it planned is forgotten."""
    rules = tuple(_rejecting(rule) if rule.number == number else rule for rule in FLOW_RULES)
    decision = decide(rules, context(value(current), value(proposed), limits=(LIMIT,)))
    assert outcome(decision) == "R>Failed"
    assert effects_of(decision.effects, TakeSlot) == []


def _rejecting(rule: Rule) -> Rule:
    return replace(rule, sources=ANY, targets=frozenset(StateType), check=_reject)


def _reject(_context: object) -> Replace:
    return Replace(value("FAILED", timestamp=NOW), "a test says so")


# Composition


def test_a_rejection_does_not_set_off_the_rules_of_the_new_pair() -> None:
    """RUNNING -> FAILED becomes SCHEDULED: the rule about lateness and the slot rule must not look at it."""
    late = replace(value("SCHEDULED", name="Late"), timestamp=NOW)
    rules = (
        Rule(
            0,
            "make it late",
            frozenset({value("RUNNING").type}),
            frozenset({value("FAILED").type}),
            lambda _: Replace(late, "late"),
        ),
        *FLOW_RULES,
    )
    decision = decide(rules, context(value("RUNNING"), value("FAILED")))
    assert outcome(decision) == "R>Late"


def test_a_rule_that_raises_aborts_and_writes_nothing() -> None:
    def broken(_context: object) -> None:
        raise ZeroDivisionError("oh")

    rule = Rule(
        99, "the broken one", frozenset({value("RUNNING").type}), frozenset({value("FAILED").type}), broken
    )
    decision = decide((*FLOW_RULES, rule), context(value("RUNNING"), value("FAILED"), limits=(LIMIT,)))
    assert decision.verdict == Abort("The rule 'the broken one' met an error of its own.")
    assert (decision.state, decision.effects) == (None, ())
    assert isinstance(decision.error, ZeroDivisionError)


# Force


@pytest.mark.parametrize(
    ("current", "proposed", "given", "expected"),
    [
        (value("COMPLETED", data=b"1"), value("COMPLETED"), {}, "R"),
        (value("COMPLETED", data=b"1"), value("FAILED"), {}, "A"),
        (value("CANCELLING"), value("COMPLETED"), {}, "A"),
        (value("SCHEDULED"), value("CANCELLING"), {"is_held": False}, "R>Cancelled"),
        (value("RUNNING"), value("FAILED"), {"max_retries": 9}, "A"),
        (value("SCHEDULED", scheduled_time=NOW + SECOND), value("RUNNING"), {}, "A"),
    ],
)
def test_force_skips_all_but_the_minimal_rules(
    current: StateValue, proposed: StateValue, given: dict[str, object], expected: str
) -> None:
    assert outcome(ask(current, proposed, MINIMAL_FLOW_RULES, **given)) == expected


def test_force_keeps_the_first_end_and_frees_the_slot() -> None:
    completed = value("COMPLETED")
    held = (replace(LIMIT, holds=True),)
    decision = ask(completed, value("FAILED"), MINIMAL_FLOW_RULES, limits=held)
    assert decision.run.books.end_time == completed.timestamp
    assert effects_of(decision.effects, ReleaseSlot) == [ReleaseSlot("deployment/etl")]


def test_marking_late_starts_nothing_else() -> None:
    decision = ask(value("SCHEDULED"), value("SCHEDULED", name="Late"), LATE_MARKER_RULES, limits=(LIMIT,))
    assert outcome(decision) == "A"
    assert decision.effects == (Announce("headrace.flow-run.Late"),)


# Handing over


def test_a_process_that_has_to_end_gives_its_run_to_another_attempt() -> None:
    given = value("SCHEDULED", is_given_back=True, scheduled_time=NOW + 9 * SECOND)
    keys = frozenset({"passed", "open"})
    waiting = value("PAUSED", pause_key="open")
    decision = ask(waiting, given, is_dispatched=True, pause_keys=keys, by_executor=True)
    assert outcome(decision) == "A"
    assert decision.state is not None
    assert decision.state.scheduled_time == NOW, "the process's clock does not delay it"
    assert decision.run.retry_type is RetryType.RESCHEDULE
    assert decision.run.pause_keys == frozenset({"passed"}), "what it waits for it waits for again"
    assert not decision.run.books.is_resuming


def test_a_run_that_nobody_would_run_is_not_given_back() -> None:
    assert outcome(ask(value("RUNNING"), value("SCHEDULED", is_given_back=True), by_executor=True)) == "R"


@pytest.mark.parametrize("current", ["PENDING", "RUNNING", "PAUSED"])
def test_what_is_left_to_its_infrastructure_keeps_its_slot_and_is_offered_to_nobody(current: str) -> None:
    relinquished = value("SCHEDULED", is_relinquished=True)
    decision = ask(value(current), relinquished, limits=(replace(FULL, holds=True),), by_executor=True)
    assert outcome(decision) == "A"
    assert decision.run.retry_type is RetryType.IN_PROCESS
    assert effects_of(decision.effects, ReleaseSlot) == []


@pytest.mark.parametrize("what", ["is_given_back", "is_relinquished"])
def test_what_is_being_cancelled_is_left_to_nobody(what: str) -> None:
    left = replace(value("SCHEDULED"), **{what: True})
    assert outcome(ask(value("CANCELLING"), left, is_dispatched=True, by_executor=True)) == "R"
