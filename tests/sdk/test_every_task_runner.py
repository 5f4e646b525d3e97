"""What every task runner does in the same way. Tasks are local functions: they travel by value."""

from __future__ import annotations

import asyncio
import os
import pathlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from headrace import allow_failure, flow, get_run_logger, quote, runtime, tags, task, unmapped
from headrace.context import FlowRunContext, TaskRunContext
from headrace.core.states import StateType
from headrace.exceptions import MappingLengthMismatch, MappingMissingIterable, TaskRunTimeoutError
from headrace.futures import as_completed, wait
from headrace.settings import get_current_settings, temporary_settings
from headrace.states import Completed, Failed
from headrace.task_runners import (
    DaskTaskRunner,
    ProcessPoolTaskRunner,
    RayTaskRunner,
    TaskRunner,
    ThreadPoolTaskRunner,
)
from headrace.v1.record_service_pb2 import RecordEntry
from tests.support.clusters import DASK, RAY
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder")

MakeRunner = Callable[..., TaskRunner[Any]]
NOT_STARTED = "the flow ended before it started"
# What needs a cluster runs in one process, so that there is one cluster.
RUNNERS = [
    "thread",
    "process",
    pytest.param("dask", marks=DASK),
    pytest.param("ray", marks=RAY),
]


@pytest.fixture(params=RUNNERS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which of them."""
    kind: str = request.param
    return kind


@pytest.fixture
def runner(kind: str, request: pytest.FixtureRequest) -> MakeRunner:
    """Makes a runner with so many workers."""
    if kind == "dask":
        return partial(DaskTaskRunner, request.getfixturevalue("dask"))
    if kind == "ray":
        request.getfixturevalue("ray")
        return RayTaskRunner
    return ThreadPoolTaskRunner if kind == "thread" else ProcessPoolTaskRunner


class Door:
    """Holds bodies in any process until it is opened: a named pipe, whose reader waits for a writer."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = str(path)
        os.mkfifo(path)

    def pass_through(self) -> None:
        with open(self.path, "rb") as pipe:  # noqa: PTH123 - it travels to other processes
            pipe.read()

    def open_once(self) -> None:
        """Let those through who are inside; waits for one if there is none."""
        with open(self.path, "wb"):  # noqa: PTH123
            pass

    def open_after(self, future: Any) -> None:
        future.add_done_callback(lambda _: threading.Thread(target=self.open_once, daemon=True).start())


@pytest.fixture
def door(tmp_path: pathlib.Path) -> Door:
    return Door(tmp_path / "door")


def test_the_interface(runner: MakeRunner) -> None:
    @task
    def add(x: int, y: int = 1) -> int:
        return x + y

    made = runner(max_workers=2)
    assert made.duplicate() == made
    assert made.duplicate() is not made
    assert hash(made.duplicate()) == hash(made)
    assert made != runner(max_workers=3)
    assert made != "a runner"
    with pytest.raises(RuntimeError, match="not started"):
        made.submit(add, {"x": 1})
    with made:
        with pytest.raises(RuntimeError, match="already started"):
            made.__enter__()
        assert made.submit(add, {"x": 1, "y": 2}).result(timeout=60) == 3
        assert made.map(add, {"x": [1, 2]}).result(timeout=60) == [2, 3]
    with pytest.raises(RuntimeError, match="not started"):
        made.submit(add, {"x": 1, "y": 2})
    with pytest.raises(ValueError, match="at least 1"):
        runner(max_workers=0)


def test_given_as_a_class_and_used_by_two_threads_at_once(runner: MakeRunner) -> None:
    @task
    def one() -> int:
        return 1

    begun = threading.Barrier(2)

    @flow(task_runner=runner if isinstance(runner, type) else runner())
    def run() -> int:
        future = one.submit()
        begun.wait(60)
        return future.result(timeout=60)

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [1, 1]


def test_futures_end_in_the_order_of_their_bodies(runner: MakeRunner, door: Door) -> None:
    hold = door.pass_through

    @task
    def slow() -> str:
        hold()
        return "slow"

    @task
    def quick() -> str:
        return "quick"

    @flow(task_runner=runner(max_workers=2))
    def run() -> list[str]:
        order: list[str] = []
        for future in as_completed([slow.submit(), quick.submit()], timeout=60):
            order.append(future.result())
            if len(order) == 1:
                door.open_once()
        return order

    assert run() == ["quick", "slow"]


def test_states_are_recorded_in_order_with_parameters_inputs_and_result(
    runner: MakeRunner, recorder: MemoryRecorder
) -> None:
    @task(task_run_name="add {x}")
    def add(x: int, y: int) -> int:
        return x + y

    @flow(task_runner=runner(max_workers=1))
    def run() -> int:
        first = add.submit(1, 2)
        second = add.submit(first, 10)
        assert second.result(timeout=60) == 13
        assert second.state.is_completed()
        return second.result()

    assert run() == 13
    first, second = recorder.all("add")
    for recorded in (first, second):
        assert recorded.names == ["Pending", "Running", "Completed"]
        assert recorded.run.parent_run_id == recorder.the("run").run.id
        assert recorded.run.owner_run_id == recorder.the("run").run.id
    assert [first.run.name, second.run.name] == ["add 1", "add 3"]
    assert (first.result, second.result) == (3, 13)
    assert [first.run.dynamic_key, second.run.dynamic_key] == ["0", "1"]
    assert [list(edge.run_ids) for edge in second.run.inputs] == [[first.run.id]]


def test_a_result_passed_on_by_value_is_an_edge(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task
    def make() -> list[int]:
        return [1, 2, 3]

    @task
    def take(rows: list[int]) -> int:
        return len(rows)

    @flow(task_runner=runner(max_workers=1))
    def run() -> int:
        return take.submit(make.submit().result(timeout=60)).result(timeout=60)

    assert run() == 3
    (edge,) = recorder.the("take").run.inputs
    assert list(edge.run_ids) == [recorder.the("make").run.id]


def test_exceptions(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    class OutOfStock(Exception):
        def __init__(self, item: str, *, wanted: int) -> None:
            super().__init__(f"{wanted} of {item}")
            self.item = item

    @task
    def fail() -> int:
        raise OutOfStock("bolts", wanted=3)

    @task
    def look(value: Any) -> str:
        return type(value).__name__

    @flow(task_runner=runner(max_workers=2))
    def run() -> None:
        failed = fail.submit()
        downstream = look.submit(failed)
        allowed = look.submit(allow_failure(failed))
        with pytest.raises(OutOfStock, match="3 of bolts") as caught:
            failed.result(timeout=60)
        assert caught.value.item == "bolts"
        assert type(failed.result(raise_on_failure=False)) is OutOfStock
        assert failed.state.is_failed()
        downstream.wait(60)
        assert downstream.state.name == "NotReady"
        assert allowed.result(timeout=60) == "OutOfStock"

    run()
    assert recorder.the("fail").names == ["Pending", "Running", "Failed"]
    error = recorder.the("fail").states[-1].failed.error
    assert error.type.endswith("OutOfStock")
    assert "raise OutOfStock" in error.traceback


def test_states_as_return_values(runner: MakeRunner) -> None:
    @task
    def by_hand(fails: bool) -> Any:
        return Failed(message="no luck") if fails else Completed(message="fine", data=5)

    @flow(task_runner=runner(max_workers=1))
    def run() -> None:
        state = by_hand.submit(False, return_state=True)
        assert (state.message, state.result(_sync=True)) == ("fine", 5)
        assert by_hand.submit(True, return_state=True).message == "no luck"

    run()


def test_nested_submits(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task
    def leaf(x: int) -> int:
        return x * 10

    @task
    def branch(x: int) -> int:
        futures = leaf.map([x, x + 1])
        return sum(futures.result(timeout=60)) + leaf.submit(leaf.submit(0)).result(timeout=60)

    @task
    async def async_branch(x: int) -> int:
        return leaf.submit(x).result(timeout=60)

    @flow(task_runner=runner(max_workers=1))
    def run() -> list[int]:
        return [branch.submit(1).result(timeout=60), async_branch.submit(5).result(timeout=60)]

    assert run() == [30, 50]
    leaves = recorder.all("leaf")
    assert len(leaves) == 5
    assert sorted(one.run.dynamic_key for one in leaves) == ["0", "1", "2", "3", "4"]
    parents = {recorder.the("branch").run.id, recorder.the("async_branch").run.id}
    assert {one.run.parent_run_id for one in leaves} == parents


def test_deep_recursion_of_submissions_with_one_worker(runner: MakeRunner) -> None:
    @task
    def descend(depth: int) -> int:
        return 0 if depth == 0 else 1 + descend.submit(depth - 1).result()

    @flow(task_runner=runner(max_workers=1))
    def run() -> int:
        return descend.submit(30).result(timeout=100)

    assert run() == 30


def test_subflows_in_tasks(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task
    def step(x: int) -> int:
        return x + 1

    @flow
    def child(x: int) -> int:
        return step.submit(x).result()

    @task
    def call(x: int) -> int:
        return child(x)

    @flow(task_runner=runner(max_workers=1))
    def run() -> int:
        return call.submit(1).result(timeout=60)

    assert run() == 2
    inner = recorder.the("child")
    assert inner.names[-1] == "Completed"
    assert inner.run.parent_run_id == recorder.the("call").run.id
    assert inner.run.root_run_id == recorder.the("run").run.id


def test_where_a_task_stands(kind: str, runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task(tags=["own"], log_prints=True)
    def look(x: int) -> dict[str, Any]:
        flow_context, task_context = FlowRunContext.get(), TaskRunContext.get()
        assert flow_context is not None
        assert task_context is not None
        print("printed", x)
        get_run_logger().info("logged", extra={"row": x})
        return {
            "flow": (runtime.flow_run.id, runtime.flow_run.name, runtime.flow_run.parameters),
            "task": (runtime.task_run.id, runtime.task_run.task_name, runtime.task_run.parameters),
            "tags": runtime.task_run.tags,
            "contexts": (flow_context.flow_run.id, task_context.task_run.id, flow_context.flow.name),
            "level": get_current_settings().logging_level,
            "variable": os.environ.get("TEST_OF_RUNNERS"),
        }

    @flow(task_runner=runner(max_workers=1))
    def run(city: str) -> list[Any]:
        with tags("tagged"), temporary_settings({"logging_level": "DEBUG"}):
            os.environ["TEST_OF_RUNNERS"] = "set"
            first = look.submit(1).result(timeout=60)
        del os.environ["TEST_OF_RUNNERS"]
        return [first, look.submit(2).result(timeout=60)]

    first, second = run("Oslo")
    begun, (one, two) = recorder.the("run").run, recorder.all("look")
    for seen, recorded, x in ((first, one, 1), (second, two, 2)):
        assert seen["flow"] == (begun.id, begun.name, {"city": "Oslo"})
        assert seen["task"] == (recorded.run.id, "look", {"x": x})
        assert seen["contexts"] == (begun.id, recorded.run.id, "run")
        assert sorted(seen["tags"]) == list(recorded.run.tags)
        lines = [entry.log for entry in recorder.entries if entry.log.run_id == recorded.run.id]
        assert {f"printed {x}", "logged"} <= {line.message for line in lines}
        assert [line.fields["row"] for line in lines if line.message == "logged"] == [x]
    assert first["tags"] == ["own", "tagged"]
    assert second["tags"] == ["own"], "tags are those of the submission"
    assert (first["level"], second["level"]) == ("DEBUG", "INFO"), "so are settings"
    # The environment of a worker of a cluster is that of its machine.
    variable = None if kind in ("dask", "ray") else "set"
    assert (first["variable"], second["variable"]) == (variable, None), "and the environment"


def test_spans(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task
    def step() -> None:
        from opentelemetry import trace

        with trace.get_tracer("author").start_as_current_span("inside"):
            pass

    @flow(task_runner=runner(max_workers=1))
    def run() -> None:
        step.submit().result(timeout=60)

    with temporary_settings({"traces_exporter": "server"}):
        run()
    spans = {entry.span.name: entry.span for entry in recorder.entries if entry.WhichOneof("kind") == "span"}
    assert set(spans) >= {"run", "step", "inside"}
    assert spans["step"].parent_span_id == spans["run"].span_id
    assert spans["inside"].parent_span_id == spans["step"].span_id
    assert len({span.trace_id for span in spans.values()}) == 1
    assert spans["step"].run_id == spans["inside"].run_id == recorder.the("step").run.id


def test_futures_however_deep_among_the_arguments(runner: MakeRunner) -> None:
    @task
    def make(x: int) -> int:
        return x

    @task
    def take(whole: Any, *rest: Any, **named: Any) -> Any:
        return whole, rest, named

    @flow(task_runner=runner(max_workers=2))
    def run() -> Any:
        a, b = make.submit(1), make.submit(2)
        nested = {"list": [a, (b, {a: [b]})], "set": {a}}
        return take.submit(nested, [a], [[b]], key={"deep": [[a]]}).result(timeout=60)

    whole, rest, named = run()
    assert whole == {"list": [1, (2, {1: [2]})], "set": {1}}
    assert rest == ([1], [[2]])
    assert named == {"key": {"deep": [[1]]}}


def test_wait_for(runner: MakeRunner, door: Door, tmp_path: pathlib.Path) -> None:
    hold, mark = door.pass_through, str(tmp_path / "mark")

    @task
    def first() -> None:
        hold()
        pathlib.Path(mark).touch()

    @task
    def second() -> bool:
        return pathlib.Path(mark).exists()

    @task
    def fail() -> None:
        raise ValueError

    @flow(task_runner=runner(max_workers=2))
    def run() -> bool:
        begun = first.submit()
        after = second.submit(wait_for=[{"nested": [begun]}])
        door.open_once()
        failed = fail.submit()
        assert second.submit(wait_for=[failed], return_state=True).name == "NotReady"
        assert second.submit(wait_for=allow_failure([failed]), return_state=True).is_completed()
        return after.result(timeout=60)

    assert run() is True


def test_generators(runner: MakeRunner) -> None:
    @task
    def count(n: int) -> Iterator[int]:
        yield from range(n)

    @task
    async def acount(n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    @flow(task_runner=runner(max_workers=1))
    def run() -> list[Any]:
        return [count.submit(3).result(timeout=60), acount.submit(2).result(timeout=60)]

    assert run() == [[0, 1, 2], [0, 1]]


def test_mapping(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task
    def numbers(n: int) -> list[int]:
        return list(range(n))

    @task
    def join(x: Any, y: Any = "default") -> str:
        return f"{x}{y}"

    @flow(task_runner=runner(max_workers=2))
    def run() -> None:
        future = numbers.submit(3)
        assert join.map(future, "-").result(timeout=60) == ["0-", "1-", "2-"]
        assert join.map([1, 2], unmapped([3])).result(timeout=60) == ["1[3]", "2[3]"]
        assert join.map([future, 5]).result(timeout=60) == ["[0, 1, 2]default", "5default"]
        assert join.map([]).result() == []
        assert [state.is_completed() for state in join.map([1], return_state=True)] == [True]
        with pytest.raises(MappingLengthMismatch):
            join.map([1, 2], [3])
        with pytest.raises(MappingMissingIterable):
            join.map(1, 2)

    run()
    assert len(recorder.all("join")) == 8


def test_async_tasks_and_flows(runner: MakeRunner) -> None:
    @task
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    @flow(task_runner=runner(max_workers=2))
    async def run() -> list[int]:
        futures = double.map([1, 2, 3])
        return await asyncio.to_thread(futures.result, 60)

    assert asyncio.run(run()) == [2, 4, 6]


def test_all_kinds_of_functions(runner: MakeRunner) -> None:
    class Shop:
        def __init__(self, rate: int) -> None:
            self.rate = rate

        @task
        def price(self, x: int) -> int:
            return self.rate * x

        @classmethod
        @task
        def name(cls) -> str:
            return cls.__name__

        @staticmethod
        @task
        def zero() -> int:
            return 0

    scale = task(partial(lambda a, b: a * b, 3), name="scale")
    negate = task(lambda x: -x, name="negate")

    @flow(task_runner=runner(max_workers=1))
    def run() -> list[Any]:
        futures = [Shop(4).price.submit(2), Shop.name.submit(), Shop.zero.submit()]
        return [one.result(timeout=60) for one in [*futures, scale.submit(b=2), negate.submit(1)]]

    assert run() == [8, "Shop", 0, 6, -1]


def test_retries_and_hooks(runner: MakeRunner, recorder: MemoryRecorder, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "log")

    def note(word: str) -> None:
        with open(path, "a") as file:  # noqa: PTH123
            file.write(word + "\n")

    @task(
        retries=2,
        retry_delay_seconds=[0, 0.01],
        on_running=[lambda task, run, state: note(f"running {run.run_count}")],
        on_failure=[lambda task, run, state: note(f"{state.name} after {run.run_count}")],
        on_completion=[lambda task, run, state: note(f"{state.name} after {run.run_count}")],
    )
    def unsteady(fails: int) -> int:
        context = TaskRunContext.get()
        assert context is not None
        if context.task_run.run_count <= fails:
            raise ValueError("again")
        return context.task_run.run_count

    @flow(task_runner=runner(max_workers=1))
    def run() -> None:
        assert unsteady.submit(2).result(timeout=60) == 3
        assert unsteady.submit(3, return_state=True).is_failed()

    run()
    steady, failing = recorder.all("unsteady")
    tried = ["Pending", "Running", "Retrying", "AwaitingRetry", "Retrying"]
    assert steady.names == [*tried, "Completed"]
    assert failing.names == [*tried, "Failed"]
    running = ["running 1", "running 2", "running 3"]
    words = pathlib.Path(path).read_text().splitlines()
    assert words == [*running, "Completed after 3", *running, "Failed after 3"]


def test_time_limits(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task(timeout_seconds=0.2)
    def hang() -> None:
        # Interruptible everywhere, unlike one long wait.
        forever = threading.Event()
        while not forever.wait(0.01):
            pass

    @task(timeout_seconds=0.2)
    async def ahang() -> None:
        await asyncio.Event().wait()

    @flow(task_runner=runner(max_workers=2))
    def run() -> None:
        futures = [hang.submit(), ahang.submit()]
        for future in futures:
            with pytest.raises(TaskRunTimeoutError):
                future.result(timeout=60)

    run()
    for name in ("hang", "ahang"):
        assert recorder.the(name).names == ["Pending", "Running", "TimedOut"]


def test_a_body_that_leaves_the_program(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task
    def leave() -> None:
        raise SystemExit(3)

    @task
    def go_on() -> int:
        return 1

    @flow(task_runner=runner(max_workers=1))
    def run() -> int:
        future = leave.submit()
        with pytest.raises(SystemExit) as caught:
            future.wait()
        assert caught.value.code == 3
        assert future.state.is_crashed()
        return go_on.submit().result(timeout=60)

    assert run() == 1
    assert recorder.the("leave").names == ["Pending", "Running", "Crashed"]


def test_when_the_body_of_the_flow_ends(runner: MakeRunner, recorder: MemoryRecorder, door: Door) -> None:
    hold = door.pass_through

    @task
    def held() -> None:
        hold()

    kept: list[Any] = []

    @flow(task_runner=runner(max_workers=1))
    def run() -> str:
        kept.extend(held.submit() for _ in range(5))
        door.open_after(kept[-1])
        return "returned"

    assert run() == "returned"
    ends = [one.types[-1] for one in recorder.all("held")]
    assert ends == [StateType.COMPLETED] + [StateType.CANCELLED] * 4
    assert all(NOT_STARTED in future.state.message for future in kept[1:])


def test_cancel_all_ends_what_has_not_begun_and_waits_for_a_next_try(
    runner: MakeRunner, recorder: MemoryRecorder
) -> None:
    @task(retries=1, retry_delay_seconds=600)
    def unsteady() -> None:
        raise ValueError("again")

    @task
    def never() -> None:
        raise AssertionError("it must not run")

    with runner(max_workers=1) as made:
        first = made.submit(unsteady, {})
        second, third = made.submit(never, {}), made.submit(never, {}, wait_for=[first])
        # The state follows what is recorded in any process.
        deadline = threading.Event()
        while first.state.name != "AwaitingRetry":
            assert not deadline.wait(0.01)
        made.cancel_all()
        wait([first, second, third], timeout=60)
        assert first.state.is_crashed()
        assert second.state.is_cancelled()
        assert third.state.is_cancelled()
    assert recorder.the("unsteady").names[-1] == "Crashed"


def test_quoted_arguments_and_large_ones(runner: MakeRunner) -> None:
    @task
    def size(data: bytes, quoted: Any) -> tuple[int, Any]:
        return len(data), quoted

    @flow(task_runner=runner(max_workers=1))
    def run() -> Any:
        return size.submit(bytes(3_000_000), quote({"x": [1]})).result(timeout=60)

    assert run() == (3_000_000, {"x": [1]})


def test_a_recorder_that_has_no_room_holds_up_the_body(
    runner: MakeRunner, recorder: MemoryRecorder, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    is_full, has_room = threading.Event(), threading.Event()
    post = recorder.post

    def wait_for_room(*entries: RecordEntry) -> int:
        if any(entry.WhichOneof("kind") == "log" and entry.log.message == "line" for entry in entries):
            is_full.set()
            assert has_room.wait(60)
        return post(*entries)

    monkeypatch.setattr(recorder, "post", wait_for_room)

    @task
    def talk(folder: str) -> None:
        for i in range(20):
            get_run_logger().info("line")
            pathlib.Path(folder, str(i)).touch()

    folder = tmp_path / "said"
    folder.mkdir()

    @flow(task_runner=runner(max_workers=1))
    def run() -> None:
        future = talk.submit(str(folder))
        assert is_full.wait(60)
        future.wait(timeout=0.3)
        assert not future.done()
        assert list(folder.iterdir()) == [], "nothing is queued between the body and the recorder"
        has_room.set()
        future.result(timeout=60)

    run()
    assert len(list(folder.iterdir())) == 20
    (talked,) = recorder.all("talk")
    lines = [entry for entry in recorder.entries if entry.log.run_id == talked.run.id]
    assert [entry.log.message for entry in lines].count("line") == 20


def test_many_tasks(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task
    def same(x: int) -> int:
        return x

    @flow(task_runner=runner(max_workers=2))
    def run() -> list[int]:
        return same.map(range(300)).result(timeout=100)

    assert run() == list(range(300))
    recorded = recorder.all("same")
    assert {tuple(one.names) for one in recorded} == {("Pending", "Running", "Completed")}
    assert sorted(int(one.run.dynamic_key) for one in recorded) == list(range(300))
