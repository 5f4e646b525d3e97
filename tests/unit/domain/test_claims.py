"""Who gets what, as tables; and that what keeps a run waiting is what is said of it."""

from __future__ import annotations

import heapq
import random
from dataclasses import replace
from typing import Any

import pytest

from headrace_services.domain.claims import (
    Candidate,
    Facts,
    Limit,
    Line,
    Obstacle,
    Offer,
    RouteKind,
    choose,
    obstacle,
)
from headrace_services.domain.fairness import STRIDE, WEIGHT, next_pass

POOL = RouteKind.WORK_POOL


def candidate(run_id: str = "run", **fields: Any) -> Candidate:
    base = Candidate(run_id, POOL, "pool", "default", {}, due_time=0)
    return replace(base, **fields)


def offer(session_id: str = "s", **fields: Any) -> Offer:
    base = Offer(session_id, f"worker-{session_id}", POOL, frozenset({"pool"}), frozenset(), {}, credit=1)
    return replace(base, **fields)


def facts(*offers: Offer, **fields: Any) -> Facts:
    said: dict[str, Any] = {"now": 100, "pools": {"pool": Line()}, "offers": offers, **fields}
    return Facts(**said)


FULL, FREE = Limit(1, held=1), Limit(1, held=0)
QUEUE = ("pool", "default")
CASES: list[tuple[Candidate, Facts, Obstacle | None]] = [
    (candidate(), facts(offer()), None),
    (candidate(due_time=101), facts(offer()), Obstacle.NOT_DUE),
    (candidate(due_time=101), facts(offer(prefetch=5)), None),
    (candidate(), facts(offer(), pools={}), Obstacle.NO_WORK_POOL),
    (candidate(), facts(offer(), pools={"pool": Line(is_paused=True)}), Obstacle.WORK_POOL_PAUSED),
    (candidate(), facts(offer(), queues={QUEUE: Line(is_paused=True)}), Obstacle.WORK_QUEUE_PAUSED),
    (candidate(), facts(), Obstacle.NO_WORKER),
    (candidate(), facts(offer(subjects=frozenset({"other"}))), Obstacle.NO_WORKER),
    (candidate(), facts(offer(queues=frozenset({"slow"}))), Obstacle.NO_MATCHING_WORKER),
    (candidate(labels={"gpu": "a"}), facts(offer(labels={"gpu": "b"})), Obstacle.NO_MATCHING_WORKER),
    (candidate(labels={"gpu": "a"}), facts(offer(labels={"gpu": "a", "zone": "1"})), None),
    (candidate(), facts(offer(credit=0)), Obstacle.NO_CREDIT),
    (candidate(excluded={"worker-s": 101}), facts(offer()), Obstacle.NO_CREDIT),
    (candidate(excluded={"worker-s": 100}), facts(offer()), None),
    (candidate(), facts(offer(), queues={QUEUE: Line(FULL)}), Obstacle.WORK_QUEUE_LIMIT),
    (candidate(), facts(offer(), pools={"pool": Line(FULL)}), Obstacle.WORK_POOL_LIMIT),
    (candidate(), facts(offer(), pools={"pool": Line(FREE)}), None),
    (candidate(deployment_id="d"), facts(offer(), deployments={"d": FULL}), Obstacle.DEPLOYMENT_LIMIT),
    (candidate(fairness_key="k"), facts(offer(), keys={("pool", "k"): FULL}), Obstacle.FAIRNESS_KEY_LIMIT),
    (candidate(fairness_key="k"), facts(offer(), keys={("pool", "other"): FULL}), None),
    (candidate(fairness_key="k"), facts(offer(), keys={("other", "k"): FULL}), None),
    (candidate(kind=RouteKind.TASK), facts(offer(kind=RouteKind.TASK), pools={}), None),
]


@pytest.mark.parametrize(
    ("waiting", "known", "expected"),
    CASES,
    ids=[f"{n}-{e.name if e else 'nothing'}" for n, (*_, e) in enumerate(CASES)],
)
def test_what_keeps_a_run_waiting(waiting: Candidate, known: Facts, expected: Obstacle | None) -> None:
    assert obstacle(waiting, known) is expected
    assert [choice.obstacle for choice in choose([waiting], known, random.Random(1))] == [expected]


