"""Turns by key: a stride schedule that is fixed when a run joins its line.

Every run gets a pass number, one more than the last of its key, but never one that the line has gone by:
who was away has no claim on what others used meanwhile. Runs are handed out by ascending pass, so keys with
runs waiting take turns, and one with a hundred thousand of them delays another's by one run.
"""

from __future__ import annotations

__all__ = ["STRIDE", "next_pass"]

STRIDE = 1
"""How far a run moves its key on."""


def next_pass(line: int, last: int) -> int:
    """The pass of the next run of a key.

    Args:
        line: the pass of the run that was handed out last; 0 before the first.
        last: the last pass that the key was given; 0 before the first.
    """
    return max(line, last) + STRIDE
