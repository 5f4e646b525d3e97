"""Graphs made by plain Python while it runs: branches, loops and recursion on results and states."""

from __future__ import annotations

from collections import Counter

import pytest

from headrace import flow, task
from headrace.states import State
from tests.support.recorders import MemoryRecorder


@task
def measure(name: str) -> int:
    if name == "broken":
        raise OSError("no reading")
    return len(name)


@task
def accept(value: int) -> str:
    return f"accepted {value}"


@task
def repair(name: str) -> str:
    return f"repaired {name}"


@flow
def branch_on_result(name: str) -> str:
    value = measure(name)
    return accept(value) if value > 3 else repair(name)


@flow
def branch_on_state(name: str) -> str:
    state: State[int] = measure(name, return_state=True)
    return accept(state.result()) if state.is_completed() else repair(name)


@task
def children_of(number: int) -> list[int]:
    return [number // 2] * 2 if number > 1 else []


@flow
def grow(seed: int) -> int:
    """A tree whose size is known only when it has been walked."""
    waiting, seen = [children_of.submit(seed)], 0
    while waiting:
        seen += 1
        waiting += [children_of.submit(child) for child in waiting.pop().result()]
    return seen


@pytest.mark.parametrize(
    ("name", "said", "ran"), [("long one", "accepted 8", "accept"), ("x", "repaired x", "repair")]
)
def test_a_branch_on_a_result_runs_one_side(recorder: MemoryRecorder, name: str, said: str, ran: str) -> None:
    assert branch_on_result(name) == said
    assert _tasks(recorder) == {"measure": 1, ran: 1}


@pytest.mark.parametrize(
    ("name", "said", "ran"), [("fine", "accepted 4", "accept"), ("broken", "repaired broken", "repair")]
)
def test_a_branch_on_a_state_runs_one_side(recorder: MemoryRecorder, name: str, said: str, ran: str) -> None:
    assert branch_on_state(name) == said
    assert _tasks(recorder) == {"measure": 1, ran: 1}
    assert recorder.the("branch-on-state").names[-1] == "Completed", "the flow has dealt with the failure"


def test_a_graph_grows_by_what_its_tasks_return(recorder: MemoryRecorder) -> None:
    assert grow(16) == 31
    assert _tasks(recorder) == {"children_of": 31}


def _tasks(recorder: MemoryRecorder) -> dict[str, int]:
    return dict(Counter(run.run.task_name for run in recorder.runs if not run.is_flow))
