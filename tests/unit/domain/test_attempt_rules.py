"""What becomes of attempts, as a table."""

from __future__ import annotations

import pytest

from headrace.core.states import StateType
from headrace_services.domain.attempt_rules import (
    MAX_REFUSALS,
    Fate,
    LossCause,
    LostPolicy,
    Mirrored,
    Outcome,
    Phase,
    lost_delay,
    outcome,
    reconcile,
)

S, C = StateType, LossCause
AGAIN, LOST = Outcome(Fate.REQUEUE), Outcome(Fate.REQUEUE, counts_lost=True)
CRASH, NOTHING, CANCEL = Outcome(Fate.CRASH), Outcome(Fate.NOTHING), Outcome(Fate.CANCEL)
CASES = [
    # An offer that nobody took is offered again, whatever the policy.
    (C.NO_REPLY, S.PENDING, Phase.OFFERED, LostPolicy.CRASH, AGAIN),
    (C.RELEASED, S.PENDING, Phase.OFFERED, LostPolicy.CRASH, AGAIN),
    (C.SILENT, S.PENDING, Phase.OFFERED, LostPolicy.CRASH, AGAIN),
    (C.REFUSED, S.PENDING, Phase.OFFERED, LostPolicy.CRASH, AGAIN),
    # What was accepted and has not begun has run no code: it goes to another worker.
    (C.RELEASED, S.PENDING, Phase.ACCEPTED, LostPolicy.CRASH, LOST),
    (C.SILENT, S.PENDING, Phase.ACCEPTED, LostPolicy.CRASH, LOST),
    (C.NOT_HELD, S.PENDING, Phase.ACCEPTED, LostPolicy.UNSPECIFIED, LOST),
    # What has begun follows the policy.
    (C.SILENT, S.RUNNING, Phase.ACCEPTED, LostPolicy.CRASH, CRASH),
    (C.SILENT, S.RUNNING, Phase.ACCEPTED, LostPolicy.UNSPECIFIED, CRASH),
    (C.SILENT, S.RUNNING, Phase.ACCEPTED, LostPolicy.RESCHEDULE, LOST),
    (C.RELEASED, S.RUNNING, Phase.ACCEPTED, LostPolicy.RESCHEDULE, LOST),
    (C.NOT_HELD, S.PAUSED, Phase.ACCEPTED, LostPolicy.RESCHEDULE, LOST),
    # A process that ended without finishing.
    (C.EXITED, S.PENDING, Phase.ACCEPTED, LostPolicy.CRASH, CRASH),
    (C.EXITED, S.RUNNING, Phase.ACCEPTED, LostPolicy.RESCHEDULE, LOST),
    # What ended, or was to end, is not begun again.
    (C.SILENT, S.COMPLETED, Phase.ACCEPTED, LostPolicy.RESCHEDULE, NOTHING),
    (C.EXITED, S.CANCELLED, Phase.ACCEPTED, LostPolicy.CRASH, NOTHING),
    (C.EXITED, S.CANCELLING, Phase.ACCEPTED, LostPolicy.RESCHEDULE, CANCEL),
    (C.NO_REPLY, S.CANCELLING, Phase.OFFERED, LostPolicy.CRASH, CANCEL),
]


@pytest.mark.parametrize(
    ("cause", "state", "phase", "policy", "expected"),
    CASES,
    ids=["-".join((c.name, s.name, p.name, o.name)) for c, s, p, o, _ in CASES],
)
def test_what_becomes_of_a_run(
    cause: LossCause, state: StateType, phase: Phase, policy: LostPolicy, expected: Outcome
) -> None:
    assert outcome(cause, state, phase, policy, lost_before=0, max_lost=0, exit_code=9) == expected


def test_a_process_that_ends_well_and_says_nothing_is_not_begun_again() -> None:
    args = (C.EXITED, S.RUNNING, Phase.ACCEPTED, LostPolicy.RESCHEDULE)
    assert outcome(*args, lost_before=0, max_lost=3, exit_code=0) == CRASH
    assert outcome(*args, lost_before=0, max_lost=3, exit_code=None) == LOST


def test_a_run_is_lost_so_often_and_no_more() -> None:
    args = (C.SILENT, S.RUNNING, Phase.ACCEPTED, LostPolicy.RESCHEDULE)
    fates = [outcome(*args, lost_before=n, max_lost=2) for n in range(3)]
    assert [fate.fate for fate in fates] == [Fate.REQUEUE, Fate.REQUEUE, Fate.CRASH]
    assert [lost_delay(n) for n in (0, 1, 2, 3, 20)] == [0, 2, 4, 8, 60]


def test_a_run_is_refused_so_often_and_no_more() -> None:
    args = (C.REFUSED, S.PENDING, Phase.OFFERED, LostPolicy.RESCHEDULE)
    assert outcome(*args, lost_before=0, max_lost=0, refusals=MAX_REFUSALS - 1) == AGAIN
    assert outcome(*args, lost_before=0, max_lost=0, refusals=MAX_REFUSALS) == CRASH


def test_a_held_set_says_what_the_server_did_not_know() -> None:
    mirror = {
        "offered": Mirrored(1, 2, Phase.OFFERED, since=0.0),
        "unanswered": Mirrored(1, 2, Phase.OFFERED, since=0.0),
        "fresh": Mirrored(1, 2, Phase.OFFERED, since=95.0),
        "held": Mirrored(1, 2, Phase.ACCEPTED, since=0.0),
        "gone": Mirrored(1, 2, Phase.ACCEPTED, since=0.0),
        "older": Mirrored(2, 4, Phase.ACCEPTED, since=0.0),
    }
    held = [("offered", 2), ("held", 2), ("stranger", 7), ("older", 3)]
    found = reconcile(mirror, held, 100.0, 10.0)
    assert found.accepted == ["offered"]
    assert found.unknown == [("stranger", 7), ("older", 3)]
    # Once may be a heartbeat that had been on its way.
    assert found.unanswered == found.missing == []
    found = reconcile(mirror, held, 101.0, 10.0)
    assert found.unanswered == ["unanswered"] and found.missing == ["gone", "older"]


def test_an_offer_is_taken_back_when_two_heartbeats_in_a_row_should_have_named_it() -> None:
    mirror = {"run": Mirrored(1, 2, Phase.OFFERED, since=100.0)}
    for now in (101.0, 105.0, 110.0):  # it need not be answered yet
        assert not reconcile(mirror, [], now, 10.0).unanswered
    assert not reconcile(mirror, [], 111.0, 10.0).unanswered
    assert reconcile(mirror, [], 115.0, 10.0).unanswered == ["run"]


def test_the_first_heartbeat_of_a_worker_that_was_busy_overtakes_its_answer() -> None:
    mirror = {"run": Mirrored(1, 2, Phase.OFFERED, since=0.0)}
    assert not reconcile(mirror, [], 60.0, 10.0).unanswered
    found = reconcile(mirror, [("run", 2)], 61.0, 10.0)
    assert found.accepted == ["run"] and mirror["run"].missing == 0


def test_what_is_named_again_was_not_missing() -> None:
    mirror = {"run": Mirrored(1, 2, Phase.ACCEPTED, since=0.0)}
    for held in ([], [("run", 2)], []):
        assert not reconcile(mirror, held, 1.0, 10.0).missing
