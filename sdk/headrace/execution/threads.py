"""Threads that run the submitted tasks of one flow run.

A pool grows while jobs wait and nobody is free, one thread at a time and from the newest thread on, and only
while that helps: jobs that are over at once and do nothing but compute are done by one thread, because more
of them would only fight for the interpreter; a thousand long ones get a thousand threads within about a
second. A thread that waits for another job of the pool does not count as busy, so a job that waits for jobs
it has submitted cannot starve them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, TypeAlias

__all__ = ["Job", "WorkerPool"]

Job: TypeAlias = Callable[[], None]
"""What a thread runs. It must not raise."""

_PATIENCE_SECONDS: Final = 0.001
"""How long a thread that comes looks on while others are at work, before it looks whether they get on."""


class WorkerPool:
    """Runs jobs in threads, first come, first served, but for urgent ones.

    Args:
        max_workers: how many jobs run at once at most.
        name: what the names of the threads begin with.
        around: makes what each thread enters round all its jobs.
    """

    def __init__(
        self,
        max_workers: int,
        name: str,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._max_workers = max_workers
        self._name = name
        self._around = around
        self._lock = threading.Lock()
        self._work_for_idle = threading.Condition(self._lock)
        self._slot_for_resuming = threading.Condition(self._lock)
        self._standstill = threading.Condition(self._lock)
        self._urgent: OrderedDict[Job, None] = OrderedDict()
        self._queue: OrderedDict[Job, None] = OrderedDict()
        self._threads: set[threading.Thread] = set()
        self._started = 0
        self._coming = 0
        self._idle = 0
        self._running = 0
        self._taken = 0
        self._resuming = 0
        self._closing = False

    def put(self, job: Job, *, is_urgent: bool = False) -> None:
        """Run `job` as soon as a thread is free.

        Args:
            job: what to run.
            is_urgent: before the jobs that are not. What running jobs wait for has to be, or each job that
                waits would let another one begin that waits as well, without end.

        Raises:
            RuntimeError: the pool is closed, or no thread at all can be started.
        """
        with self._lock:
            if self._closing:
                raise RuntimeError("The pool is closed.")
            queue = self._urgent if is_urgent else self._queue
            queue[job] = None
            try:
                self._find_a_thread()
            except RuntimeError:
                del queue[job]
                raise

    def take_back(self, job: Job) -> bool:
        """Remove a job from the queue; False when a thread has it already."""
        with self._lock:
            return self._queue.pop(job, self) is None or self._urgent.pop(job, self) is None

    @property
    def is_saturated(self) -> bool:
        """Whether a job that is put now has to wait for another one."""
        with self._lock:
            return self._running + self._coming >= self._max_workers

    @contextmanager
    def blocked(self) -> Generator[None]:
        """For a thread of the pool: while inside it leaves its place to another one.

        Going on afterwards, it has precedence over jobs in the queue.
        """
        with self._lock:
            self._running -= 1
            self._hand_over()
        try:
            yield
        finally:
            with self._lock:
                self._resuming += 1
                while self._running >= self._max_workers:
                    self._slot_for_resuming.wait()
                self._resuming -= 1
                self._running += 1
                self._hand_over()

    def close(self, *, wait: bool = True) -> None:
        """Let the threads end when the queue is empty, and wait for that."""
        with self._lock:
            self._closing = True
            self._wake_all()
        while wait and (thread := self._a_thread()) is not None:
            thread.join()

    def _a_thread(self) -> threading.Thread | None:
        with self._lock:
            return self._threads.pop() if self._threads else None

    def _wake_all(self) -> None:
        self._coming, self._idle = self._coming + self._idle, 0
        self._work_for_idle.notify_all()

    def _hand_over(self) -> None:
        """A place has become free."""
        self._standstill.notify()
        if self._resuming:
            self._slot_for_resuming.notify()
        else:
            self._find_a_thread()

    def _find_a_thread(self) -> None:
        # One at a time: the thread that comes looks for the next one when it has taken its job. Threads that
        # are woken all at once would only wait for each other.
        if not self._has_jobs() or self._coming or self._running >= self._max_workers:
            return
        if self._idle:
            self._idle -= 1
            self._coming += 1
            self._work_for_idle.notify()
        else:
            self._start_thread()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._thread_main, name=f"{self._name}-{self._started}", daemon=True)
        self._started += 1
        self._coming += 1
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            # The system gives no more threads: those that exist do all the work, if there are any.
            self._coming -= 1
            self._threads.discard(thread)
            if not self._threads:
                raise

    def _thread_main(self) -> None:
        with self._around():
            self._serve()

    def _look_on(self) -> None:
        """Wait for as long as those at work get on without this thread.

        They do when they take one job after the other and the processor is what they need: more threads would
        be in their way. Jobs that wait for something are better done side by side.
        """
        while self._has_jobs() and self._running:
            taken, cpu, begin = self._taken, time.process_time(), time.monotonic()
            self._standstill.wait(_PATIENCE_SECONDS)
            is_computing = time.process_time() - cpu > (time.monotonic() - begin) / 2
            if self._taken == taken or not is_computing:
                return

    def _serve(self) -> None:
        with self._lock:
            self._look_on()
            self._coming -= 1
            while (job := self._next_job()) is not None:
                self._running += 1
                self._find_a_thread()
                self._lock.release()
                try:
                    job()
                finally:
                    # A job must not be kept alive by the thread that ran it.
                    del job
                    self._lock.acquire()
                    self._running -= 1
                    if self._resuming:
                        self._slot_for_resuming.notify()

    def _has_jobs(self) -> bool:
        return bool(self._urgent or self._queue)

    def _next_job(self) -> Job | None:
        while not self._has_jobs() or self._resuming or self._running >= self._max_workers:
            if self._closing and not self._has_jobs():
                self._wake_all()
                return None
            self._idle += 1
            self._work_for_idle.wait()
            self._look_on()
            self._coming -= 1
        self._taken += 1
        return (self._urgent or self._queue).popitem(last=False)[0]
