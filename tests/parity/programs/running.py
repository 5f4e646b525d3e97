"""Hooks, subflows, futures, exceptions, context, prints, coroutines."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from plain import ended, outcome, plain
from recorded import lines_of

from headrace import flow, get_run_logger, task
from headrace.context import get_run_context
from headrace.futures import as_completed, wait
from headrace.runtime import flow_run, task_run
from headrace.states import Cancelled, Completed, Failed, Pending, Running
from headrace.task_runners import ThreadPoolTaskRunner


def program_hooks() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    seen: list[Any] = []

    def note(word: str) -> Any:
        def hook(subject: Any, run: Any, state: Any) -> None:
            seen.append([word, subject.name, state.type.value, state.name])

        return hook

    def broken(_subject: Any, _run: Any, _state: Any) -> None:
        raise ValueError("the hook")

    async def asynchronous(_subject: Any, _run: Any, state: Any) -> None:
        seen.append(["async", state.name])

    task_hooks = {f"on_{word}": [note(word)] for word in ("running", "completion", "failure")}
    flow_hooks = {
        f"on_{word}": [note(word)] for word in ("running", "completion", "failure", "cancellation", "crashed")
    }

    @task(**task_hooks)
    def fine_task() -> int:
        return 1

    @task(**task_hooks)
    def bad_task() -> int:
        raise ValueError("boom")

    @flow(**flow_hooks)
    def fine() -> int:
        return fine_task()

    @flow(**flow_hooks)
    def bad() -> int:
        return bad_task()

    @flow(**flow_hooks)
    def exits() -> None:
        raise SystemExit(3)

    @flow(**flow_hooks)
    def cancelled() -> Any:
        return Cancelled()

    @flow(**flow_hooks)
    def invalid(number: int) -> None: ...

    for subject in (fine, bad, exits, cancelled):
        outcome(lambda subject=subject: subject(return_state=True))
        facts[subject.name] = list(seen)
        seen.clear()
    invalid("x", return_state=True)
    facts["invalid"] = list(seen)
    seen.clear()

    @flow(on_completion=[broken, note("after"), asynchronous])
    def with_broken() -> int:
        return 1

    facts["a hook that raises"] = ended(with_broken(return_state=True))
    facts["those after it"] = list(seen)
    seen.clear()

    @task
    def decorated() -> int:
        return 1

    @decorated.on_completion
    def first(_task: Any, _run: Any, _state: Any) -> None:
        seen.append("first")

    @decorated.on_completion
    def second(_task: Any, _run: Any, _state: Any) -> None:
        seen.append("second")

    decorated()
    facts["by decorator"] = list(seen)
    return facts


def program_subflows() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    ids: dict[str, str] = {}

    @task
    def where() -> Any:
        return [flow_run.name == ids["child name"], task_run.name.rpartition("-")[0]]

    @flow(log_prints=True)
    def child(x: int) -> Any:
        ids["child name"] = flow_run.name
        context: Any = get_run_context()
        return [x, where(), flow_run.parent_flow_run_id == ids["parent"], bool(context.log_prints)]

    @flow
    def bad_child() -> None:
        raise ValueError("boom")

    @flow
    def parent() -> Any:
        ids["parent"] = flow_run.id
        before = flow_run.id
        value = child(3)
        return [value, flow_run.id == before]

    @flow
    def with_bad_child() -> None:
        bad_child()

    @flow
    def forgiving() -> Any:
        return ended(bad_child(return_state=True))

    @flow
    def returns_child_state() -> Any:
        return bad_child(return_state=True)

    @task
    def calls_flow() -> Any:
        return bad_child(return_state=True).name

    @flow
    def flow_in_task() -> Any:
        return calls_flow()

    @flow
    def feeds_future() -> Any:
        return child_of_number(number_task.submit())

    @task
    def number_task() -> int:
        return 4

    @flow
    def child_of_number(x: int) -> int:
        return x + 1

    facts["values and names"] = outcome(parent)
    facts["a child's failure"] = outcome(with_bad_child)
    facts["a child's failure: state"] = ended(with_bad_child(return_state=True))
    facts["a child's failure, asked for"] = outcome(forgiving)
    facts["a child's state returned"] = ended(returns_child_state(return_state=True))
    facts["a flow in a task"] = outcome(flow_in_task)
    facts["a future as argument"] = outcome(feeds_future)
    return facts


def program_futures() -> dict[str, Any]:
    facts: dict[str, Any] = {}

    @task
    def slow(seconds: float, value: Any = None) -> Any:
        time.sleep(seconds)
        return value

    @task
    def bad(_: int = 0) -> None:
        raise ValueError("boom")

    @task
    async def asynchronous(value: int) -> int:
        await asyncio.sleep(0)
        return value

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
    def around() -> None:
        quick, late = slow.submit(0, "quick"), slow.submit(0.5, "late")
        facts["as completed"] = [future.result() for future in as_completed([late, quick])]
        facts["result"] = outcome(quick.result)
        facts["timeout of a result"] = outcome(lambda: slow.submit(0.7).result(timeout=0.01))
        pending = slow.submit(0.7)
        facts["wait with a timeout"] = outcome(lambda: pending.wait(0.01))
        facts["state while it runs"] = pending.state.is_final()
        done, not_done = wait([slow.submit(0), pending], timeout=0.2)
        facts["wait for several"] = [len(done), len(not_done)]
        failed = bad.submit()
        facts["result of a failure"] = outcome(failed.result)
        facts["result without raising"] = outcome(lambda: failed.result(raise_on_failure=False))
        facts["submit with state"] = outcome(lambda: slow.submit(0, 3, return_state=True))
        facts["submit with state, result"] = outcome(lambda: slow.submit(0, 3, return_state=True).result())
        facts["an async task"] = outcome(asynchronous.submit(5).result)
        facts["as completed with a timeout"] = outcome(
            lambda: [future.result() for future in as_completed([slow.submit(0.7)], timeout=0.01)]
        )
        called: list[str] = []
        quick.add_done_callback(lambda future: called.append(future.state.name))
        facts["callback"] = called
        mapped = slow.map([0, 0], ["a", "b"])
        facts["list: result"] = outcome(mapped.result)
        facts["list: wait"] = outcome(mapped.wait)
        facts["list: a failure"] = outcome(bad.map([1, 2]).result)

    around()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def forgetful() -> str:
        slow.submit(0.1)
        bad.submit()
        return "done"

    facts["futures nobody asks for"] = ended(forgetful(return_state=True))
    return facts


def program_exceptions_of_states() -> dict[str, Any]:
    states: dict[str, Any] = {
        "completed with data": Completed(data=1),
        "completed without data": Completed(),
        "completed with None": Completed(data=None),
        "failed with text": Failed(data="text"),
        "failed with a message": Failed(message="told"),
        "failed with nothing": Failed(),
        "failed with an exception": Failed(data=KeyError("k")),
        "failed with a state": Failed(data=Failed(data=KeyError("k"))),
        "failed with states": Failed(data=[Completed(data=1), Failed(data=KeyError("k"))]),
        "cancelled": Cancelled(),
        "pending": Pending(),
        "running": Running(),
    }
    facts: dict[str, Any] = {}
    for name, state in states.items():
        facts[name] = outcome(lambda state=state: state.result())
        facts[f"{name}, without raising"] = outcome(lambda state=state: state.result(raise_on_failure=False))
        facts[f"{name}: text"] = str(state)
        facts[f"{name}: is"] = [
            state.is_final(),
            state.is_completed(),
            state.is_failed(),
            state.is_cancelled(),
            state.is_pending(),
            state.is_running(),
        ]
    return facts


def program_errors() -> dict[str, Any]:
    class Odd(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(a)
            self.b = b

    original = Odd(1, 2)

    @task
    def raising() -> None:
        raise original

    @flow
    def same() -> bool:
        try:
            raising()
        except Odd as error:
            return error is original
        return False

    @flow
    def same_from_future() -> bool:
        try:
            raising.submit().result()
        except Odd as error:
            return error is original
        return False

    @flow
    def stops() -> None:
        raise KeyboardInterrupt

    @flow
    def message() -> None:
        raise ValueError("several\nlines")

    @task
    def message_of_task() -> None:
        raise ValueError("told")

    return {
        "the same object": outcome(same),
        "the same object from a future": outcome(same_from_future),
        "interrupt": outcome(stops),
        "flow's message": ended(message(return_state=True)),
        "task's message": ended(message_of_task(return_state=True)),
        "logger outside": outcome(lambda: plain(get_run_logger())),
        "context outside": outcome(lambda: plain(get_run_context())),
        "runtime outside": [flow_run.id, flow_run.tags, flow_run.parameters, task_run.id, task_run.run_count],
        "runtime, unknown": outcome(lambda: plain(flow_run.no_such_thing)),
    }


def program_logs() -> dict[str, Any]:
    ids: list[str] = []

    @task
    def printing() -> None:
        print("from a task", 1, sep="-")

    @task(log_prints=False)
    def silent() -> None:
        print("not logged")

    @flow(log_prints=True)
    def chatty() -> None:
        ids.append(flow_run.id)
        print("from a flow")
        get_run_logger().warning("a %s", "warning", extra={"more": 1})
        printing()
        silent()

    @flow
    def quiet() -> None:
        ids.append(flow_run.id)
        print("not logged")
        get_run_logger().debug("below the level")
        get_run_logger().info("told")

    chatty()
    quiet()
    own = ("from", "a warning", "told", "not", "below")
    return {
        "chatty": [line for line in lines_of(ids[0]) if line[1].startswith(own)],
        "quiet": [line for line in lines_of(ids[1]) if line[1].startswith(own)],
    }


def program_coroutines() -> dict[str, Any]:
    @task
    async def square(number: int) -> int:
        await asyncio.sleep(0)
        return number * number

    @task
    def plain_task(number: int) -> int:
        return number + 1

    @task
    async def bad() -> None:
        raise ValueError("boom")

    @flow
    async def gathering() -> Any:
        return await asyncio.gather(*(square(number) for number in range(3)))

    @flow
    async def mixed() -> Any:
        futures = square.map([1, 2])
        return [plain_task(1), plain_task.submit(2).result(), await square(3), *[f.result() for f in futures]]

    @flow
    def sync_flow() -> Any:
        return [square.submit(3).result(), *square.map([1, 2]).result()]

    @flow
    def sync_calls_async() -> Any:
        return square(3)

    @flow
    async def awaits_failure() -> Any:
        state = await bad(return_state=True)
        return [ended(state), plain(await asyncio.gather(bad(), square(2), return_exceptions=True))]

    @flow
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def in_a_loop() -> Any:
        return sync_flow()

    return {
        "gather": outcome(gathering),
        "mixed": outcome(mixed),
        "sync flow, async tasks": outcome(sync_flow),
        "sync flow returns a coroutine": outcome(sync_calls_async),
        "failures": outcome(awaits_failure),
        "cancelled": outcome(cancelled),
        "a sync flow in a loop": outcome(in_a_loop),
        "fn": outcome(lambda: square.fn(4)),
        "state of an async flow": outcome(lambda: gathering(return_state=True)),
    }


def program_methods() -> dict[str, Any]:
    class Store:
        def __init__(self, base: int) -> None:
            self.base = base

        @task
        def add(self, number: int) -> int:
            return self.base + number

        @flow
        def total(self, numbers: list[int]) -> int:
            return sum(self.add.map(numbers).result())

        @staticmethod
        @task
        def half(number: int) -> float:
            return number / 2

        @classmethod
        @flow
        def made(cls, number: int) -> str:
            return f"{cls.__name__}-{number}"

    one, two = Store(1), Store(2)
    first, second = one.add, two.add
    return {
        "method task": outcome(lambda: one.add(1)),
        "method flow": outcome(lambda: two.total([1, 2])),
        "static": outcome(lambda: Store.half(3)),
        "class": outcome(lambda: Store.made(3)),
        "two bound tasks": outcome(lambda: [first(10), second(10)]),
        "wrapped name": [Store.__dict__["add"].__name__, Store.__dict__["total"].name],
    }
