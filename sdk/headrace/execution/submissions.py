"""Submitted tasks on their way through the threads of a pool."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

from headrace.execution import api
from headrace.futures import HeadraceFuture

if TYPE_CHECKING:
    from headrace.engine.tasks import TaskCall
    from headrace.execution.threads import WorkerPool

__all__ = ["NOT_STARTED", "NO_THREAD", "Bell", "PoolHelp", "Submission"]

NOT_STARTED: Final = "Not run: the flow ended before it started."
NO_THREAD: Final = "Not run: no thread can be started."
_INLINE_DEPTH_MAX: Final = 20


class Submission:
    """A task run from its submission to its end; as a job of the pool, calling it runs the task.

    Args:
        call: the run and its arguments.
        pool: where it runs.
        execute: takes the run to its end.
        is_nested: whether a task that runs in the pool has submitted it.
        on_end: called when nothing more happens to the run.

    Attributes:
        future: of the result.
        has_started: whether a thread has taken it.
    """

    __slots__ = (
        "_call",
        "_execute",
        "_is_nested",
        "_is_withdrawn",
        "_lock",
        "_on_end",
        "_pool",
        "_unended_upstreams",
        "_variables",
        "future",
        "has_started",
    )

    def __init__(
        self,
        call: TaskCall,
        pool: WorkerPool,
        execute: Callable[[TaskCall], None],
        is_nested: bool,
        on_end: Callable[[Submission], None],
    ) -> None:
        self._call = call
        self._pool = pool
        self._execute = execute
        self._is_nested = is_nested
        self._on_end = on_end
        self._variables: Context = copy_context()
        self._lock = threading.Lock()
        self._unended_upstreams = 0
        self._is_withdrawn = False
        self.has_started = False
        self.future: HeadraceFuture[Any] = HeadraceFuture(call.run)

    def start(self) -> None:
        """Queue the run as soon as everything it depends on has ended, in whatever way.

        Raises:
            RuntimeError: no thread can be started; the run is CANCELLED.
        """
        upstreams = self._call.inputs.waits_for
        if upstreams:
            self._unended_upstreams = len(upstreams)
            for upstream in upstreams:
                upstream.add_done_callback(self._upstream_has_ended)
            return
        try:
            self._pool.put(self, is_urgent=self._is_nested)
        except RuntimeError:
            self.end_cancelled(NO_THREAD)
            raise

    def _upstream_has_ended(self, _: HeadraceFuture[Any]) -> None:
        with self._lock:
            self._unended_upstreams -= 1
            if self._unended_upstreams or self._is_withdrawn:
                return
            try:
                self._pool.put(self, is_urgent=self._is_nested)
                return
            except RuntimeError:
                self._is_withdrawn = True
        self.end_cancelled(NO_THREAD)

    def withdraw(self) -> bool:
        """See that the body is never entered; False when it has been."""
        with self._lock:
            if self._is_withdrawn:
                return False
            if not self._unended_upstreams and not self._pool.take_back(self):
                return False
            self._is_withdrawn = True
            return True

    def end_cancelled(self, message: str) -> None:
        """End a run CANCELLED whose body is never entered."""
        self._variables.run(api.cancel_task_run, self._call, message)
        self._end(None)

    def interrupt(self) -> None:
        """End a body that runs, if it can be interrupted: its flow run is being cancelled."""
        scope = self._call.context.scope
        if scope is not None:
            scope.interrupt()

    def run_here(self) -> None:
        """Run the task in this thread if it waits only for a free one."""
        if self._pool.take_back(self):
            self()

    def __call__(self) -> None:
        self.has_started = True
        error: BaseException | None = None
        try:
            self._variables.run(self._execute, self._call)
        except BaseException as raised:
            error = raised
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        # A future that is kept must not keep the arguments, and with them the futures before it.
        self._call.run.parameters = {}
        self.future.finish(error)
        self._on_end(self)


class Bell:
    """Rung once; those who sleep by it wake up."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self._lock = threading.Lock()
        self._sleepers: set[Callable[[], object]] = set()

    @property
    def is_rung(self) -> bool:
        """Whether it has been rung."""
        return self._rung.is_set()

    def ring(self) -> None:
        """Wake everybody who sleeps, and everybody who will."""
        with self._lock:
            self._rung.set()
            # Under the lock, so that no sleeper's loop is closed meanwhile.
            for wake in self._sleepers:
                wake()

    def sleep(self, seconds: float) -> bool:
        """Sleep that long, or until the bell rings; tells whether it has rung."""
        return self._rung.wait(seconds)

    async def asleep(self, seconds: float) -> bool:
        """The async twin of `sleep`."""
        loop = asyncio.get_running_loop()
        rung = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(rung.set)

        with self._lock:
            if self._rung.is_set():
                return True
            self._sleepers.add(wake)
        try:
            async with asyncio.timeout(seconds):
                await rung.wait()
            return True
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._sleepers.discard(wake)


class PoolHelp:
    """What a thread of the pool does while it waits for others; one for each thread.

    Args:
        pool: the thread's pool.
        unended: what was submitted to it and has not ended.
        cancelled: rung when no more time is to be spent.
    """

    def __init__(
        self, pool: WorkerPool, unended: Mapping[HeadraceFuture[Any], Submission], cancelled: Bell
    ) -> None:
        self.pool = pool
        self._unended = unended
        self._cancelled = cancelled
        self._depth = 0

    def owns(self, future: HeadraceFuture[Any]) -> bool:
        return future in self._unended

    def run_if_queued(self, future: HeadraceFuture[Any]) -> None:
        # A body that is called in place sees the loop of the coroutine that waits for it, which would make
        # awaitables of what should be values there; and stacks do not grow for ever.
        if self._depth >= _INLINE_DEPTH_MAX or _loop_runs_here():
            return
        submission = self._unended.get(future)
        if submission is not None:
            self._depth += 1
            try:
                submission.run_here()
            finally:
                self._depth -= 1

    @contextmanager
    def blocked(self) -> Generator[None]:
        with self.pool.blocked():
            yield

    def sleep(self, seconds: float) -> None:
        if self._cancelled.sleep(seconds):
            raise CancelledError

    async def asleep(self, seconds: float) -> None:
        if await self._cancelled.asleep(seconds):
            raise CancelledError


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
