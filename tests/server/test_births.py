"""Telling a living process from a dead one, and from another with the same number."""

from __future__ import annotations

import os

from headrace_services.loops.deaths import process_birth
from tests.support.processes import dead_process


def test_the_birth_of_a_process() -> None:
    mine = process_birth(os.getpid())
    assert mine is not None
    assert process_birth(os.getpid()) == mine
    assert process_birth(dead_process()) is None
    assert process_birth(0) is None
    assert process_birth(-1) is None


def test_a_process_that_nobody_has_waited_for_is_dead() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert process_birth(child) is None
    os.waitpid(child, 0)
