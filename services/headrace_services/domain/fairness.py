"""Turns by key: a stride schedule that is fixed when a run joins its line.

Every run gets a pass number, a stride more than the last of its key, but never one that the line has gone
by: who was away has no claim on what others used meanwhile. The stride is the shorter the more weight the key
has. Runs are handed out by ascending pass, so keys with runs waiting take turns, and one with a hundred
thousand of them delays another's by one run.
"""

from __future__ import annotations

from typing import Final

__all__ = ["STRIDE", "WEIGHT", "next_pass"]

STRIDE: Final = 1_000_000
"""How far a run moves a key of the usual weight on."""
WEIGHT: Final = 1000
"""The usual weight, 1, in thousandths."""


def next_pass(line: int, last: int, weight: int = WEIGHT) -> int:
    """The pass of the next run of a key.

    Args:
        line: the pass of the run that was handed out last; 0 before the first.
        last: the last pass that the key was given; 0 before the first.
        weight: of the key, thousandths.
    """
    return max(line, last) + STRIDE * WEIGHT // weight
