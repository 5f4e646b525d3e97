"""How submitted tasks are executed.

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
    def load(urls: list[str]) -> None:
        fetch.map(urls).wait()

Every flow run has a runner of its own, a duplicate of the one its flow was given.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import Context, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, overload

from typing_extensions import ParamSpec, TypeVar

from headrace.execution import api
from headrace.execution.mapping import spread
from headrace.execution.threads import WorkerPool
from headrace.futures import HeadraceFuture, HeadraceFutureList, current_helper, helped_by
from headrace.settings import get_current_settings

if TYPE_CHECKING:
    from headrace.engine.tasks import TaskCall
    from headrace.tasks import Task

__all__ = ["ConcurrentTaskRunner", "TaskRunner", "ThreadPoolTaskRunner"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=HeadraceFuture[Any], default=HeadraceFuture[Any])

_THREADS_MAX: Final = 1000
_INLINE_DEPTH_MAX: Final = 20
_NOT_STARTED: Final = "Not run: the flow ended before it started."
_NO_THREAD: Final = "Not run: no thread can be started."

_logger = logging.getLogger(__name__)


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
        """End every task run whose body has not been entered CANCELLED."""

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


class ThreadPoolTaskRunner(TaskRunner[HeadraceFuture[Any]]):
    """Runs tasks in threads of this process.

    A `def` task runs in a thread; an `async def` task in an event loop of its own in a thread, so that it
    goes on while other code blocks its loop. A task takes a thread when everything it depends on has
    ended, not before. Each runs in a copy of the context variables of whoever submitted it.

    A task that waits for tasks which it has submitted itself gives its place up meanwhile, or runs them where
    it stands: one worker is enough for any nesting.

    When the body of the flow ends, as many tasks as there are workers are waited for, in the order of
    submission; those beyond them that have not started end CANCELLED. Without a limit all are waited for.

    Args:
        max_workers: how many tasks run at once. Default: the setting
            `tasks.runner.thread_pool.max_workers`, else no limit worth speaking of: 1000, or fewer where the
            process may not open that many files.

    Raises:
        ValueError: `max_workers` is less than 1.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__()
        if max_workers is None:
            max_workers = get_current_settings().tasks_runner_thread_pool_max_workers
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, got {max_workers}")
        self._max_workers = max_workers
        self._lock = threading.Lock()
        self._all_ended = threading.Condition(self._lock)
        self._unended: dict[HeadraceFuture[Any], _Submission] = {}
        self._pool: WorkerPool | None = None
        self._has_warned = False

    @property
    def max_workers(self) -> int | None:
        """How many tasks run at once; None: no limit."""
        return self._max_workers

    def duplicate(self) -> Self:
        return type(self)(self._max_workers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ThreadPoolTaskRunner):
            return NotImplemented
        return type(self) is type(other) and self._max_workers == other._max_workers

    def __hash__(self) -> int:
        return hash((type(self), self._max_workers))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_workers={self._max_workers})"

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
        submission = _Submission(self, call)
        if self.is_own_thread():
            self._warn_when_saturated(task.name)
        with self._lock:
            self._unended[submission.future] = submission
        try:
            submission.start_after(call.inputs.waits_for)
        except BaseException:
            api.cancel_task_run(call, _NO_THREAD)
            self.has_ended(submission)
            raise
        return submission.future

    def cancel_all(self) -> None:
        with self._lock:
            everything = list(self._unended.values())
        self._cancel(everything)

    def __enter__(self) -> Self:
        super().__enter__()
        workers = self._max_workers or _default_max_workers()
        self._pool = WorkerPool(workers, f"headrace-{self.name}", lambda: helped_by(_Help(self)))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc is None or isinstance(exc, Exception):
                self._cancel(self._beyond_the_workers())
            else:
                self.cancel_all()
            with self._all_ended:
                while self._unended:
                    self._all_ended.wait()
        except BaseException:
            self.cancel_all()
            raise
        finally:
            super().__exit__(exc_type, exc, traceback)
        if self._pool is not None:
            self._pool.close()

    def is_own_thread(self) -> bool:
        helper = current_helper()
        return isinstance(helper, _Help) and helper.runner is self

    def pool(self) -> WorkerPool:
        """The threads.

        Raises:
            RuntimeError: the runner is not started.
        """
        if self._pool is None:
            raise RuntimeError("Task runner is not started")
        return self._pool

    def submission_of(self, future: HeadraceFuture[Any]) -> _Submission | None:
        """What was submitted and has not ended."""
        return self._unended.get(future)

    def has_ended(self, submission: _Submission) -> None:
        """Said by a submission when nothing more will happen to its run."""
        with self._lock:
            self._unended.pop(submission.future, None)
            if not self._unended:
                self._all_ended.notify_all()

    def _beyond_the_workers(self) -> list[_Submission]:
        """The submissions for which there would be no worker if each had taken one when it was made."""
        if self._max_workers is None:
            return []
        with self._lock:
            unstarted = [submission for submission in self._unended.values() if not submission.has_started]
            places = self._max_workers - (len(self._unended) - len(unstarted))
        return unstarted[max(places, 0) :]

    def _cancel(self, submissions: list[_Submission]) -> None:
        # All are withdrawn before the first one is ended, lest a place that becomes free meanwhile is taken
        # by one of them; the last first, because what depends on a run was submitted after it.
        for submission in [one for one in reversed(submissions) if one.withdraw()]:
            submission.end_cancelled(_NOT_STARTED)

    def _warn_when_saturated(self, task_name: str) -> None:
        if self._has_warned or not self.pool().is_saturated:
            return
        self._has_warned = True
        _logger.warning(
            "Task '%s' was submitted from inside a task while all %s workers of the task runner are busy:"
            " it runs in the place of the task that waits for it. Give the task runner more `max_workers` to"
            " have both run at once.",
            task_name,
            self._max_workers or _default_max_workers(),
        )


