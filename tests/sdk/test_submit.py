"""Submitted tasks: what they wait for, what they get, how failures travel, what is recorded."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest

from headrace import allow_failure, flow, quote, task
from headrace.core.states import StateType
from headrace.exceptions import UnfinishedRun, UpstreamTaskError
from headrace.futures import (
    HeadraceFuture,
    as_completed,
    resolve_futures_to_results,
    resolve_futures_to_states,
    wait,
)
from headrace.states import Completed, State
from headrace.task_runners import ThreadPoolTaskRunner
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder")

ONE = ThreadPoolTaskRunner(max_workers=1)


@task
def add(x: Any, y: Any = 1) -> Any:
    return x + y


@task
async def add_async(x: Any, y: Any = 1) -> Any:
    await asyncio.sleep(0)
    return x + y


@task
def total(values: Any) -> int:
    return sum(values)


@task
def fail(message: str = "no") -> Any:
    raise ValueError(message)


@task
def describe(value: Any) -> str:
    return repr(value)


@task
def leave() -> None:
    raise SystemExit(4)


def edges(recorder: MemoryRecorder, name: str, index: int = 0) -> dict[str, list[str]]:
    return {edge.parameter: list(edge.run_ids) for edge in recorder.all(name)[index].run.inputs}


@pytest.mark.parametrize("work", [add, add_async], ids=["def", "async def"])
def test_submit_gives_a_future_of_the_result_for_both_kinds(work: Any) -> None:
    @flow
    def run() -> Any:
        future = work.submit(1, y=2)
        assert isinstance(future, HeadraceFuture)
        return quote(future), future.result()

    future, value = run()
    assert value == 3
    assert future.value.state.is_completed()
    assert future.value.result() == 3, "it can be asked after the flow has ended"


@pytest.mark.parametrize("work", [add, add_async], ids=["def", "async def"])
async def test_an_async_flow_may_block_on_either_kind(work: Any) -> None:
    @flow
    async def run() -> Any:
        futures = [work.submit(i) for i in range(3)]
        return [future.result(timeout=60) for future in futures]

    assert await run() == [1, 2, 3]


async def test_async_tasks_make_progress_while_an_async_task_blocks_on_others() -> None:
    @task
    async def outer() -> int:
        return sum(add_async.map([1, 2, 3]).result(timeout=60))

    @flow
    async def run() -> list[int]:
        return [future.result(timeout=60) for future in [outer.submit(), outer.submit()]]

    assert await run() == [9, 9]


def test_return_state_waits_and_gives_the_state() -> None:
    @flow
    def run() -> Any:
        good = add.submit(1, return_state=True)
        bad = fail.submit(return_state=True)
        return {"good": good.name, "bad": bad.name, "value": good.result()}

    assert run() == {"good": "Completed", "bad": "Failed", "value": 2}


def test_outside_of_a_flow_there_is_nothing_to_submit_to() -> None:
    with pytest.raises(RuntimeError, match="running flow"):
        add.submit(1)
    with pytest.raises(RuntimeError, match="running flow"):
        add.map([1])


def test_wrong_arguments_make_no_run(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> None:
        with pytest.raises(TypeError):
            add.submit()

    run()
    assert recorder.all("add") == []


@dataclass
class Batch:
    rows: Any


def test_futures_in_arguments_become_values_and_edges(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> Any:
        a, b = add.submit(1), add.submit(2)
        sums = total.submit([a, b, 5])
        text = describe.submit({"k": (a, Batch(b)), "sum": sums})
        after = add.submit(0, wait_for=[text, {"x": a}])
        return text.result(), after.result()

    text, after = run()
    assert text == "{'k': (2, Batch(rows=3)), 'sum': 10}"
    assert after == 1
    a, b, last = (recorder.all("add")[i].run.id for i in range(3))
    assert edges(recorder, "total") == {"values": [a, b]}
    assert edges(recorder, "describe") == {"value": [a, b, recorder.the("total").run.id]}
    assert edges(recorder, "add", 2) == {"wait_for": [recorder.the("describe").run.id, a]}
    assert last


def test_results_passed_by_value_are_edges(recorder: MemoryRecorder) -> None:
    @task
    def load() -> dict[str, list[int]]:
        return {"rows": [1, 2]}

    @flow
    def run() -> None:
        table = load()
        describe(table)
        describe.submit([table["rows"]]).result()

    run()
    loaded = recorder.the("load").run.id
    assert edges(recorder, "describe", 0) == {"value": [loaded]}
    assert edges(recorder, "describe", 1) == {"value": [loaded]}


def test_a_future_that_stands_twice_in_one_call_is_one_value() -> None:
    @task
    def make() -> list[int]:
        return [1]

    @task
    def same(x: Any, y: Any) -> bool:
        return x[0] is x[1] and x[0] is y

    @flow
    def run() -> Any:
        future = make.submit()
        return same.submit([future, future], future).result()

    assert run() is True


def test_a_failed_upstream_leaves_what_depends_on_it_not_ready(recorder: MemoryRecorder) -> None:
    ran: list[Any] = []

    @task(on_failure=[lambda *_: ran.append("hook")], on_completion=[lambda *_: ran.append("hook")])
    def after(x: Any) -> None:
        ran.append(x)

    @flow
    def run() -> Any:
        bad = fail.submit()
        first = after.submit(bad)
        second = after.submit([first])
        third = after.submit(1, wait_for=[second])
        wait([third])
        for future in (first, second, third):
            assert (future.state.type, future.state.name) == (StateType.PENDING, "NotReady")
            with pytest.raises(UnfinishedRun):
                future.result()
        return bad.task_run_id, first.state.message

    bad_id, message = run()
    assert message == f"Upstream task run '{bad_id}' did not reach a 'COMPLETED' state."
    assert ran == []
    assert [run.names for run in recorder.all("after")] == [["Pending", "NotReady"]] * 3


def test_allow_failure_runs_on_exceptions() -> None:
    @flow
    def run() -> Any:
        bad, good = fail.submit("broken"), add.submit(1)
        unready = add.submit(bad)
        return [
            describe.submit(allow_failure(bad)).result(),
            describe.submit(allow_failure([good, {"k": bad}])).result(),
            describe.submit(allow_failure(unready)).result(),
            describe.submit(1, wait_for=allow_failure([bad, good])).result(),
        ]

    assert run() == ["ValueError('broken')", "[2, {'k': ValueError('broken')}]", "None", "1"]


def test_allow_failure_does_not_allow_a_crash() -> None:
    @flow
    def run() -> str:
        crashed = leave.submit()
        after = describe.submit(allow_failure(crashed))
        wait([after])
        assert crashed.state.is_crashed()
        with pytest.raises(SystemExit):
            crashed.result()
        return after.state.name

    assert run() == "NotReady"


def test_a_direct_call_on_a_failed_upstream_raises() -> None:
    @flow
    def run() -> Any:
        bad = fail.submit()
        with pytest.raises(UpstreamTaskError):
            add(bad)
        return add(bad, return_state=True).name

    assert run() == "NotReady"


def test_quoted_futures_are_handed_over_as_they_are() -> None:
    @task
    def look(future: Any) -> Any:
        assert isinstance(future, HeadraceFuture)
        return future.result()

    @flow
    def run() -> Any:
        return look.submit(quote(add.submit(1))).result()

    assert run() == 2


def test_a_state_made_by_hand_is_passed_as_its_value(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> Any:
        return add.submit(Completed(data=4)).result()

    assert run() == 5
    assert edges(recorder, "add") == {}


def test_what_a_task_submits_is_its_child(recorder: MemoryRecorder) -> None:
    @task
    def outer() -> Any:
        return add.submit(1).result()

    @flow
    def run() -> Any:
        return outer.submit().result()

    assert run() == 2
    parent, child = recorder.the("outer").run, recorder.the("add").run
    assert child.parent_run_id == parent.id
    assert edges(recorder, "add") == {"__parents__": [parent.id]}


def test_a_task_that_passes_its_own_future_on_is_refused() -> None:
    given: list[Any] = []
    ready = threading.Event()

    @task
    def outer() -> str:
        assert ready.wait(60)
        with pytest.raises(ValueError, match="wait for itself"):
            describe.submit(given[0])
        return "refused"

    @flow
    def run() -> Any:
        given.append(outer.submit())
        ready.set()
        return given[0].result(timeout=60)

    assert run() == "refused"


def test_a_chain_of_500_and_one_worker(recorder: MemoryRecorder) -> None:
    @flow(task_runner=ONE)
    def run() -> Any:
        future: Any = 0
        for _ in range(500):
            future = add.submit(future)
        return future.result(timeout=60)

    started = time.monotonic()
    assert run() == 500
    assert time.monotonic() - started < 30
    runs = recorder.all("add")
    assert [list(run.run.inputs[0].run_ids) for run in runs[1:]] == [[run.run.id] for run in runs[:-1]]


def test_a_chain_of_500_behind_a_failure_and_one_worker() -> None:
    @flow(task_runner=ONE)
    def run() -> Any:
        future: Any = fail.submit()
        for _ in range(500):
            future = add.submit(future)
        future.wait(timeout=60)
        return future.state.name

    assert run() == "NotReady"


def test_5000_futures_in_one_dictionary_and_one_worker(recorder: MemoryRecorder) -> None:
    @task
    def add_up(values: dict[int, int]) -> int:
        return sum(values.values())

    @flow(task_runner=ONE)
    def run() -> Any:
        futures = {i: add.submit(i, 0) for i in range(5_000)}
        return add_up.submit(futures).result(timeout=100)

    assert run() == sum(range(5_000))
    assert len(edges(recorder, "add_up")["values"]) == 5_000


def test_a_diamond_and_one_worker() -> None:
    @flow(task_runner=ONE)
    def run() -> Any:
        top = add.submit(1)
        left, right = add.submit(top, 10), add.submit(top, 20)
        return add.submit(left, right).result(timeout=60)

    assert run() == 34


def test_waiting_in_another_thread_than_the_submitting_one() -> None:
    release = threading.Event()

    @task
    def held() -> str:
        assert release.wait(60)
        return "done"

    @flow
    def run() -> Any:
        future = held.submit()
        seen: list[Any] = []
        waiter = threading.Thread(target=lambda: seen.append(future.result(timeout=60)))
        waiter.start()
        release.set()
        waiter.join(20)
        return seen

    assert run() == ["done"]


def test_futures_come_in_the_order_in_which_their_tasks_end() -> None:
    gates = [threading.Event() for _ in range(3)]

    @task
    def gated(i: int) -> int:
        assert gates[i].wait(60)
        return i

    @flow
    def run() -> Any:
        futures = [gated.submit(i) for i in range(3)]
        seen: list[int] = []
        gates[2].set()
        for future in as_completed(futures, timeout=60):
            seen.append(future.result())
            gates[{2: 0, 0: 1, 1: 1}[seen[-1]]].set()
        return seen

    assert run() == [2, 0, 1]


def test_a_submitted_body_that_exits_raises_it_from_wait_and_result(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> Any:
        future = leave.submit()
        for look in (future.wait, future.result, lambda: wait([future])):
            with pytest.raises(SystemExit) as raised:
                look()
            assert raised.value.code == 4
        return "went on"

    assert run() == "went on"
    assert recorder.the("leave").types[-1] is StateType.CRASHED


def test_the_state_of_a_future_follows_its_run() -> None:
    running, release = threading.Event(), threading.Event()

    @task
    def held() -> None:
        running.set()
        assert release.wait(60)

    @flow(task_runner=ONE)
    def run() -> None:
        first, second = held.submit(), held.submit()
        assert running.wait(60)
        assert first.state.is_running()
        assert second.state.is_pending()
        release.set()
        second.result(timeout=60)
        assert first.state.is_completed()

    run()


def test_a_future_passed_to_a_direct_call_is_waited_for() -> None:
    @flow
    def run() -> Any:
        return add(add_async.submit(add.submit(1)))

    assert run() == 4


async def test_a_future_passed_to_an_awaited_call_does_not_block_the_loop() -> None:
    release = threading.Event()

    @task
    def held() -> int:
        assert release.wait(60)
        return 1

    @flow
    async def run() -> Any:
        future = held.submit()
        awaiting = asyncio.ensure_future(add_async(future))
        await asyncio.sleep(0)
        release.set()
        return await awaiting

    assert await run() == 2


def test_states_of_futures_are_states_of_runs(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> Any:
        future = add.submit(1)
        future.wait()
        return future.state

    state = run()
    assert isinstance(state, State)
    assert state.state_details.task_run_id == recorder.the("add").run.id


def test_futures_in_collections_are_resolved(recorder: MemoryRecorder) -> None:
    @task
    def double(x: int) -> int:
        return 2 * x

    @task
    def bad() -> None:
        raise ValueError("boom")

    @flow
    def run() -> None:
        futures = {"a": [double.submit(1), 5], "b": (double.submit(2),)}
        assert resolve_futures_to_results(futures) == {"a": [2, 5], "b": (4,)}
        states = resolve_futures_to_states([double.submit(3), bad.submit()])
        assert [state.type for state in states] == [StateType.COMPLETED, StateType.FAILED]
        with pytest.raises(ValueError, match="boom"):
            resolve_futures_to_results([bad.submit()])
        nothing = [1, {2}]
        assert resolve_futures_to_results(nothing) is nothing

    run()
