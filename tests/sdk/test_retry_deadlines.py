"""`retry_deadline_seconds`: a budget of time over all attempts, from the first start."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace import flow, task
from headrace.context import get_run_context
from headrace.core.passing import SkippedTime, time_replaced
from headrace.exceptions import FlowRunTimeoutError, TaskRunTimeoutError
from headrace.settings import temporary_settings
from headrace.testing import skip_time
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder")

BOTH = pytest.mark.parametrize("decorate", [flow, task])
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def clock() -> Iterator[SkippedTime]:
    with skip_time() as time:
        yield time


def taking(clock: SkippedTime, seconds: float, tries: list[int]) -> Callable[[], None]:
    """A body that takes that long and then fails."""

    def body() -> None:
        tries.append(1)
        clock.skip(seconds)
        raise ValueError(f"try {len(tries)}")

    return body


class _Oversleeping(SkippedTime):
    """Waits far longer than asked."""

    def to_wait(self, seconds: float) -> float:
        return super().to_wait(seconds + 100)


def ending(decorate: Any, fn: Any, **options: Any) -> Any:
    return call(decorate(name="it", **options)(fn), return_state=True)


@BOTH
@EACH_KIND
def test_no_attempt_begins_at_or_after_the_deadline(kind: str, decorate: Any, clock: SkippedTime) -> None:
    tries: list[int] = []
    body = of_kind(kind, taking(clock, 30, tries))
    state = ending(decorate, body, retries=10, retry_deadline_seconds=90)
    # Begun at 0, 30 and 60 s; the next would begin at 90 s.
    assert len(tries) == 3
    assert (state.type.value, state.name) == ("FAILED", "Failed")
    assert "ValueError: try 3" in state.message
    assert "given up after 3 attempts" in state.message and "retry deadline of 90 second(s)" in state.message
    with pytest.raises(ValueError, match="try 3"):
        state.result(_sync=True)


@BOTH
@EACH_KIND
def test_a_delay_that_would_end_past_it_is_not_waited_for(
    kind: str, decorate: Any, clock: SkippedTime, recorder: MemoryRecorder
) -> None:
    tries: list[int] = []
    body = of_kind(kind, taking(clock, 1, tries))
    delays: Any = 40 if decorate is flow else [40, 40, 40]
    state = ending(decorate, body, retries=5, retry_delay_seconds=delays, retry_deadline_seconds=90)
    # 1 + 40 + 1 + 40 + 1 are 83 s: another 40 would end at 123.
    assert (len(tries), clock.skipped, state.name) == (3, [40, 40], "Failed")
    again = ["AwaitingRetry", "Retrying"]
    assert recorder.the("it").names == ["Pending", "Running", *again, *again, "Failed"]


def test_a_list_of_delays_that_crosses_it(clock: SkippedTime) -> None:
    tries: list[int] = []
    state = ending(
        task, taking(clock, 0, tries), retries=4, retry_delay_seconds=[1, 2, 100], retry_deadline_seconds=10
    )
    assert (len(tries), clock.skipped) == (3, [1, 2])
    assert "given up after 3 attempts" in state.message


@BOTH
def test_a_deadline_alone_retries_until_it_passes(decorate: Any, clock: SkippedTime) -> None:
    for options in ({}, {"retries": -1}, {"retries": None}):
        tries: list[int] = []
        state = ending(decorate, taking(clock, 10, tries), retry_deadline_seconds=95, **options)
        assert (len(tries), state.name) == (10, "Failed")


@BOTH
def test_the_number_of_retries_still_holds(decorate: Any, clock: SkippedTime) -> None:
    tries: list[int] = []
    state = ending(decorate, taking(clock, 1, tries), retries=2, retry_deadline_seconds=1000)
    assert len(tries) == 3 and "deadline" not in state.message


@BOTH
def test_one_that_completes_in_time_is_left_alone(decorate: Any, clock: SkippedTime) -> None:
    tries: list[int] = []

    def body() -> int:
        tries.append(1)
        clock.skip(10)
        if len(tries) < 3:
            raise ValueError("not yet")
        return len(tries)

    assert ending(decorate, body, retry_deadline_seconds=25).result(_sync=True) == 3


def test_the_condition_is_not_asked_when_the_deadline_has_passed(clock: SkippedTime) -> None:
    asked: list[str] = []

    def condition(task: Any, run: Any, state: Any) -> bool:
        asked.append(state.message)
        return True

    tries: list[int] = []
    ending(task, taking(clock, 6, tries), retries=9, retry_deadline_seconds=10, retry_condition_fn=condition)
    assert (len(tries), len(asked)) == (2, 1)


@BOTH
def test_time_that_passes_in_the_delay_itself_counts(decorate: Any) -> None:
    """The machine slept meanwhile: the attempt that was to come does not begin."""
    tries: list[int] = []

    def body() -> None:
        tries.append(1)
        raise ValueError("once")

    with time_replaced(_Oversleeping()):
        state = ending(decorate, body, retries=3, retry_delay_seconds=5, retry_deadline_seconds=60)
    assert (len(tries), state.name) == (1, "Failed")
    assert "given up after 1 attempt:" in state.message


@pytest.mark.parametrize(
    ("decorate", "error"), [(flow, FlowRunTimeoutError), (task, TaskRunTimeoutError)], ids=["flow", "task"]
)
@EACH_KIND
def test_a_running_attempt_is_cut_by_it(kind: str, decorate: Any, error: type[Exception]) -> None:
    tries: list[int] = []

    def body() -> None:
        tries.append(1)
        time.sleep(20)

    async def abody() -> None:
        tries.append(1)
        await asyncio.sleep(20)

    began = time.monotonic()
    state = ending(
        decorate, body if kind == "def" else abody, retries=5, timeout_seconds=15, retry_deadline_seconds=0.2
    )
    assert time.monotonic() - began < 10
    assert (len(tries), state.name) == (1, "TimedOut")
    assert "exceeded its retry deadline of 0.2 second(s) over all attempts" in state.message
    with pytest.raises(error, match="retry deadline"):
        state.result(_sync=True)


@BOTH
def test_an_attempt_with_a_shorter_limit_of_its_own_is_tried_again(decorate: Any) -> None:
    tries: list[int] = []

    def body() -> int:
        tries.append(1)
        if len(tries) == 1:
            time.sleep(20)
        return len(tries)

    state = ending(decorate, body, timeout_seconds=0.1, retry_deadline_seconds=30)
    assert state.result(_sync=True) == 2


def test_on_a_worker_thread_the_cut_is_recorded_in_time(recorder: MemoryRecorder) -> None:
    """The body cannot be interrupted in C code; nobody has to wait for it to see the state."""
    release = threading.Event()

    @task(name="stuck", retries=5, retry_deadline_seconds=0.1)
    def stuck() -> None:
        release.wait(60)

    @flow
    def outer() -> None:
        future = stuck.submit()
        until = time.monotonic() + 60
        while recorder.the("stuck").names[-1] != "TimedOut" and time.monotonic() < until:
            time.sleep(0.005)
        assert recorder.the("stuck").names == ["Pending", "Running", "TimedOut"]
        release.set()
        future.wait()

    outer()


def test_paused_time_does_not_count(clock: SkippedTime) -> None:
    tries: list[int] = []

    @flow(retries=5, retry_deadline_seconds=60)
    def body() -> None:
        tries.append(1)
        clock.skip(25)
        if len(tries) == 1:
            # As a pause of an hour leaves it.
            clock.skip(3600)
            get_run_context().idle_micros += 3_600_000_000
        raise ValueError("again")

    body(return_state=True)
    assert len(tries) == 3


@BOTH
def test_it_goes_on_record_with_the_policy(decorate: Any, recorder: MemoryRecorder) -> None:
    call(decorate(name="it", retries=2, retry_deadline_seconds=90.5)(lambda: None))
    policy = recorder.the("it").run.retry_policy
    assert (policy.max_retries, policy.deadline.ToMilliseconds()) == (2, 90_500)


@BOTH
def test_the_options(decorate: Any) -> None:
    plain = decorate(lambda: None)
    assert (plain.retries, plain.retry_deadline_seconds) == (0, None)
    bounded = plain.with_options(retry_deadline_seconds=60)
    assert (bounded.retries, bounded.retry_deadline_seconds) == (-1, 60.0)
    assert bounded.with_options(name="other").retries == -1
    assert bounded.with_options(retry_deadline_seconds=None).retries == 0
    assert bounded.with_options(retries=2).retries == 2
    assert decorate(retries=4)(lambda: None).with_options(retry_deadline_seconds=60).retries == 4
    with temporary_settings({"tasks_default_retries": 3, "flows_default_retries": 3}):
        assert decorate(lambda: None).retries == 3
        assert decorate(retry_deadline_seconds=5)(lambda: None).retries == -1
        assert bounded.with_options(retry_deadline_seconds=None).retries == 3


@BOTH
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"retries": -1}, ValueError, "give 'retry_deadline_seconds', too"),
        ({"retries": -2, "retry_deadline_seconds": 1}, ValueError, "must not be negative, got -2"),
        ({"retry_deadline_seconds": 0}, ValueError, "positive and finite"),
        ({"retry_deadline_seconds": -1}, ValueError, "positive and finite"),
        ({"retry_deadline_seconds": float("inf")}, ValueError, "positive and finite"),
        ({"retry_deadline_seconds": "60"}, TypeError, "must be a number of seconds, not '60'"),
        ({"retry_deadline_seconds": True}, TypeError, "must be a number of seconds, not True"),
    ],
)
def test_what_is_refused(
    decorate: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        decorate(**options)(lambda: None)


def test_a_function_of_delays_is_asked_for_as_many_as_can_be_given_one_by_one() -> None:
    asked: list[int] = []

    def delays(retries: int) -> list[float]:
        asked.append(retries)
        return [1.0] * retries

    task(retry_deadline_seconds=5, retry_delay_seconds=delays)(lambda: None)
    assert asked == [50]
