"""Ranks of the queues of a pool: 1 comes first, and no two are equal."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["first_free", "placed"]


def first_free(ranks: Mapping[str, int]) -> int:
    """The lowest rank that nobody has."""
    taken = set(ranks.values())
    return next(rank for rank in range(1, len(taken) + 2) if rank not in taken)


def placed(ranks: Mapping[str, int], name: str, rank: int) -> dict[str, int]:
    """Who gets another rank when `name` takes `rank`: it, and those that must make room, one step each.

    Args:
        ranks: as they are, with `name` or without.
        name: who moves, or is new.
        rank: from 1.
    """
    holders = {held: other for other, held in ranks.items() if other != name}
    changes = {name: rank} if ranks.get(name) != rank else {}
    while rank in holders:
        changes[holders[rank]] = rank + 1
        rank += 1
    return changes
