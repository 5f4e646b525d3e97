"""Time limits: which state they give, what they interrupt, and what they put back."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headrace import flow, task
from headrace.exceptions import FlowRunTimeoutError, TaskRunTimeoutError
from headrace.execution.timeouts import blocking_limit
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder")

LIMIT = 0.25
LONG = 30.0
BOTH = pytest.mark.parametrize(
    ("decorate", "word", "error"),
    [(flow, "Flow", FlowRunTimeoutError), (task, "Task", TaskRunTimeoutError)],
)


def wait_of_kind(kind: str) -> Any:
    """A body that would take far too long, blocking or suspending."""
    if kind == "def":
        return lambda: time.sleep(LONG)

    async def body() -> None:
        await asyncio.sleep(LONG)

    return body


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_takes_too_long(
    kind: str, decorate: Any, word: str, error: type[Exception], recorder: MemoryRecorder
) -> None:
    subject = decorate(wait_of_kind(kind), name="slow", timeout_seconds=LIMIT)
    began = time.monotonic()
    with pytest.raises(error, match=rf"{word} run exceeded timeout of 0.25 second\(s\)"):
        call(subject)
    assert time.monotonic() - began < LONG / 2
    run = recorder.the("slow")
    assert run.names == ["Pending", "Running", "TimedOut"]
    assert run.states[-1].message == f"{word} run exceeded timeout of 0.25 second(s)"
    assert run.run.timeout.ToMilliseconds() == 250


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_retries_apply(kind: str, decorate: Any, word: str, error: Any, recorder: MemoryRecorder) -> None:
    call(
        decorate(wait_of_kind(kind), name="slow", timeout_seconds=LIMIT, retries=1, retry_delay_seconds=0),
        return_state=True,
    )
    assert recorder.the("slow").names == ["Pending", "Running", "Retrying", "TimedOut"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [None, 0])
def test_no_limit(kind: str, seconds: Any) -> None:
    subject = task(of_kind(kind, lambda: 1), timeout_seconds=seconds)
    assert subject.timeout_seconds is None
    assert call(subject) == 1


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), ("soon", TypeError)])
def test_limits_that_make_no_sense(decorate: Any, seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout_seconds"):
        decorate(lambda: None, timeout_seconds=seconds)


def test_cleanup_runs_and_swallowing_does_not_help() -> None:
    cleaned: list[str] = []

    @task(timeout_seconds=LIMIT)
    async def stubborn() -> str:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            cleaned.append("async")
        return "done all the same"

    @task(timeout_seconds=LIMIT)
    def stubborn_sync() -> str:
        try:
            time.sleep(LONG)
        except TimeoutError:
            cleaned.append("sync")
        return "done all the same"

    assert asyncio.run(stubborn(return_state=True)).name == "TimedOut"
    assert stubborn_sync(return_state=True).name == "TimedOut"
    assert cleaned == ["async", "sync"]


@task(timeout_seconds=LONG)
def patient() -> None:
    time.sleep(LONG)


@task(timeout_seconds=LONG, retries=5)
async def patient_async() -> None:
    await asyncio.sleep(LONG)


def test_the_limit_of_the_flow_ends_its_task_and_is_the_flows(recorder: MemoryRecorder) -> None:
    @flow(name="outer", timeout_seconds=LIMIT)
    def outer() -> None:
        patient.with_options(retries=5)()

    with pytest.raises(FlowRunTimeoutError):
        outer()
    assert recorder.the("outer").names[-1] == "TimedOut"
    inner = recorder.the("patient")
    assert inner.names == ["Pending", "Running", "Crashed"]
    assert inner.states[-1].message == "Execution was ended by the timeout of an enclosing run."


def test_the_limit_of_an_async_flow(recorder: MemoryRecorder) -> None:
    @flow(name="outer", timeout_seconds=LIMIT)
    async def outer() -> None:
        await patient_async()

    with pytest.raises(FlowRunTimeoutError):
        asyncio.run(outer())
    assert recorder.the("outer").names[-1] == "TimedOut"
    assert recorder.the("patient_async").names == ["Pending", "Running", "Crashed"]


def test_the_limit_of_the_task_is_the_tasks(recorder: MemoryRecorder) -> None:
    @flow(name="outer", timeout_seconds=LONG)
    def outer() -> str:
        return patient.with_options(timeout_seconds=LIMIT)(return_state=True).name

    assert outer() == "TimedOut"
    assert recorder.the("outer").names[-1] == "Completed"


async def test_siblings_are_not_cancelled() -> None:
    @task
    async def short() -> int:
        await asyncio.sleep(LIMIT * 2)
        return 1

    @flow
    async def outer() -> Any:
        return await asyncio.gather(
            patient_async.with_options(timeout_seconds=LIMIT, retries=0)(return_state=True), short()
        )

    timed_out, value = await outer()
    assert (timed_out.name, value) == ("TimedOut", 1)


# Threads.


def test_in_a_thread_python_code_is_interrupted() -> None:
    cleaned: list[int] = []

    @task(timeout_seconds=LIMIT)
    def busy() -> None:
        deadline = time.monotonic() + LONG
        try:
            while time.monotonic() < deadline:
                pass
        finally:
            cleaned.append(1)

    @flow
    def outer() -> Any:
        return busy.submit(return_state=True)

    began = time.monotonic()
    with pytest.raises(TaskRunTimeoutError):
        outer()
    assert time.monotonic() - began < LONG / 2
    assert cleaned == [1]


def test_in_a_thread_a_blocking_call_is_timed_out_when_it_returns(caplog: pytest.LogCaptureFixture) -> None:
    @task(timeout_seconds=LIMIT)
    def sleeps() -> int:
        time.sleep(LIMIT * 3)
        return 1

    @flow
    def outer() -> Any:
        return sleeps.submit(return_state=True).name, sleeps.submit(return_state=True).name

    assert outer() == ("TimedOut", "TimedOut")
    warnings = [r for r in caplog.records if "cannot interrupt a blocking call" in r.getMessage()]
    assert len(warnings) <= 1


def test_in_a_thread_the_end_is_recorded_when_the_limit_passes(recorder: MemoryRecorder) -> None:
    """Not only when the call returns in which the thread is blocked."""
    gate = threading.Lock()
    gate.acquire()

    @task(name="blocked", timeout_seconds=LIMIT)
    def blocked() -> None:
        gate.acquire()

    @flow
    def outer() -> Any:
        future = blocked.submit()
        deadline = time.monotonic() + LONG
        while recorder.the("blocked").names[-1] != "TimedOut" and time.monotonic() < deadline:
            time.sleep(LIMIT / 10)
        assert not future.done()
        gate.release()
        future.wait()
        return future.state.name

    assert outer() == "TimedOut"
    assert recorder.the("blocked").names == ["Pending", "Running", "TimedOut"]


def test_in_a_thread_an_attempt_that_is_retried_ends_when_its_body_does(recorder: MemoryRecorder) -> None:
    @task(name="sleeps", timeout_seconds=LIMIT, retries=1)
    def sleeps() -> None:
        time.sleep(LIMIT * 2)

    flow(lambda: sleeps.submit().wait())()
    assert recorder.the("sleeps").names == ["Pending", "Running", "Retrying", "TimedOut"]


def test_in_a_thread_nothing_is_left_behind() -> None:
    """Bodies that end about when their limit passes: no interruption may hit what runs after them."""
    survived: list[int] = []

    def work() -> None:
        race = task(lambda: time.sleep(0.001), timeout_seconds=0.001)
        names = {race(return_state=True).name for _ in range(200)}
        assert names == {"TimedOut"}
        for n in range(20_000):
            survived.append(n)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(survived) == 20_000


# What was there before is put back.


@pytest.fixture
def alarms() -> Iterator[list[str]]:
    rung: list[str] = []
    previous = signal.signal(signal.SIGALRM, lambda *_: rung.append("users"))
    yield rung
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def test_a_handler_and_a_timer_of_the_users_are_put_back(alarms: list[str]) -> None:
    handler = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 60, 7)
    assert task(lambda: 1, timeout_seconds=LONG)() == 1
    task(lambda: time.sleep(LONG), timeout_seconds=LIMIT)(return_state=True)
    assert signal.getsignal(signal.SIGALRM) is handler
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert 50 < left <= 60 and interval == 7
    assert alarms == []


def test_an_alarm_of_the_users_rings_inside_of_a_limit(alarms: list[str]) -> None:
    signal.setitimer(signal.ITIMER_REAL, LIMIT)

    def body() -> int:
        deadline = time.monotonic() + LONG
        while not alarms and time.monotonic() < deadline:
            time.sleep(LIMIT / 5)
        return 1

    assert task(body, timeout_seconds=LONG)() == 1
    assert alarms == ["users"]


def test_nested_limits_on_the_main_thread() -> None:
    errors = [TimeoutError(str(n)) for n in range(3)]
    before, handler = signal.getitimer(signal.ITIMER_REAL), signal.getsignal(signal.SIGALRM)

    async def nest() -> None:
        async with (
            blocking_limit(LONG, errors[0]),
            blocking_limit(LIMIT, errors[1]),
            blocking_limit(LONG, errors[2]),
        ):
            time.sleep(LONG)  # noqa: ASYNC251

    with pytest.raises(TimeoutError) as caught:
        asyncio.run(nest())
    assert caught.value is errors[1]
    after = signal.getitimer(signal.ITIMER_REAL)
    assert before[0] - 10 < after[0] <= before[0]
    assert signal.getsignal(signal.SIGALRM) is handler
