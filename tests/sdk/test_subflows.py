"""Flows in flows, flows in tasks, tasks on their own: who is whose child, and what is inherited."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from headrace import flow, runtime, task
from headrace.context import FlowRunContext, TaskRunContext, get_run_context
from headrace.exceptions import MissingContextError
from headrace.states import StateType
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder, RecordedRun

pytestmark = pytest.mark.usefixtures("recorder")


@flow
def nest(depth: int) -> int:
    return nest(depth - 1) + 1 if depth else 0


def chain(recorder: MemoryRecorder) -> list[RecordedRun]:
    return recorder.all("nest")


def test_five_deep(recorder: MemoryRecorder) -> None:
    assert nest(5) == 5
    runs = chain(recorder)
    assert len(runs) == 6
    root = runs[0].run
    assert (root.root_run_id, root.parent_run_id, root.owner_run_id) == (root.id, "", root.id)
    for parent, child in itertools.pairwise(runs):
        assert child.run.parent_run_id == parent.run.id
        assert child.run.root_run_id == child.run.owner_run_id == root.id
    # No run stands for another: six flow runs, and nothing else.
    assert len(recorder.runs) == 6
    # Children end before their parents.
    ended = [run.states[-1].event_time.ToMicroseconds() for run in runs]
    assert ended == sorted(ended, reverse=True)


def test_every_state_is_written_under_the_roots_fence(recorder: MemoryRecorder) -> None:
    nest(1)
    attempts = [entry.state.attempt for entry in recorder.entries if entry.HasField("state")]
    assert {(attempt.attempt, attempt.fence) for attempt in attempts} == {(1, 1)}


def test_the_root_is_owned_while_it_runs(recorder: MemoryRecorder) -> None:
    seen: list[list[str]] = []

    @flow
    def outer() -> None:
        seen.append(list(recorder.owners))
        nest(1)
        seen.append(list(recorder.owners))

    outer()
    assert len(seen[0]) == 1 and seen[0] == seen[1]
    assert recorder.owners == {} and recorder.ended_owners == seen[0]


async def test_twenty_at_once(recorder: MemoryRecorder) -> None:
    @flow(name="child")
    async def child(n: int) -> int:
        await asyncio.sleep(0)
        context = FlowRunContext.get()
        assert context is not None and context.parameters == {"n": n}
        return n

    @flow(name="outer")
    async def outer() -> Any:
        return await asyncio.gather(*[child(n) for n in range(20)])

    assert await outer() == list(range(20))
    root = recorder.the("outer").run.id
    assert {run.run.parent_run_id for run in recorder.all("child")} == {root}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_in_a_task_in_a_flow(kind: str, recorder: MemoryRecorder) -> None:
    seen: dict[str, Any] = {}

    @flow(name="inner")
    def inner() -> None:
        context = get_run_context()
        seen["innermost"] = type(context)
        seen["task"] = TaskRunContext.get()
        seen["parent"] = runtime.flow_run.parent_flow_run_id
        seen["root"] = runtime.flow_run.root_flow_run_id

    step = task(of_kind(kind, lambda: inner()), name="step")

    @flow(name="outer")
    def outer() -> None:
        call(step)

    outer()
    top, middle, bottom = (recorder.the(name).run for name in ("outer", "step", "inner"))
    assert (middle.parent_run_id, bottom.parent_run_id) == (top.id, middle.id)
    assert bottom.root_run_id == top.id
    assert seen["innermost"] is FlowRunContext
    assert seen["task"].task_run.id == middle.id
    assert (seen["parent"], seen["root"]) == (top.id, top.id)


def test_a_task_in_a_task(recorder: MemoryRecorder) -> None:
    inner = task(lambda: 1, name="inner")
    middle = task(lambda: inner(), name="middle")

    @flow(name="outer")
    def outer() -> None:
        middle()

    outer()
    run = recorder.the("inner").run
    assert run.parent_run_id == recorder.the("middle").run.id
    assert [(edge.parameter, list(edge.run_ids)) for edge in run.inputs] == [
        ("__parents__", [recorder.the("middle").run.id])
    ]
    assert run.flow_name == "outer"


def test_a_task_on_its_own(recorder: MemoryRecorder) -> None:
    inner = task(lambda: 1, name="inner")
    alone = task(lambda: inner(), name="alone")
    alone()
    top, below = recorder.the("alone").run, recorder.the("inner").run
    assert (top.root_run_id, top.parent_run_id, top.flow_name) == (top.id, "", "")
    assert (below.root_run_id, below.parent_run_id, below.owner_run_id) == (top.id, top.id, top.id)
    assert recorder.ended_owners == [top.id]


def test_calls_of_one_task_are_told_apart(recorder: MemoryRecorder) -> None:
    step = task(lambda n: n, name="step")

    @flow
    def outer() -> None:
        for n in range(3):
            step(n)

    outer()
    assert [run.run.dynamic_key for run in recorder.all("step")] == ["0", "1", "2"]
    assert len({run.run.task_key for run in recorder.all("step")}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_in_a_subflow_is_raised_as_from_a_call(kind: str, recorder: MemoryRecorder) -> None:
    error = ValueError("inner")

    def body() -> None:
        raise error

    inner = flow(of_kind(kind, body), name="inner")

    @flow(name="outer")
    def outer() -> None:
        with pytest.raises(ValueError) as caught:
            call(inner)
        assert caught.value is error
        assert call(inner, return_state=True).is_failed()
        call(inner)

    with pytest.raises(ValueError):
        outer()
    assert recorder.the("outer").types[-1] is StateType.FAILED


@pytest.mark.parametrize("own", [None, True, False])
@pytest.mark.parametrize("parents", [None, True, False])
def test_what_children_inherit(own: Any, parents: Any) -> None:
    seen: list[Any] = []

    def body() -> None:
        context = get_run_context()
        seen.append((context.persist_result, context.log_prints))

    children = [decorate(body, persist_result=own, log_prints=own) for decorate in (flow, task)]

    @flow(persist_result=parents, log_prints=parents)
    def outer() -> None:
        for child in children:
            child()

    outer()
    persist = parents if own is None else own
    assert seen == [(persist, bool(persist))] * 2


def test_what_children_do_not_inherit(recorder: MemoryRecorder) -> None:
    inner = flow(lambda: None, name="inner")
    flow(lambda: inner(), name="outer", retries=3, timeout_seconds=60)()
    assert recorder.the("outer").run.retry_policy.max_retries == 3
    assert not recorder.the("inner").run.HasField("retry_policy")
    assert not recorder.the("inner").run.HasField("timeout")


def test_a_crash_of_a_child_crashes_the_parent(recorder: MemoryRecorder) -> None:
    def leave() -> None:
        raise SystemExit(5)

    step = task(leave, name="step")
    inner = flow(lambda: step(), name="inner")
    with pytest.raises(SystemExit) as caught:
        flow(lambda: inner(), name="outer")()
    assert caught.value.code == 5
    for name in ("step", "inner", "outer"):
        run = recorder.the(name)
        assert run.names[-1] == "Crashed"
        assert run.states[-1].message == "Execution was aborted by Python system exit call."
    order = [e.state.attempt.run_id for e in recorder.entries if e.state.state.name == "Crashed"]
    assert order == [recorder.the(name).run.id for name in ("step", "inner", "outer")]


def test_there_is_no_context_outside() -> None:
    with pytest.raises(MissingContextError):
        get_run_context()
    assert FlowRunContext.get() is TaskRunContext.get() is None


def test_submitting_outside_of_a_flow() -> None:
    step = task(lambda x: x)
    with pytest.raises(RuntimeError, match="needs a running flow"):
        step.submit(1)
    with pytest.raises(RuntimeError, match="needs a running flow"):
        step.map([1])
