"""Ranks of queues."""

from __future__ import annotations

import random

import pytest

from headrace_services.domain.priorities import first_free, placed

CASES = [
    ({}, "a", 1, {"a": 1}),
    ({"a": 1}, "a", 1, {}),
    ({"a": 1}, "b", 1, {"b": 1, "a": 2}),
    ({"a": 1, "b": 2}, "c", 1, {"c": 1, "a": 2, "b": 3}),
    # Only those that must move do.
    ({"a": 1, "b": 3}, "c", 1, {"c": 1, "a": 2}),
    ({"a": 1, "b": 2, "d": 5}, "c", 2, {"c": 2, "b": 3}),
    # Who moves up leaves a gap, which stops the others.
    ({"a": 1, "b": 2, "c": 3}, "c", 1, {"c": 1, "a": 2, "b": 3}),
    ({"a": 1, "b": 2, "c": 3}, "b", 1, {"b": 1, "a": 2}),
    ({"a": 1, "b": 2, "c": 3}, "a", 2, {"a": 2, "b": 3, "c": 4}),
    ({"a": 1, "b": 2}, "a", 9, {"a": 9}),
]


@pytest.mark.parametrize(("ranks", "name", "rank", "changes"), CASES)
def test_who_makes_room(ranks: dict[str, int], name: str, rank: int, changes: dict[str, int]) -> None:
    assert placed(ranks, name, rank) == changes


def test_the_first_free_rank() -> None:
    assert first_free({}) == 1
    assert first_free({"a": 1, "b": 2, "c": 4}) == 3
    assert first_free({"a": 2}) == 1


def test_ranks_stay_unique_and_in_order() -> None:
    source = random.Random(7)
    for _ in range(500):
        ranks = {str(i): rank for i, rank in enumerate(source.sample(range(1, 12), 6))}
        name = source.choice([*ranks, "new"])
        wanted = source.randint(1, 12)
        after = ranks | placed(ranks, name, wanted)
        assert after[name] == wanted
        assert len(set(after.values())) == len(after)
        others = [other for other in sorted(ranks, key=ranks.__getitem__) if other != name]
        assert others == [o for o in sorted(after, key=after.__getitem__) if o != name]