ConcurrentTaskRunner = ThreadPoolTaskRunner


class _Submission:
    """A task run from its submission to its end; as a job of the pool, calling it runs the task."""

    __slots__ = (
        "_call",
        "_is_withdrawn",
        "_lock",
        "_runner",
        "_unended_upstreams",
        "_variables",
        "future",
        "has_started",
    )

    def __init__(self, runner: ThreadPoolTaskRunner, call: TaskCall) -> None:
        self._runner = runner
        self._call = call
        self._variables: Context = copy_context()
        self._lock = threading.Lock()
        self._unended_upstreams = 0
        self._is_withdrawn = False
        self.has_started = False
        self.future: HeadraceFuture[Any] = HeadraceFuture(call.run)

    def start_after(self, upstreams: list[HeadraceFuture[Any]]) -> None:
        """Queue the run as soon as all `upstreams` have ended, in whatever way."""
        if not upstreams:
            self._runner.pool().put(self)
            return
        self._unended_upstreams = len(upstreams)
        for upstream in upstreams:
            upstream.add_done_callback(self._upstream_has_ended)

    def _upstream_has_ended(self, _: HeadraceFuture[Any]) -> None:
        with self._lock:
            self._unended_upstreams -= 1
            if self._unended_upstreams or self._is_withdrawn:
                return
            try:
                self._runner.pool().put(self)
                return
            except RuntimeError:
                self._is_withdrawn = True
        self.end_cancelled(_NO_THREAD)

    def withdraw(self) -> bool:
        """See that the body is never entered; False when it has been."""
        with self._lock:
            if self._is_withdrawn:
                return False
            if not self._unended_upstreams and not self._runner.pool().take_back(self):
                return False
            self._is_withdrawn = True
            return True

    def end_cancelled(self, message: str) -> None:
        """End a run that was withdrawn."""
        self._variables.run(api.cancel_task_run, self._call, message)
        self._end(None)

    def run_here(self) -> None:
        """Run the task in this thread if it waits only for a free one."""
        if self._runner.pool().take_back(self):
            self()

    def __call__(self) -> None:
        self.has_started = True
        error: BaseException | None = None
        try:
            self._variables.run(self._execute)
        except BaseException as raised:
            error = raised
        self._end(error)

    def _execute(self) -> None:
        if self._call.context.task.isasync:
            asyncio.run(api.run_task_async(self._call))
        else:
            api.run_task_sync(self._call)

    def _end(self, error: BaseException | None) -> None:
        self.future.finish(error)
        self._runner.has_ended(self)


class _Help:
    """What a runner does for its own threads while they wait."""

    def __init__(self, runner: ThreadPoolTaskRunner) -> None:
        self.runner = runner
        self._depth = 0

    def owns(self, future: HeadraceFuture[Any]) -> bool:
        return self.runner.submission_of(future) is not None

    def run_if_queued(self, future: HeadraceFuture[Any]) -> None:
        # A body that is called in place sees the loop of the coroutine that waits for it, which would make
        # awaitables of what should be values there; and stacks do not grow for ever.
        if _loop_runs_here() or self._depth >= _INLINE_DEPTH_MAX:
            return
        submission = self.runner.submission_of(future)
        if submission is not None:
            self._depth += 1
            try:
                submission.run_here()
            finally:
                self._depth -= 1

    @contextmanager
    def blocked(self) -> Generator[None]:
        with self.runner.pool().blocked():
            yield


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _default_max_workers() -> int:
    """As many threads as do no harm: the event loop of an async task takes three file descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _THREADS_MAX if soft == resource.RLIM_INFINITY else max(1, min(_THREADS_MAX, soft // 4))