def test_limits_and_credit_are_never_exceeded() -> None:
    spread = random.Random(7)
    for _ in range(200):
        offers = [offer(str(n), credit=spread.randint(0, 3)) for n in range(3)]
        granted = {o.session_id: o.credit for o in offers}
        known = facts(
            *offers,
            pools={"pool": Line(Limit(spread.randint(0, 5)))},
            queues={QUEUE: Line(Limit(spread.randint(0, 4)))},
            deployments={"d": Limit(spread.randint(0, 3))},
        )
        runs = [candidate(str(n), deployment_id=spread.choice(["d", ""])) for n in range(8)]
        choices = choose(runs, known, spread)
        taken = [choice for choice in choices if choice.offer is not None]
        for limit, count in (
            (known.pools["pool"].limit, len(taken)),
            (known.queues[QUEUE].limit, len(taken)),
            (known.deployments["d"], sum(c.candidate.deployment_id == "d" for c in taken)),
        ):
            assert limit.held == count <= (limit.slots or 0)
        for session_id, credit in granted.items():
            assert sum(c.offer.session_id == session_id for c in taken if c.offer) <= credit
        # Whoever was left waiting has something in its way.
        assert all(obstacle(c.candidate, known) for c in choices if c.offer is None)


def test_the_order_of_turns() -> None:
    known = facts(
        offer(credit=9), queues={("pool", "fast"): Line(priority=1), ("pool", "default"): Line(priority=2)}
    )
    runs = [
        candidate("a", passed=5),
        candidate("b", passed=3),
        candidate("c", priority=1, passed=9),
        candidate("d", queue="fast", passed=99),
        candidate("e", passed=3, due_time=-5),
        candidate("f", queue="unranked"),
    ]
    handed = [choice.candidate.run_id for choice in choose(runs, known, random.Random(1))]
    assert handed == ["d", "c", "e", "b", "a", "f"]


def test_one_tenant_with_many_delays_another_by_one_turn() -> None:
    last: dict[str, int] = {}
    waiting: list[tuple[int, str]] = []
    for key in ["big"] * 1000 + [f"small-{n}" for n in range(20) for _ in range(5)]:
        last[key] = next_pass(0, last.get(key, 0))
        waiting.append((last[key], key))
    served = [key for _, key in sorted(waiting)][:200]
    assert sum(key != "big" for key in served) == 100


def test_who_was_away_has_no_claim_on_what_others_used() -> None:
    assert next_pass(1000, 3) == 1000 + STRIDE
    assert next_pass(1000, 1005) == 1005 + STRIDE


def test_weights_share_the_turns() -> None:
    """As with a claim each time that a worker has room: three to one, within a twentieth, at any time."""
    weights = {"heavy": 3 * WEIGHT, "plain": WEIGHT}
    waiting: list[tuple[int, str]] = []
    last: dict[str, int] = {}
    line, served = 0, dict.fromkeys(weights, 0)
    for start in range(4000):
        for key in weights:  # both always have more that waits
            if start % 4 == 0:
                for _ in range(4):
                    last[key] = next_pass(line, last.get(key, 0), weights[key])
                    heapq.heappush(waiting, (last[key], key))
        line, key = heapq.heappop(waiting)
        served[key] += 1
        if start >= 400:
            assert 0.95 * 3 <= served["heavy"] / served["plain"] <= 1.05 * 3


def test_a_full_key_holds_up_no_other() -> None:
    said = facts(offer(credit=5), keys={("pool", "a"): Limit(2, held=1)})
    waiting = [candidate(f"{key}{number}", fairness_key=key) for key in "ab" for number in range(3)]
    choices = choose(waiting, said, random.Random(1))
    handed = [choice.candidate.run_id for choice in choices if choice.offer is not None]
    assert handed == ["a0", "b0", "b1", "b2"]
    stopped = [choice.obstacle for choice in choices if choice.offer is None]
    assert stopped == [Obstacle.FAIRNESS_KEY_LIMIT] * 2
