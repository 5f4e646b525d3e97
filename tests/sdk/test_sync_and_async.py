"""Plain and coroutine flows with both kinds of tasks: called, submitted, mapped, in and out of loops."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from typing import Any

import pytest
import uvloop

from headrace import flow, task
from headrace.context import FlowRunContext, get_run_context
from headrace.task_runners import ThreadPoolTaskRunner
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder")


def add(x: int, y: int = 1) -> int:
    return x + y


WAYS = ["call", "submit", "map"]


def used(step: Any, way: str) -> Any:
    if way == "submit":
        return step.submit(1).result()
    if way == "map":
        return step.map([1, 2]).result()
    return step(1)


EXPECTED = {"call": 2, "submit": 2, "map": [2, 3]}


@pytest.mark.parametrize("place", ["outside", "in a loop", "in a thread"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task_kind", KINDS)
@pytest.mark.parametrize("flow_kind", KINDS)
def test_the_matrix(flow_kind: str, task_kind: str, way: str, place: str, recorder: MemoryRecorder) -> None:
    step = task(of_kind(task_kind, add), name="step")
    if flow_kind == "def":
        subject = flow(lambda: used(step, way))
    else:

        async def body() -> Any:
            result = used(step, way)
            return await result if inspect.isawaitable(result) else result

        subject = flow(body)

    async def in_loop() -> Any:
        result = subject()
        return await result if inspect.isawaitable(result) else result

    if place == "in a loop":
        value = asyncio.run(in_loop())
    elif place == "in a thread":
        value = asyncio.run(asyncio.to_thread(call, subject))  # type: ignore[arg-type]
    else:
        value = call(subject)
    assert value == EXPECTED[way]
    assert all(run.names == ["Pending", "Running", "Completed"] for run in recorder.runs)


def test_a_coroutine_task_called_in_a_plain_flow_is_not_run_behind_the_authors_back(
    recorder: MemoryRecorder,
) -> None:
    step = task(of_kind("async def", add), name="step")

    @flow
    def outer() -> bool:
        coroutine = step(1)
        is_one = inspect.iscoroutine(coroutine)
        coroutine.close()
        return is_one

    assert outer() is True
    assert recorder.all("step") == []


async def test_a_failing_branch_leaves_the_others_alone(recorder: MemoryRecorder) -> None:
    @task(name="step")
    async def step(n: int) -> int:
        await asyncio.sleep(0)
        if n == 1:
            raise ValueError("one")
        return n

    @flow
    async def outer() -> Any:
        return {"results": await asyncio.gather(*[step(n) for n in range(3)], return_exceptions=True)}

    first, second, third = (await outer())["results"]
    assert (first, third) == (0, 2) and isinstance(second, ValueError)
    assert sorted(run.names[-1] for run in recorder.all("step")) == ["Completed", "Completed", "Failed"]


async def test_to_thread_keeps_the_run_and_a_thread_of_ones_own_does_not() -> None:
    seen: list[Any] = []

    @flow
    async def outer() -> None:
        here = get_run_context()
        assert await asyncio.to_thread(get_run_context) is here
        thread = threading.Thread(target=lambda: seen.append(FlowRunContext.get()))
        thread.start()
        thread.join()
        assert get_run_context() is here

    await outer()
    assert seen == [None]


def test_one_flow_object_in_two_threads_at_once(recorder: MemoryRecorder) -> None:
    barrier = threading.Barrier(2)
    step = task(lambda: barrier.wait(60) is not None, name="step")
    outer = flow(
        lambda: step.submit().result(), name="outer", task_runner=ThreadPoolTaskRunner(max_workers=1)
    )
    threads = [threading.Thread(target=outer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.names[-1] for run in recorder.runs] == ["Completed"] * 4
    parents = [run.run.parent_run_id for run in recorder.all("step")]
    assert sorted(parents) == sorted(run.run.id for run in recorder.all("outer"))


def test_the_bodies_context_variables(recorder: MemoryRecorder) -> None:
    """A plain body is called in the caller's own context, as a function is."""
    variable = contextvars.ContextVar("variable", default="outside")

    @flow
    def outer() -> str:
        task(lambda: variable.set("from a task"))()
        return variable.get()

    assert outer() == "from a task"
    assert variable.get() == "from a task"


def test_the_traceback_is_short(recorder: MemoryRecorder) -> None:
    """Few frames stand between a flow and its failing task."""

    @task
    def bad() -> None:
        raise ValueError

    @flow
    def outer() -> None:
        bad()

    with pytest.raises(ValueError) as caught:
        outer()
    names = [entry.name for entry in caught.traceback]
    assert len(names) <= 14
    assert names[-1] == "bad"


def test_on_another_kind_of_event_loop(recorder: MemoryRecorder) -> None:
    async_step, step = task(of_kind("async def", add)), task(add)

    @task(timeout_seconds=0.05)
    async def slow() -> None:
        await asyncio.sleep(60)

    @flow
    async def everything() -> list[Any]:
        assert type(asyncio.get_running_loop()) is uvloop.Loop
        gathered = await asyncio.gather(*[async_step(number) for number in range(3)])
        submitted = [step.submit(gathered[0]), async_step.submit(gathered[1])]
        cut = await slow(return_state=True)
        return [gathered, *(future.result() for future in submitted), cut.name, step(7)]

    async def twice() -> list[Any]:
        return await asyncio.gather(everything(), everything())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(twice()) == [[[1, 2, 3], 2, 3, "TimedOut", 8]] * 2


def test_cancelled_on_another_kind_of_event_loop(recorder: MemoryRecorder) -> None:
    begun = asyncio.Event()

    @flow(name="waits")
    async def waits() -> None:
        begun.set()
        await asyncio.sleep(60)

    async def cancel() -> None:
        running = asyncio.ensure_future(waits())
        await begun.wait()
        running.cancel()
        await running

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(asyncio.CancelledError):
        runner.run(cancel())
    assert recorder.the("waits").names[-1] == "Crashed"
