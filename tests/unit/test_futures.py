"""Futures: waiting for them, in which order they come, and what races with what."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from headrace.core.ids import new_id
from headrace.exceptions import UnfinishedRun
from headrace.futures import HeadraceFuture, HeadraceFutureList, as_completed, wait
from headrace.runs import Owner, TaskRun
from headrace.states import Completed, Crashed, Failed, Pending, State


def unended(name: str = "t") -> HeadraceFuture[Any]:
    run_id = new_id()
    return HeadraceFuture(TaskRun(run_id, name, run_id, Owner(run_id)))


def end(future: HeadraceFuture[Any], state: State[Any], error: BaseException | None = None) -> None:
    future._run.state = state
    future.finish(error)


def ended(data: Any = None) -> HeadraceFuture[Any]:
    future = unended()
    end(future, Completed(data=data))
    return future


@pytest.fixture
def in_thread() -> Any:
    """Runs functions in threads that are joined at the end of the test."""
    threads: list[threading.Thread] = []

    def start(fn: Callable[[], Any]) -> threading.Thread:
        thread = threading.Thread(target=fn)
        thread.start()
        threads.append(thread)
        return thread

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_future_is_pending_before_its_run_has_a_state() -> None:
    future = unended()
    assert future.state.is_pending()
    assert not future.done()
    assert future.task_run_id in repr(future)


def test_waiting_with_a_limit_ends_quietly_and_asking_for_the_result_does_not() -> None:
    future = unended()
    future.wait(timeout=0)
    future.wait(timeout=0.001)
    with pytest.raises(TimeoutError, match=future.task_run_id):
        future.result(timeout=0)


@pytest.mark.parametrize("look", [HeadraceFuture.wait, HeadraceFuture.result])
def test_a_negative_limit_is_refused(look: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="negative"):
        look(ended(), timeout=-1)
    with pytest.raises(ValueError, match="negative"):
        wait([ended()], timeout=-0.1)
    with pytest.raises(ValueError, match="negative"):
        as_completed([], timeout=-1)


def test_results_and_failures() -> None:
    error = ValueError("no")
    failed = unended()
    end(failed, Failed(data=error))
    assert ended(5).result() == 5
    assert failed.result(raise_on_failure=False) is error
    with pytest.raises(ValueError, match="no") as raised:
        failed.result()
    assert raised.value is error


def test_a_run_that_will_not_start_is_unfinished() -> None:
    future = unended()
    end(future, Pending(name="NotReady"))
    with pytest.raises(UnfinishedRun):
        future.result()
    with pytest.raises(UnfinishedRun):
        future.result(raise_on_failure=False)


def test_a_body_that_left_with_system_exit_raises_it_again_from_every_wait() -> None:
    future = unended()
    end(future, Crashed(), SystemExit(3))
    for look in (
        future.wait,
        future.result,
        lambda: wait([future]),
        lambda: HeadraceFutureList([future]).wait(),
    ):
        with pytest.raises(SystemExit) as raised:
            look()
        assert raised.value.code == 3
    assert list(as_completed([future])) == [future]


def test_waiting_in_another_thread_wakes_up(in_thread: Any) -> None:
    future = unended()
    seen: list[Any] = []
    waiter = in_thread(lambda: seen.append(future.result()))
    end(future, Completed(data="here"))
    waiter.join(10)
    assert seen == ["here"]


def test_callbacks_are_called_once_in_order_and_at_once_when_it_has_ended() -> None:
    future = unended()
    called: list[Any] = []
    future.add_done_callback(lambda f: called.append(("first", f)))
    future.add_done_callback(lambda f: called.append(("second", f)))
    end(future, Completed(data=1))
    future.finish()
    future.add_done_callback(lambda f: called.append(("late", f)))
    assert called == [("first", future), ("second", future), ("late", future)]


def test_a_callback_that_raises_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    future = unended()
    called: list[str] = []

    def broken(_: object) -> None:
        raise RuntimeError("broken callback")

    future.add_done_callback(broken)
    future.add_done_callback(lambda _: called.append("next"))
    with caplog.at_level(logging.ERROR, logger="headrace.futures"):
        end(future, Completed(data=1))
        future.add_done_callback(broken)
    assert called == ["next"]
    assert [str(record.exc_info and record.exc_info[1]) for record in caplog.records] == [
        "broken callback"
    ] * 2
    assert future.result() == 1


def test_a_wait_that_gave_up_leaves_nothing_behind() -> None:
    future = unended()
    for _ in range(3):
        future.wait(timeout=0)
        wait([future], timeout=0)
        with pytest.raises(TimeoutError):
            list(as_completed([future], timeout=0))
    assert future._callbacks == []


def test_wait_tells_what_has_ended_from_what_has_not() -> None:
    a, b = ended(), unended()
    done, not_done = wait([a, b, a, b], timeout=0)
    assert (done, not_done) == ({a}, {b})
    assert wait([], timeout=0) == (set(), set())
    end(b, Completed(data=1))
    assert wait(future for future in (a, b)).done == {a, b}


def test_as_completed_looks_once_when_the_limit_is_zero() -> None:
    a, b, c = ended(), unended(), ended()
    seen: list[Any] = []
    with pytest.raises(TimeoutError, match=r"1 \(of 3\) futures unfinished"):
        seen.extend(as_completed([a, b, c, a], timeout=0))
    seen = []
    iterator = as_completed([a, b, c, a], timeout=0)
    with pytest.raises(TimeoutError):
        while True:
            seen.append(next(iterator))
    assert seen == [a, c]


def test_as_completed_gives_futures_in_the_order_in_which_they_end(in_thread: Any) -> None:
    futures = [unended() for _ in range(4)]
    order = [2, 0, 3, 1]
    taken = threading.Semaphore(1)

    def ending() -> None:
        for i in order:
            assert taken.acquire(timeout=60)
            end(futures[i], Completed(data=i))

    in_thread(ending)
    seen: list[int] = []
    for future in as_completed([*futures, futures[0]]):
        seen.append(future.result())
        taken.release()
    assert seen == order


def test_as_completed_yields_each_once_while_callbacks_race_with_endings(in_thread: Any) -> None:
    rounds = 10_000
    futures = [unended() for _ in range(rounds)]
    go = threading.Event()

    def ending() -> None:
        go.wait()
        for future in futures:
            end(future, Completed(data=1))

    in_thread(ending)
    go.set()
    seen: list[HeadraceFuture[Any]] = []
    # Small groups, so that some have ended before they are looked at, some while, and some after.
    for at in range(0, rounds, 10):
        seen.extend(as_completed(futures[at : at + 10], timeout=60))
    assert len(seen) == rounds
    assert set(seen) == set(futures)


def test_a_list_gives_results_in_order_and_fills_every_place() -> None:
    a, b = ended("a"), ended("b")
    assert HeadraceFutureList([b, a, b]).result() == ["b", "a", "b"]
    assert HeadraceFutureList([]).result() == []


def test_a_list_raises_the_first_failure_to_end_at_once(in_thread: Any) -> None:
    early, late, never = unended(), unended(), unended()
    futures = HeadraceFutureList([never, late, early])
    end(early, Failed(data=KeyError("early")))
    with pytest.raises(KeyError, match="early"):
        futures.result()
    end(late, Failed(data=ValueError("late")))
    end(never, Completed(data=1))
    first, second, third = futures.result(raise_on_failure=False)
    assert first == 1
    assert isinstance(second, ValueError)
    assert isinstance(third, KeyError)


def test_a_list_has_one_limit_for_all_of_its_futures() -> None:
    with pytest.raises(TimeoutError, match=r"2 \(of 3\)"):
        HeadraceFutureList([ended(), unended(), unended()]).result(timeout=0)
    started = time.monotonic()
    HeadraceFutureList([unended(), unended()]).wait(timeout=0.01)
    assert time.monotonic() - started < 5
