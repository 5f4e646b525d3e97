"""Durable flows that are retried in their process: what has completed is not run again."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC
from typing import Any

import pytest

from headrace import allow_failure, flow, runtime, task
from headrace.cache_policies import INPUTS
from headrace.settings import temporary_settings
from headrace.states import Completed, State
from headrace.task_runners import ProcessPoolTaskRunner
from headrace.transactions import CommitMode, transaction
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder", "storage")


@pytest.fixture
def storage(tmp_path: pathlib.Path) -> Any:
    with temporary_settings({"results_local_storage_path": str(tmp_path / "storage")}):
        yield tmp_path / "storage"


class Bodies:
    """Counts which bodies were entered, and fails the flow until it is in its last try."""

    def __init__(self, tries: int = 2) -> None:
        self.entered: Counter[Any] = Counter()
        self.tries = tries

    def enter(self, what: Any, *more: Any) -> None:
        self.entered[(what, *more) if more else what] += 1

    def fail(self) -> None:
        """The flow fails here, but for its last try."""
        if runtime.flow_run.run_count < self.tries:
            raise ValueError(f"try {runtime.flow_run.run_count}")


@pytest.fixture
def bodies() -> Bodies:
    return Bodies()


def durable(kind: str = "def", retries: int = 1, **options: Any) -> Callable[[Any], Any]:
    return lambda fn: flow(durable=True, retries=retries, name="durable", **options)(of_kind(kind, fn))


@pytest.mark.parametrize("kind", KINDS)
def test_completed_tasks_give_their_results(kind: str, bodies: Bodies, recorder: MemoryRecorder) -> None:
    bodies.tries = 3

    @task
    def one(x: int) -> list[int]:
        bodies.enter("one", x)
        return [x, runtime.flow_run.run_count]

    def body() -> Any:
        found = [one(1), one(2)]
        bodies.fail()
        return [*found, one(3)]

    # Each result is that of the try in which it was made.
    assert call(durable(kind, retries=2)(body)) == [[1, 1], [2, 1], [3, 3]]
    assert set(bodies.entered.values()) == {1}
    assert [run.names for run in recorder.all("one")] == [["Pending", "Running", "Completed"]] * 3


def test_without_it_only_kept_results_come_back(bodies: Bodies, recorder: MemoryRecorder) -> None:
    @task
    def plain() -> None:
        bodies.enter("plain")

    @task(persist_result=True)
    def kept() -> None:
        bodies.enter("kept")

    @flow(retries=2)
    def body() -> None:
        plain()
        kept()
        raise ValueError("always")

    body(return_state=True)
    assert bodies.entered == {"plain": 3, "kept": 1}
    assert [run.names[-1] for run in recorder.all("kept")] == ["Completed", "Cached", "Cached"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_it_subflows_come_back_whose_results_are_kept(
    kind: str, bodies: Bodies, recorder: MemoryRecorder
) -> None:
    bodies.tries = 3

    @flow(name="kept", persist_result=True)
    def kept(x: int) -> list[int]:
        bodies.enter("kept", x)
        return [x]

    @flow(name="broken", persist_result=True)
    def broken() -> None:
        bodies.enter("broken")
        raise ValueError("always")

    @flow(name="plain")
    def plain() -> None:
        bodies.enter("plain")

    def body() -> Any:
        plain()
        broken(return_state=True)
        found = [kept(1), kept(1), kept(10 * runtime.flow_run.run_count)]
        bodies.fail()
        return found

    assert call(flow(retries=2)(of_kind(kind, body))) == [[1], [1], [30]]
    assert bodies.entered == {
        "plain": 3,
        "broken": 3,
        ("kept", 1): 2,
        **{("kept", x): 1 for x in (10, 20, 30)},
    }
    assert [run.names for run in recorder.all("broken")] == [["Pending", "Running", "Failed"]] * 3
    assert len(recorder.all("kept")) == 5


def test_a_failed_step_goes_on_under_its_run(bodies: Bodies, recorder: MemoryRecorder) -> None:
    counts: list[int] = []

    @task(retries=1, name="step")
    def step() -> int:
        counts.append(runtime.task_run.run_count)
        if len(counts) < 3:
            raise ValueError("not yet")
        return len(counts)

    assert durable()(lambda: step())() == 3
    # The second try of the flow gives it its retries anew; what is counted goes on.
    assert counts == [1, 2, 3]
    names = ["Pending", "Running", "Retrying", "Failed", "Pending", "Running", "Completed"]
    assert recorder.the("step").names == names


def test_equal_calls_are_told_apart_by_their_number(bodies: Bodies) -> None:
    @task
    def draw() -> int:
        bodies.enter("draw")
        return bodies.entered["draw"]

    def body() -> list[int]:
        drawn = [draw() for _ in range(3)]
        bodies.fail()
        return [*drawn, draw()]

    assert durable()(body)() == [1, 2, 3, 4]


def test_other_inputs_and_other_code_run(bodies: Bodies, recorder: MemoryRecorder) -> None:
    def made(number: int) -> Any:
        @task(name="edited")
        def edited(x: Any) -> int:
            bodies.enter("edited", str(x))
            return number

        return edited

    first, second = made(1), made(2)
    second.task_key = first.task_key + "-edited"

    def body() -> list[int]:
        is_first = runtime.flow_run.run_count == 1
        found = [first({"a", "b", "c"}), first(1.0 if is_first else 1), (first if is_first else second)("x")]
        bodies.fail()
        return found

    assert durable()(body)() == [1, 1, 2]
    assert sorted(bodies.entered.values()) == [1, 1, 1, 2]
    assert bodies.entered["edited", "x"] == 2
    # What is new has a run of its own; what is gone stays as it was.
    assert len(recorder.all("edited")) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_submitted_and_mapped(kind: str, bodies: Bodies, recorder: MemoryRecorder) -> None:
    @task
    def double(x: int) -> int:
        bodies.enter("double", x)
        return 2 * x

    @task
    def total(xs: list[int], also: int) -> int:
        bodies.enter("total", also)
        return sum(xs) + also

    def body() -> Any:
        doubled = double.map([1, 2, 2, 3])
        first = total.submit(doubled, also=0)
        second = total.submit(doubled, first, wait_for=[doubled[0]])
        found = [first.result(), second.result(), total.submit(doubled.result(), first).result()]
        bodies.fail()
        return [*found, double.submit(second).result()]

    assert call(durable(kind)(body)) == [16, 32, 32, 64]
    assert bodies.entered == {
        **{("double", x): 1 for x in (1, 3, 32)},
        ("double", 2): 2,
        ("total", 0): 1,
        ("total", 16): 2,
    }
    runs = [*recorder.all("double"), *recorder.all("total")]
    assert [run.names[-1] for run in runs] == ["Completed"] * 8
    # Edges lead to the runs that there are, not to ids that were never used.
    known = {run.run.id for run in runs}
    assert all(set(edge.run_ids) <= known for run in runs for edge in run.run.inputs)


def test_gathered_tasks_may_begin_in_any_order(bodies: Bodies) -> None:
    @task
    async def fetch(x: int) -> int:
        bodies.enter("fetch", x)
        await asyncio.sleep(random.random() / 100)
        return x * x

    @flow(durable=True, retries=4)
    async def body() -> list[int]:
        order = random.sample(range(8), 8)
        found = dict(zip(order, await asyncio.gather(*map(fetch, order)), strict=True))
        if runtime.flow_run.run_count < 5:
            raise ValueError("again")
        return [found[x] for x in range(8)]

    assert asyncio.run(body()) == [x * x for x in range(8)]
    assert set(bodies.entered.values()) == {1}


def test_upstreams_that_failed_first(bodies: Bodies) -> None:
    """What was computed from the failure of another is computed anew when that has completed."""

    @task
    def shaky() -> int:
        bodies.enter("shaky")
        bodies.fail()
        return 1

    @task
    def look(x: Any) -> str:
        bodies.enter("look")
        return type(x).__name__

    def body() -> str:
        future = shaky.submit()
        seen = look.submit(allow_failure(future)).result()
        future.result()
        return seen

    assert durable()(body)() == "int"
    assert bodies.entered == {"shaky": 2, "look": 2}


def test_subflows(bodies: Bodies, recorder: MemoryRecorder) -> None:
    @task
    def step(x: Any) -> Any:
        bodies.enter("step", x)
        return x

    @flow
    def whole(n: int) -> list[int]:
        bodies.enter("whole", n)
        return [step(n), step(n)]

    @flow
    def broken(n: int) -> int:
        bodies.enter("broken", n)
        found = step(n)
        if bodies.entered["broken", n] == 1:
            raise ValueError("the first time")
        return step(found + 1)

    @task
    def around(n: int) -> list[int]:
        bodies.enter("around", n)
        return whole(n)

    assert durable()(lambda: [whole(1), whole(1), around(7), broken(10)])() == [[1, 1], [1, 1], [7, 7], 11]
    assert bodies.entered == {
        ("whole", 1): 2,
        ("step", 1): 4,
        ("around", 7): 1,
        ("whole", 7): 1,
        ("step", 7): 2,
        ("broken", 10): 2,  # it failed: it is run again, as the same run, and its step is not
        ("step", 10): 1,
        ("step", 11): 1,
    }
    assert recorder.the("broken").names == ["Pending", "Running", "Failed", "Pending", "Running", "Completed"]
    assert [run.names for run in recorder.all("whole")] == [["Pending", "Running", "Completed"]] * 3


def test_who_is_durable(bodies: Bodies) -> None:
    @task
    def step(name: str) -> None:
        bodies.enter(name)

    @flow(durable=False)
    def not_so() -> None:
        step("not so")
        raise ValueError("always")

    @flow(durable=True, retries=1)
    def by_itself() -> None:
        step("by itself")
        raise ValueError("always")

    durable()(lambda: (not_so(return_state=True), bodies.fail()))()
    assert bodies.entered.pop("not so") == 2
    flow(retries=1)(lambda: (by_itself(return_state=True), bodies.fail()))()
    assert bodies.entered.pop("by itself") == 2  # once for each time it was called
    with temporary_settings({"flows_default_durable": True}):
        flow(retries=1)(lambda: (step("by setting"), bodies.fail()))()
        flow(retries=1, durable=False)(lambda: (step("against it"), bodies.fail()))()
    assert bodies.entered == {"by setting": 1, "against it": 2}


def test_results_that_are_not_recorded(bodies: Bodies, caplog: pytest.LogCaptureFixture) -> None:
    lock = threading.Lock()

    @task(persist_result=False)
    def nowhere() -> int:
        bodies.enter("nowhere")
        return 1

    @task
    def unspeakable() -> Any:
        bodies.enter("unspeakable")
        return lock

    @task
    def nothing() -> None:
        bodies.enter("nothing")

    assert durable()(lambda: (nowhere(), unspeakable(), nothing(), bodies.fail()))()[:3] == (1, lock, None)
    assert bodies.entered == {"nowhere": 2, "unspeakable": 2, "nothing": 1}
    said = [record.getMessage() for record in caplog.records]
    assert (
        sum("cannot be recorded: if the flow is run again, the step runs again" in text for text in said) == 2
    )
    assert (
        sum("has completed before, and runs again: its result was not recorded" in text for text in said) == 2
    )


def test_large_results_are_kept_in_storage(
    bodies: Bodies, storage: pathlib.Path, recorder: MemoryRecorder
) -> None:
    @task
    def large(size: int) -> bytes:
        bodies.enter(size)
        return bytes(size)

    def body() -> list[int]:
        found = [len(large(size)) for size in (10, 100_000, 200_000)]
        if runtime.flow_run.run_count == 1:
            (removed,) = [
                path for path in storage.rglob("*") if path.is_file() and path.stat().st_size > 200_000
            ]
            removed.unlink()
        bodies.fail()
        return found

    assert durable()(body)() == [10, 100_000, 200_000]
    assert bodies.entered == {10: 1, 100_000: 1, 200_000: 2}
    # The run that has completed stays as it is; the one that replaces it is another.
    assert [run.names[-1] for run in recorder.all("large")] == ["Completed"] * 4


def test_a_replayed_run_is_left_alone(
    bodies: Bodies, recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []
    states: list[State[Any]] = []

    def hook(name: str) -> Any:
        def note(*_: Any) -> None:
            called.append(name)

        return note

    @task(on_running=[hook("running")], on_completion=[hook("completed")], task_run_name=hook("name"))
    def step() -> dict[str, int]:
        return {"a": 1}

    step.task_run_name = "named"
    seen: list[tuple[str, str]] = []

    def body() -> None:
        states.append(step(return_state=True))
        future = step.submit()
        future.wait()
        states.append(future.state)
        seen.append((future.task_run_id, future.state.name))
        bodies.fail()

    with caplog.at_level(logging.DEBUG, "headrace.task_runs"):
        durable()(body)()
    assert called == ["running", "completed"] * 2
    first, second, again, and_again = states
    assert (again.id, again.timestamp, again.name) == (first.id, first.timestamp, "Completed")
    assert and_again.id == second.id and seen[0] == seen[1]
    assert again.result(_sync=True) == {"a": 1}
    assert [run.names for run in recorder.all("step")] == [["Pending", "Running", "Completed"]] * 2
    assert sum(record.getMessage().startswith("Replayed:") for record in caplog.records) == 2


def test_a_state_that_a_task_returns_comes_back_as_one(bodies: Bodies) -> None:
    @task
    def step() -> Any:
        bodies.enter("step")
        return Completed(name="Skipped", message="nothing to do", data=3)

    def body() -> tuple[str, Any, Any]:
        state: Any = step()
        bodies.fail()
        return state.name, state.message, state.result(_sync=True)

    assert durable()(body)() == ("Skipped", "nothing to do", 3)
    assert bodies.entered == {"step": 1}


def test_inputs_that_are_more_than_data(bodies: Bodies, caplog: pytest.LogCaptureFixture) -> None:
    @task
    def step(lock: Any, x: int) -> int:
        bodies.enter("step")
        return x

    guard = threading.Lock()
    assert durable()(lambda: (step(guard, 1), step(guard, 2), bodies.fail())[:2])() == (1, 2)
    assert bodies.entered == {"step": 4}
    said = [record.getMessage() for record in caplog.records if "cannot be recognised" in record.getMessage()]
    assert len(said) == 1 and "inputs" in said[0] and "__headrace_key__" in said[0]


def test_cached_steps(bodies: Bodies, recorder: MemoryRecorder) -> None:
    @task(cache_policy=INPUTS)
    def step(x: int) -> int:
        bodies.enter(x)
        return x

    assert durable()(lambda: (step(1), step(1), step(2), bodies.fail()))() == (1, 1, 2, None)
    assert bodies.entered == {1: 1, 2: 1}
    assert [run.names[-1] for run in recorder.all("step")] == ["Completed", "Cached", "Completed"]


def test_tasks_that_tasks_have_called(bodies: Bodies) -> None:
    @task
    def inner(x: int) -> int:
        bodies.enter("inner", x)
        return x

    @task
    def outer() -> int:
        bodies.enter("outer")
        found = inner(1) + inner(2)
        bodies.fail()
        return found

    assert durable()(lambda: outer())() == 3
    assert bodies.entered == {"outer": 2, ("inner", 1): 1, ("inner", 2): 1}


def test_generators(bodies: Bodies) -> None:
    @task
    def numbers(n: int) -> Any:
        bodies.enter("numbers", n)
        yield from range(n)

    def body() -> Any:
        drained = numbers.submit(3).result()
        streamed = list(numbers(2))
        bodies.fail()
        return drained, streamed

    assert durable()(body)() == ([0, 1, 2], [0, 1])
    # What is handed on one by one has no result that could be given instead.
    assert bodies.entered == {("numbers", 3): 1, ("numbers", 2): 2}


def hooked(bodies: Bodies, name: str) -> Any:
    @task(name=name)
    def step(x: int) -> int:
        bodies.enter(name)
        return x

    @step.on_commit
    def committed(_: Any) -> None:
        bodies.enter(f"commit {name}")

    @step.on_rollback
    def undone(_: Any) -> None:
        bodies.enter(f"rollback {name}")

    return step


def test_a_transaction_that_was_committed_is_not_committed_again(bodies: Bodies) -> None:
    first, second = hooked(bodies, "first"), hooked(bodies, "second")

    def body() -> int:
        with transaction():
            found: int = first(1) + second(2)
        bodies.fail()
        return found

    assert durable()(body)() == 3
    assert bodies.entered == {"first": 1, "second": 1, "commit first": 1, "commit second": 1}


def test_a_transaction_that_was_rolled_back_runs_again(bodies: Bodies, recorder: MemoryRecorder) -> None:
    first = hooked(bodies, "first")

    def body() -> int:
        with transaction():
            found: int = first(1)
            bodies.fail()
        return found

    assert durable()(body)() == 1
    assert bodies.entered == {"first": 2, "rollback first": 1, "commit first": 1}
    assert [run.names[-1] for run in recorder.all("first")] == ["RolledBack", "Completed"]


def test_a_task_that_committed_by_itself_is_done(bodies: Bodies) -> None:
    first = hooked(bodies, "first")

    def body() -> None:
        first(1)
        with transaction(commit_mode=CommitMode.EAGER):
            first(2)
        bodies.fail()

    durable()(body)()
    assert bodies.entered == {"first": 2, "commit first": 2}


def test_a_process_pool(bodies: Bodies, tmp_path: pathlib.Path, recorder: MemoryRecorder) -> None:
    journal = str(tmp_path / "journal")

    @task
    def step(x: int, size: int) -> bytes:
        with pathlib.Path(journal).open("a") as lines:
            lines.write(f"{x}\n")
        return bytes([x]) * size

    def body() -> list[bytes]:
        futures = [step.submit(1, 3), step.submit(2, 100_000)]
        found = [future.result()[:3] for future in futures]
        bodies.fail()
        return found

    assert durable(task_runner=ProcessPoolTaskRunner(max_workers=1))(body)() == [b"\1\1\1", b"\2\2\2"]
    assert sorted(pathlib.Path(journal).read_text().split()) == ["1", "2"]
    assert [run.names[-1] for run in recorder.all("step")] == ["Completed"] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_times_and_random_numbers_stay_what_they_were(
    kind: str, bodies: Bodies, recorder: MemoryRecorder
) -> None:
    seen: list[list[Any]] = []

    @task
    def uses(when: Any, id: Any, number: float) -> None:
        bodies.enter("uses")

    def body() -> None:
        seen.append([runtime.now(), runtime.now(), runtime.uuid(), runtime.uuid(), runtime.random()])
        uses.submit(seen[-1][0], seen[-1][2], seen[-1][4]).wait()
        bodies.fail()

    call(durable(kind)(body))
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 5, "each call gives another one"
    assert bodies.entered["uses"] == 1
    assert [run.names for run in recorder.all("runtime.now")] == [["Pending", "Running", "Completed"]] * 2
    assert seen[0][0].tzinfo is UTC and 0 <= seen[0][4] < 1


def test_elsewhere_times_and_random_numbers_are_no_steps(recorder: MemoryRecorder) -> None:
    def values() -> list[Any]:
        return [runtime.now(), runtime.uuid(), runtime.random()]

    assert values() != values()
    assert flow(values)() != flow(values)()
    assert {run.run.task_name for run in recorder.runs if not run.is_flow} == set()


def test_the_options_about_code_and_loss() -> None:
    assert flow(lambda: None).on_code_change == "resume"
    chosen = flow(on_code_change="fail")(lambda: None)
    assert chosen.with_options(name="x").on_code_change == "fail"
    assert chosen.with_options(on_code_change="restart").on_code_change == "restart"
    with pytest.raises(ValueError, match="'on_code_change' must be"):
        flow(on_code_change="ask")(lambda: None)  # type: ignore[call-overload]
    once = task(idempotent=False)(lambda: None)
    assert (task(lambda: None).idempotent, once.idempotent, once.with_options(name="x").idempotent) == (
        True,
        False,
        False,
    )
    assert once.with_options(idempotent=True).idempotent
    with pytest.raises(TypeError, match="'idempotent' must be"):
        task(idempotent="no")(lambda: None)  # type: ignore[call-overload]


def test_the_option() -> None:
    plain = flow(lambda: None)
    assert plain.durable is None
    assert plain.with_options(durable=True).durable is True
    assert plain.with_options(durable=True).with_options(name="other").durable is True
    assert plain.with_options(durable=True).with_options(durable=None).durable is None
    with pytest.raises(TypeError, match="'durable' must be True, False or None, not 'yes'"):
        flow(durable="yes")(lambda: None)  # type: ignore[call-overload]


def test_it_goes_on_record(recorder: MemoryRecorder) -> None:
    @task
    def step(x: int) -> int:
        return x

    flow(durable=True, name="it")(lambda: [step(1), step(1), step(2)])()
    assert recorder.the("it").run.retry_policy.on_lost == 2
    keys = [run.run.step_key for run in recorder.all("step")]
    assert len(set(keys)) == 3 and keys[0][:-2] == keys[1][:-2] and keys[1].endswith(":2")
    flow(name="plain")(lambda: step(3))()
    assert recorder.all("step")[-1].run.step_key == ""
