"""Retries: attempts, states, hooks, conditions; time limits."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from plain import ended, outcome
from recorded import flow_history, task_histories

from headrace import flow, task
from headrace.runtime import flow_run, task_run
from headrace.states import Failed
from headrace.tasks import exponential_backoff


def _histories(subject: Any) -> Any:
    """The states that the task runs of a flow run with `subject` in it went through."""
    seen: list[str] = []

    @flow
    def around() -> None:
        seen.append(flow_run.id)
        subject.submit().wait()

    around()
    return task_histories(seen[0])


def program_task_retries() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    hooks: list[str] = []

    def on_running(_: Any, run: Any, state: Any) -> None:
        hooks.append(f"running {state.name} {run.run_count}")

    def on_failure(_: Any, run: Any, state: Any) -> None:
        hooks.append(f"failure {state.name} {run.run_count}")

    def on_completion(_: Any, run: Any, state: Any) -> None:
        hooks.append(f"completion {state.name} {run.run_count}")

    options = {"on_running": [on_running], "on_failure": [on_failure], "on_completion": [on_completion]}

    @task(retries=2, **options)
    def succeeds_third() -> int:
        if task_run.run_count < 3:
            raise ValueError(task_run.run_count)
        return task_run.run_count

    facts["third try: history"] = _histories(succeeds_third)
    facts["third try: hooks"] = list(hooks)
    hooks.clear()

    @task(retries=2, retry_delay_seconds=[0.05], **options)
    def never() -> None:
        raise ValueError(task_run.run_count)

    facts["never: history"] = _histories(never)
    facts["never: hooks"] = list(hooks)
    facts["never: state"] = ended(never(return_state=True), message=False)
    facts["never: raised"] = outcome(never)

    @task(retries=2)
    def failed_by_hand() -> Any:
        return Failed(message="again") if task_run.run_count < 3 else 3

    facts["failed by hand: history"] = _histories(failed_by_hand)
    facts["failed by hand: value"] = outcome(failed_by_hand)

    @task(retries=3)
    def exits() -> None:
        raise SystemExit(3)

    facts["exit: raised"] = outcome(exits)
    return facts


def program_retry_conditions() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    asked: list[Any] = []

    def only_value_errors(_: Any, run: Any, state: Any) -> bool:
        asked.append([state.type.value, state.name, run.run_count])
        try:
            state.result()
        except ValueError:
            return True
        except Exception:
            return False
        return False

    def broken(_task: Any, _run: Any, _state: Any) -> bool:
        raise RuntimeError("the condition")

    def attempts(condition: Any, error: Exception) -> int:
        count = [0]

        @task(retries=2, retry_condition_fn=condition)
        def failing() -> None:
            count[0] += 1
            raise error

        failing(return_state=True)
        return count[0]

    facts["allowed"] = attempts(only_value_errors, ValueError("x"))
    facts["asked"] = list(asked)
    facts["refused"] = attempts(only_value_errors, KeyError("x"))
    facts["raises"] = attempts(broken, ValueError("x"))
    facts["a lambda that gives 0"] = attempts(lambda *_: 0, ValueError("x"))

    async def coroutine(_task: Any, _run: Any, _state: Any) -> bool:
        return True

    facts["not callable"] = outcome(lambda: task(retry_condition_fn=3)(lambda: 1) and "made")
    return facts


def program_retry_options() -> dict[str, Any]:
    def delays(**options: Any) -> Any:
        return lambda: task(**options)(lambda: None).retry_delay_seconds

    return {
        "number": outcome(delays(retries=1, retry_delay_seconds=3)),
        "list": outcome(delays(retries=2, retry_delay_seconds=[1, 2])),
        "backoff": outcome(delays(retries=4, retry_delay_seconds=exponential_backoff(2))),
        "too many": outcome(delays(retries=60, retry_delay_seconds=list(range(60)))),
        "wrong type": outcome(delays(retries=1, retry_delay_seconds="soon")),
        "jitter below zero": outcome(delays(retries=1, retry_jitter_factor=-1)),
        "backoff of a long series": outcome(delays(retries=60, retry_delay_seconds=exponential_backoff(1))),
    }


def program_flow_retries() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    bodies: list[Any] = []
    hooks: list[str] = []

    @task
    def step() -> str:
        bodies.append("step")
        return "done"

    @flow
    def child() -> int:
        bodies.append("child")
        return 1

    def note(word: str) -> Any:
        def hook(_flow: Any, run: Any, state: Any) -> None:
            hooks.append(f"{word} {state.name} {run.run_count}")

        return hook

    @flow(
        retries=1,
        on_running=[note("running")],
        on_failure=[note("failure")],
        on_completion=[note("completion")],
    )
    def twice(number: int) -> int:
        bodies.append([flow_run.run_count, number, flow_run.id == bodies_id.setdefault("id", flow_run.id)])
        step()
        child()
        if flow_run.run_count < 2:
            raise ValueError("once")
        return number

    bodies_id: dict[str, str] = {}
    facts["value"] = outcome(lambda: twice(4))
    facts["bodies"] = list(bodies)
    facts["hooks"] = list(hooks)
    facts["history"] = flow_history(bodies_id["id"])
    hooks.clear()

    @flow(
        retries=1,
        retry_delay_seconds=0.05,
        on_running=[note("running")],
        on_failure=[note("failure")],
    )
    def never() -> None:
        bodies_id["never"] = flow_run.id
        raise ValueError("always")

    facts["never"] = ended(never(return_state=True))
    facts["never: hooks"] = list(hooks)
    facts["never: history"] = flow_history(bodies_id["never"])

    @flow(retries=1)
    def by_state() -> Any:
        return Failed(message="again") if flow_run.run_count < 2 else 2

    facts["failed by hand"] = outcome(by_state)

    @flow(retries=2)
    def strict(number: int) -> int:
        bodies_id["strict"] = "entered"
        return number

    facts["validation is not retried"] = ended(strict("x", return_state=True), message=False)
    facts["validation: body entered"] = "strict" in bodies_id
    return facts


def program_timeouts() -> dict[str, Any]:
    facts: dict[str, Any] = {}

    @task(timeout_seconds=0.3)
    def slow() -> None:
        time.sleep(1)

    @task(timeout_seconds=0.3)
    async def slow_async() -> None:
        await asyncio.sleep(1)

    @task
    def own_error() -> None:
        raise TimeoutError("the socket")

    @flow(timeout_seconds=0.3)
    def slow_flow() -> None:
        time.sleep(1)

    @flow(timeout_seconds=0.3)
    async def slow_async_flow() -> None:
        await asyncio.sleep(1)

    @task(timeout_seconds=5)
    def quick() -> int:
        return 1

    @task(timeout_seconds=0)
    def unlimited() -> int:
        return 1

    @task(timeout_seconds=0.2, retries=1)
    def quicker_the_second_time() -> int:
        if task_run.run_count < 2:
            time.sleep(1)
        return 2

    facts["task"] = ended(slow(return_state=True))
    facts["task: raised"] = outcome(slow)
    facts["async task"] = ended(asyncio.run(slow_async(return_state=True)))
    facts["error of its own"] = ended(own_error(return_state=True))
    facts["flow"] = ended(slow_flow(return_state=True))
    facts["flow: raised"] = outcome(slow_flow)
    facts["async flow"] = ended(asyncio.run(slow_async_flow(return_state=True)))
    facts["in time"] = outcome(quick)
    facts["zero is no limit"] = outcome(unlimited)
    facts["retried"] = outcome(quicker_the_second_time)

    @flow
    def submitting() -> None:
        future = slow.submit()
        future.wait()
        facts["submitted"] = ended(future.state)

    submitting()
    return facts
