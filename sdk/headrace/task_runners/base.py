"""What every task runner has, and what those have that run tasks with a pool of threads."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, overload

from headrace.execution import api
from headrace.execution.mapping import spread
from headrace.execution.submissions import NOT_STARTED, Bell, PoolHelp, Submission
from headrace.execution.threads import WorkerPool
from headrace.futures import HeadraceFuture, HeadraceFutureList, current_helper, helped_by
from headrace.utilities.typevars import TypeVar

if TYPE_CHECKING:
    from headrace.engine.tasks import TaskCall
    from headrace.tasks import Task

__all__ = ["PoolTaskRunner", "TaskRunner", "logger"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=HeadraceFuture[Any], default=HeadraceFuture[Any])

logger = logging.getLogger("headrace.task_runners")


class TaskRunner(ABC, Generic[F]):
    """Executes the tasks that a flow run submits, while it is entered as a context manager."""

    def __init__(self) -> None:
        self._is_started = False

    @property
    def name(self) -> str:
        """What people see, e.g. `threadpool`."""
        return type(self).__name__.lower().removesuffix("taskrunner")

    @abstractmethod
    def duplicate(self) -> Self:
        """A runner with the same configuration that has not been started."""

    @abstractmethod
    def submit(
        self,
        task: Task[..., Any],
        parameters: Mapping[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: Mapping[str, list[str]] | None = None,
    ) -> F:
        """Run a task soon, without waiting for it.

        Args:
            task: the task.
            parameters: its arguments by parameter name; futures in them are waited for.
            wait_for: futures and states that must complete first.
            dependencies: further edges to record: run ids, by parameter.

        Raises:
            RuntimeError: the runner is not started.
        """

    def map(
        self,
        task: Task[..., Any],
        parameters: Mapping[str, Any],
        wait_for: Iterable[Any] | None = None,
    ) -> HeadraceFutureList[Any]:
        """Submit the task once for each item of what can be iterated over in `parameters`.

        Raises:
            MappingMissingIterable: nothing can be iterated over.
            MappingLengthMismatch: the iterables have different lengths.
            UpstreamTaskError: an upstream whose result should have been spread did not complete.
            RuntimeError: the runner is not started.
        """
        calls = spread(task.binder.signature, parameters)
        return HeadraceFutureList(
            [self.submit(task, task.binder.complete(call), wait_for, calls.edges) for call in calls.calls]
        )

    @abstractmethod
    def cancel_all(self) -> None:
        """End every task run CANCELLED whose body has not been entered, and every wait for a next try."""

    def interrupt_all(self, within_seconds: float) -> None:
        """`cancel_all`, and interrupt the bodies that run: their flow run is being cancelled. Any thread.

        A runner that cannot interrupt what runs leaves it at `cancel_all`.

        Args:
            within_seconds: how long leaving the runner may then wait for those that do not end.
        """
        self.cancel_all()

    def is_own_thread(self) -> bool:
        """Whether a task of this runner runs in this thread."""
        return False

    def __enter__(self) -> Self:
        if self._is_started:
            raise RuntimeError("This task runner is already started")
        self._is_started = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_started = False

    def _check_started(self) -> None:
        if not self._is_started:
            raise RuntimeError("Task runner is not started")


class PoolTaskRunner(TaskRunner[HeadraceFuture[Any]]):
    """Gives each running task a thread of this process, which executes it, or has it executed.

    Args:
        max_workers: how many tasks run at once; None: as many as there are threads.

    Raises:
        ValueError: `max_workers` is less than 1.
    """

    def __init__(self, max_workers: int | None) -> None:
        super().__init__()
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, got {max_workers}")
        self._max_workers = max_workers
        self._lock = threading.Lock()
        self._all_ended = threading.Condition(self._lock)
        self._unended: dict[HeadraceFuture[Any], Submission] = {}
        self._pool: WorkerPool | None = None
        self._cancelled = Bell()
        self._abandon_at: float | None = None

    @property
    def max_workers(self) -> int | None:
        """How many tasks run at once; None: no limit."""
        return self._max_workers

    def _limit(self) -> int | None:
        """How many tasks run at once, once it is started; None: no limit."""
        return self._max_workers

    def _has_begun(self, submission: Submission) -> bool:
        """Whether the body may have been entered."""
        return submission.has_started

    @abstractmethod
    def _thread_count(self) -> int:
        """How many threads there may be."""

    @abstractmethod
    def _execute(self, call: TaskCall) -> None:
        """Take a task run to its end; called in a thread of the pool, in the context of the submission.

        Raises:
            BaseException: what the body ended with, if it was ended from outside.
        """

    def _nested(self, call: TaskCall) -> None:
        """A task of this runner is about to submit `call`."""

    @overload
    def submit(
        self,
        task: Task[P, Coroutine[Any, Any, R]],
        parameters: Mapping[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: Mapping[str, list[str]] | None = None,
    ) -> HeadraceFuture[R]: ...
    @overload
    def submit(
        self,
        task: Task[P, R],
        parameters: Mapping[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: Mapping[str, list[str]] | None = None,
    ) -> HeadraceFuture[R]: ...
    def submit(
        self,
        task: Any,
        parameters: Mapping[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: Mapping[str, list[str]] | None = None,
    ) -> HeadraceFuture[Any]:
        self._check_started()
        call = api.begin_task_run(task, parameters, wait_for=wait_for, dependencies=dependencies)
        is_nested = self.is_own_thread()
        if is_nested:
            self._nested(call)
        submission = Submission(call, self._threads(), self._execute, is_nested, self._has_ended)
        with self._lock:
            self._unended[submission.future] = submission
        submission.start()
        return submission.future

    def cancel_all(self) -> None:
        with self._lock:
            everything = list(self._unended.values())
        self._cancelled.ring()
        self._cancel(everything)

    def interrupt_all(self, within_seconds: float) -> None:
        self.cancel_all()
        with self._all_ended:
            running = [one for one in self._unended.values() if one.has_started]
            if self._abandon_at is None:
                self._abandon_at = time.monotonic() + within_seconds
                self._all_ended.notify_all()
        for submission in running:
            submission.interrupt()

    def _has_abandoned(self) -> bool:
        """Wait until all have ended; whether those that have not are left to themselves."""
        with self._all_ended:
            while self._unended:
                left = None if self._abandon_at is None else self._abandon_at - time.monotonic()
                if left is not None and left <= 0:
                    return True
                self._all_ended.wait(left)
        return False

    def __enter__(self) -> Self:
        super().__enter__()
        pool = WorkerPool(
            self._thread_count(),
            f"headrace-{self.name}",
            lambda: helped_by(PoolHelp(pool, self._unended, self._cancelled)),
        )
        self._pool = pool
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pool = self._threads()
        try:
            if exc is None or isinstance(exc, Exception):
                self._cancel(self._beyond_the_workers())
            else:
                self.cancel_all()
            if self._has_abandoned():
                logger.warning("%s task runs do not end: they are left to themselves.", len(self._unended))
                pool.close(wait=False)
                return
        except BaseException:
            # A second Ctrl-C, say: what still runs is left to itself.
            self.cancel_all()
            pool.close(wait=False)
            raise
        finally:
            super().__exit__(exc_type, exc, traceback)
        pool.close()

    def is_own_thread(self) -> bool:
        helper = current_helper()
        return isinstance(helper, PoolHelp) and helper.pool is self._pool

    def _threads(self) -> WorkerPool:
        if self._pool is None:
            raise RuntimeError("Task runner is not started")
        return self._pool

    def _has_ended(self, submission: Submission) -> None:
        with self._lock:
            self._unended.pop(submission.future, None)
            if not self._unended:
                self._all_ended.notify_all()

    def _beyond_the_workers(self) -> list[Submission]:
        """The submissions for which there would be no worker if each had taken one when it was made."""
        limit = self._limit()
        if limit is None:
            return []
        with self._lock:
            unstarted = [
                submission for submission in self._unended.values() if not self._has_begun(submission)
            ]
            places = limit - (len(self._unended) - len(unstarted))
        return unstarted[max(places, 0) :]

    def _cancel(self, submissions: list[Submission]) -> None:
        # All are withdrawn before the first one is ended, lest a place that becomes free meanwhile is taken
        # by one of them; the last first, because what depends on a run was submitted after it.
        for submission in [one for one in reversed(submissions) if one.withdraw()]:
            submission.end_cancelled(NOT_STARTED)
