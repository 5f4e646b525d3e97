"""Retries of tasks and flows: attempts, delays, conditions, histories, hooks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from headrace import flow, runtime, task
from headrace.context import TaskRunContext
from headrace.settings import temporary_settings
from headrace.states import Failed, State, StateType
from headrace.tasks import exponential_backoff
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

pytestmark = [pytest.mark.usefixtures("recorder"), pytest.mark.parametrize("kind", KINDS)]


class Flaky:
    """Raises a number of times, then returns how often it was called."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise ValueError(f"call {self.calls}")
        return self.calls


def flaky_task(kind: str, failures: int, **options: Any) -> tuple[Flaky, Any]:
    flaky = Flaky(failures)

    def body() -> int:
        return flaky()

    return flaky, task(of_kind(kind, body), name="flaky", **options)


DELAYS = [
    (0, 2, []),
    (5, 2, [5, 5]),
    ([1, 2], 2, [1, 2]),
    ([0.3], 2, [0.3, 0.3]),
    ([1, 2, 3], 2, [1, 2]),
    (exponential_backoff(10), 3, [10, 20, 40]),
    (lambda retries: [retries, 1.0], 3, [3, 1, 1]),
]


@pytest.mark.parametrize(("delays", "retries", "waited"), DELAYS)
def test_attempts_and_delays(
    kind: str,
    delays: Any,
    retries: int,
    waited: list[float],
    slept: list[float],
    recorder: MemoryRecorder,
) -> None:
    _, fails = flaky_task(kind, retries, retries=retries, retry_delay_seconds=delays)
    assert call(fails) == retries + 1
    assert slept == waited
    step = ["AwaitingRetry", "Retrying"] if waited else ["Retrying"]
    assert recorder.the("flaky").names == ["Pending", "Running", *step * retries, "Completed"]


def test_the_scheduled_time_of_a_retry(kind: str, slept: list[float], recorder: MemoryRecorder) -> None:
    _, fails = flaky_task(kind, 1, retries=1, retry_delay_seconds=60)
    call(fails)
    running, awaiting = recorder.the("flaky").states[1:3]
    waits = awaiting.scheduled.scheduled_time.ToMicroseconds() - running.event_time.ToMicroseconds()
    assert 60_000_000 <= waits < 65_000_000
    assert awaiting.message == "Task run encountered an exception: ValueError: call 1"


def test_more_failures_than_retries(kind: str, slept: list[float], recorder: MemoryRecorder) -> None:
    flaky, fails = flaky_task(kind, 9, retries=2)
    with pytest.raises(ValueError, match="call 3"):
        call(fails)
    assert flaky.calls == 3
    run = recorder.the("flaky")
    assert run.names == ["Pending", "Running", "Retrying", "Retrying", "Failed"]
    assert run.run.retry_policy.max_retries == 2


def test_jitter_is_drawn_for_each_retry(kind: str, slept: list[float]) -> None:
    _, fails = flaky_task(kind, 40, retries=40, retry_delay_seconds=10, retry_jitter_factor=1)
    call(fails)
    assert len(set(slept)) == 40
    assert all(4.15 <= seconds <= 20 for seconds in slept)


def test_no_jitter_without_delay(kind: str, slept: list[float]) -> None:
    _, fails = flaky_task(kind, 2, retries=2, retry_jitter_factor=5)
    call(fails)
    assert slept == []


class _Condition:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[State[Any]] = []

    def __call__(self, subject: Any, run: Any, state: State[Any]) -> Any:
        self.asked.append(state)
        assert subject.name == run.task_name == "flaky"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def method(self, subject: Any, run: Any, state: State[Any]) -> Any:
        return self(subject, run, state)

    async def coroutine(self, subject: Any, run: Any, state: State[Any]) -> Any:
        return self(subject, run, state)


FORMS: list[Callable[[_Condition], Any]] = [
    lambda condition: condition,
    lambda condition: condition.method,
    lambda condition: condition.coroutine,
    lambda condition: lambda *args: condition(*args),
    lambda condition: functools.partial(_Condition.method, condition),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("answer", "attempts"), [(True, 3), (1, 3), (False, 1), (0, 1), (None, 1), (RuntimeError("no"), 1)]
)
def test_a_condition_decides(
    kind: str, form: Any, answer: Any, attempts: int, recorder: MemoryRecorder
) -> None:
    condition = _Condition(answer)
    flaky, fails = flaky_task(kind, 9, retries=2, retry_condition_fn=form(condition))
    state = call(fails, return_state=True)
    assert state.is_failed()
    assert flaky.calls == attempts
    # Not asked when no retries are left.
    assert len(condition.asked) == min(attempts, 2)
    assert all(state.is_failed() and isinstance(state.data, ValueError) for state in condition.asked)
    final = recorder.the("flaky").states[-1]
    assert final.failed.HasField("retriable") is (attempts == 1)


