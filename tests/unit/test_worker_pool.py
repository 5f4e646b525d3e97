"""The threads behind a thread pool task runner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from headrace.execution.threads import WorkerPool

LONG = 30


class Jobs:
    """Jobs that can be held, and that count how many of them run."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._released = False
        self.done: list[Any] = []
        self.inside = 0
        self.most_inside = 0

    def job(self, name: Any = None, held: bool = False) -> Callable[[], None]:
        def run() -> None:
            with self._changed:
                self.inside += 1
                self.most_inside = max(self.most_inside, self.inside)
                self._changed.notify_all()
                if held:
                    assert self._changed.wait_for(lambda: self._released, LONG)
                self.inside -= 1
                self.done.append(name)
                self._changed.notify_all()

        return run

    def await_inside(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.inside >= count, LONG)

    def await_done(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.done) >= count, LONG)

    def release(self) -> None:
        with self._changed:
            self._released = True
            self._changed.notify_all()


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.release()


@pytest.fixture
def pool_of() -> Iterator[Callable[..., WorkerPool]]:
    pools: list[WorkerPool] = []

    def make(workers: int, **options: Any) -> WorkerPool:
        pools.append(WorkerPool(workers, "test", **options))
        return pools[-1]

    before = threading.active_count()
    yield make
    for pool in pools:
        pool.close()
    assert threading.active_count() == before


def test_one_worker_runs_jobs_in_order(pool_of: Any, jobs: Jobs) -> None:
    pool = pool_of(1)
    for i in range(100):
        pool.put(jobs.job(i))
    jobs.await_done(100)
    assert jobs.done == list(range(100))
    assert jobs.most_inside == 1


@pytest.mark.parametrize("workers", [2, 7, 100])
def test_as_many_long_jobs_run_at_once_as_there_are_workers(pool_of: Any, jobs: Jobs, workers: int) -> None:
    pool = pool_of(workers)
    for i in range(workers + 5):
        pool.put(jobs.job(i, held=True))
    jobs.await_inside(workers)
    assert pool.is_saturated
    jobs.release()
    jobs.await_done(workers + 5)
    assert jobs.most_inside == workers


def test_a_job_in_the_queue_can_be_taken_back_and_a_running_one_cannot(pool_of: Any, jobs: Jobs) -> None:
    pool = pool_of(1)
    running, queued, last = jobs.job("running", held=True), jobs.job("queued"), jobs.job("last")
    pool.put(running)
    jobs.await_inside(1)
    pool.put(queued)
    pool.put(last)
    assert pool.take_back(queued)
    assert not pool.take_back(queued)
    assert not pool.take_back(running)
    jobs.release()
    jobs.await_done(2)
    assert jobs.done == ["running", "last"]


def test_a_blocked_job_leaves_its_place_and_takes_it_again(pool_of: Any, jobs: Jobs) -> None:
    pool = pool_of(1)
    order: list[str] = []
    inner_done = threading.Event()

    def outer() -> None:
        order.append("outer")
        pool.put(inner)
        pool.put(jobs.job("after"))
        with pool.blocked():
            assert inner_done.wait(LONG)
        order.append("outer again")
        assert jobs.inside == 0, "nothing else runs meanwhile"

    def inner() -> None:
        order.append("inner")
        inner_done.set()

    pool.put(outer)
    jobs.await_done(1)
    pool.close()
    assert order == ["outer", "inner", "outer again"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_blocked_jobs_go_on_before_new_ones_begin(pool_of: Any) -> None:
    pool = pool_of(1)
    order: list[str] = []
    go = threading.Event()
    inside = threading.Event()
    finished = threading.Event()

    def outer() -> None:
        with pool.blocked():
            assert inside.wait(LONG)
        order.append("resumed")

    def held() -> None:
        inside.set()
        assert go.wait(LONG)
        order.append("held")

    def last() -> None:
        order.append("last")
        finished.set()

    for job in (outer, held, last):
        pool.put(job)
    assert inside.wait(LONG)
    until(lambda: pool._resuming == 1)
    go.set()
    assert finished.wait(LONG)
    assert order == ["held", "resumed", "last"]


def test_closing_waits_for_everything(jobs: Jobs) -> None:
    pool = WorkerPool(3, "test")
    for i in range(50):
        pool.put(jobs.job(i))
    pool.close()
    assert sorted(jobs.done) == list(range(50))
    with pytest.raises(RuntimeError, match="closed"):
        pool.put(jobs.job())


def test_idle_threads_are_used_again(pool_of: Any, jobs: Jobs) -> None:
    pool = pool_of(50)
    for i in range(200):
        pool.put(jobs.job(i))
        jobs.await_done(i + 1)
    assert pool._started <= 2


def test_what_is_around_the_jobs_is_entered_once_per_thread(pool_of: Any, jobs: Jobs) -> None:
    entered: list[str] = []

    @contextmanager
    def around() -> Iterator[None]:
        entered.append("in")
        yield
        entered.append("out")

    pool = pool_of(1, around=around)
    for i in range(3):
        pool.put(jobs.job(i))
    jobs.await_done(3)
    pool.close()
    assert entered == ["in", "out"]


def test_when_the_system_gives_no_more_threads_those_that_exist_do_the_work(
    pool_of: Any, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(10)
    started: list[int] = []
    start = threading.Thread.start

    def scarce(thread: threading.Thread) -> None:
        if len(started) >= 2:
            raise RuntimeError("can't start new thread")
        started.append(1)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    for i in range(6):
        pool.put(jobs.job(i, held=True))
    jobs.await_inside(2)
    jobs.release()
    jobs.await_done(6)
    assert jobs.most_inside == 2


def test_without_a_single_thread_putting_a_job_fails(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    pool = WorkerPool(1, "test")
    job = jobs.job()
    with pytest.raises(RuntimeError, match="start new thread"):
        pool.put(job)
    assert not pool.take_back(job), "it is not kept for later either"


def test_many_threads_putting_at_once_lose_nothing(pool_of: Any, jobs: Jobs) -> None:
    pool = pool_of(8)
    together = threading.Barrier(4, timeout=LONG)

    def put_many(at: int) -> None:
        together.wait()
        for i in range(500):
            pool.put(jobs.job((at, i)))

    threads = [threading.Thread(target=put_many, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    jobs.await_done(2_000)
    assert len(set(jobs.done)) == 2_000