def test_a_condition_sees_the_returned_state(kind: str) -> None:
    seen: list[str | None] = []

    def condition(_: Any, __: Any, state: State[Any]) -> bool:
        seen.append(state.message)
        return True

    failing = task(of_kind(kind, lambda: Failed(message="mine")), retries=1, retry_condition_fn=condition)
    assert call(failing, return_state=True).is_failed()
    assert seen == ["mine"]


@pytest.mark.parametrize("signal", [SystemExit, KeyboardInterrupt])
def test_what_is_no_exception_is_not_retried(kind: str, signal: type[BaseException]) -> None:
    calls: list[int] = []

    def body() -> None:
        calls.append(1)
        raise signal

    with pytest.raises(signal):
        call(task(of_kind(kind, body), retries=3))
    assert calls == [1]


def test_hooks_and_counts(kind: str, slept: list[float]) -> None:
    events: list[Any] = []
    _, fails = flaky_task(
        kind,
        9,
        retries=2,
        retry_delay_seconds=1,
        on_running=[lambda t, run, state: events.append((state.name, run.run_count))],
        on_failure=[lambda t, run, state: events.append((state.name, run.run_count))],
        on_completion=[lambda *_: events.append("completion")],
    )
    call(fails, return_state=True)
    assert events == [("Running", 1), ("Retrying", 2), ("Retrying", 3), ("Failed", 3)]


def test_the_body_sees_which_attempt_it_is(kind: str) -> None:
    seen: list[Any] = []

    def body() -> None:
        context = TaskRunContext.get()
        assert context is not None
        seen.append((context.task_run.run_count, runtime.task_run.run_count))
        if len(seen) < 3:
            raise ValueError

    call(task(of_kind(kind, body), retries=2))
    assert seen == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"retry_delay_seconds": [1] * 51}, ValueError),
        ({"retry_delay_seconds": "soon"}, TypeError),
        ({"retry_delay_seconds": -1}, ValueError),
        ({"retry_jitter_factor": -0.5}, ValueError),
        ({"retry_condition_fn": 3}, TypeError),
        ({"retries": -1}, ValueError),
        ({"retries": 1.5}, TypeError),
    ],
)
def test_bad_options_are_refused_at_decoration(
    kind: str, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        task(of_kind(kind, lambda: None), **options)


def test_defaults_are_the_settings_at_decoration(kind: str) -> None:
    with temporary_settings({"tasks_default_retries": 2, "tasks_default_retry_delay_seconds": (1.0, 3.0)}):
        configured = task(of_kind(kind, lambda: None))
    assert configured.retries == 2
    assert configured.retry_delay_seconds == [1, 3]
    assert task(of_kind(kind, lambda: None)).retries == 0


# Flows.


@task
def step() -> int:
    return 1


def test_a_flow_is_run_again_from_the_top(kind: str, slept: list[float], recorder: MemoryRecorder) -> None:
    seen: list[Any] = []
    events: list[str] = []

    def body(x: int) -> int:
        step()
        seen.append((x, runtime.flow_run.run_count))
        if len(seen) < 3:
            raise ValueError("again")
        return 7

    retried = flow(
        of_kind(kind, body),
        name="retried",
        retries=2,
        retry_delay_seconds=4,
        on_running=[lambda f, run, state: events.append(state.name)],
        on_failure=[lambda f, run, state: events.append(state.name)],
        on_completion=[lambda f, run, state: events.append(state.name)],
    )
    assert call(retried, "5") == 7
    assert seen == [(5, 1), (5, 2), (5, 3)]
    assert slept == [4, 4]
    assert events == ["Running", "Retrying", "Retrying", "Completed"]
    again = ["AwaitingRetry", "Retrying"]
    assert recorder.the("retried").names == ["Pending", "Running", *again, *again, "Completed"]
    # The tasks of each attempt are runs of their own.
    keys = [run.run.dynamic_key for run in recorder.all("step")]
    assert len(keys) == len(set(keys)) == 3


def test_a_flow_without_delay(kind: str, slept: list[float], recorder: MemoryRecorder) -> None:
    flaky = Flaky(1)
    assert call(flow(of_kind(kind, lambda: flaky()), name="quick", retries=1)) == 2
    assert slept == []
    assert recorder.the("quick").names == ["Pending", "Running", "Retrying", "Completed"]


@pytest.mark.parametrize("answer", [Failed(), [Failed()]])
def test_a_failed_state_of_a_flow_is_retried_too(kind: str, answer: Any) -> None:
    answers: list[Any] = [answer, 3]
    assert call(flow(of_kind(kind, lambda: answers.pop(0)), retries=1)) == 3


def test_a_flow_that_fails_for_good(kind: str, recorder: MemoryRecorder) -> None:
    flaky = Flaky(9)
    with pytest.raises(ValueError, match="call 3"):
        call(flow(of_kind(kind, lambda: flaky()), name="bad", retries=2))
    assert recorder.the("bad").types[-1] is StateType.FAILED


@pytest.mark.parametrize("delay", [[1, 2], "soon", -1])
def test_a_flow_has_one_delay(kind: str, delay: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        flow(of_kind(kind, lambda: None), retry_delay_seconds=delay)
