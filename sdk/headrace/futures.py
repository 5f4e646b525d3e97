"""Results that are still being made: what `submit` and `map` hand out.

    future = fetch.submit(url)
    rows = future.result()

A future can be waited for from any thread, and after its flow has ended. Its methods are always plain
ones: inside a coroutine they block the loop they are called on, never the one the task runs on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, overload

from headrace.states import Pending, State
from headrace.utilities.collections import Traversal
from headrace.utilities.typevars import TypeVar

if TYPE_CHECKING:
    from headrace.execution.deferring import HeadraceDistributedFuture as HeadraceDistributedFuture
    from headrace.runs import TaskRun

__all__ = [
    "DoneAndNotDone",
    "DoneAndNotDoneFutures",
    "HeadraceDistributedFuture",
    "HeadraceFuture",
    "HeadraceFutureList",
    "Helper",
    "as_completed",
    "current_helper",
    "helped_by",
    "resolve_futures_to_results",
    "resolve_futures_to_states",
    "wait",
]

R = TypeVar("R", default=Any, covariant=True)
V = TypeVar("V", default=Any)
T = TypeVar("T")

Blocked: TypeAlias = Callable[[], AbstractContextManager[None]]

_logger = logging.getLogger(__name__)


class Helper(Protocol):
    """What a task runner does for a thread of its own that is about to wait for a future."""

    def owns(self, future: HeadraceFuture[Any]) -> bool:
        """Whether the future's task has been submitted to this task runner and has not ended."""
        ...

    def run_if_queued(self, future: HeadraceFuture[Any]) -> None:
        """Run the task of `future` here and now, if it waits only for a free thread."""
        ...

    def blocked(self) -> AbstractContextManager[None]:
        """While inside, the thread does not count as busy, so that another may take its place."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            concurrent.futures.CancelledError: at once when the task runner is told to cancel everything.
        """
        ...

    async def asleep(self, seconds: float) -> None:
        """The async twin of `sleep`."""
        ...


def __getattr__(name: str) -> Any:
    if name != "HeadraceDistributedFuture":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Loaded by its first use: it talks to a server, which this module knows nothing of.
    found = import_module("headrace.execution.deferring").HeadraceDistributedFuture
    globals()[name] = found
    return found


class _Here(threading.local):
    helper: Helper | None = None


_here = _Here()


@contextmanager
def helped_by(helper: Helper) -> Generator[None]:
    """In this thread, waiting for futures goes through `helper` while inside."""
    _here.helper = helper
    try:
        yield
    finally:
        _here.helper = None


def current_helper() -> Helper | None:
    """The helper of this thread; None in a thread that belongs to no task runner."""
    return _here.helper


class HeadraceFuture(Generic[R]):
    """The result of a task run that was submitted. Equal to itself only."""

    __slots__ = ("__weakref__", "_callbacks", "_done", "_exit", "_lock", "_run")

    def __init__(self, run: TaskRun) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._done = False
        self._exit: BaseException | None = None
        self._callbacks: list[Callable[[Any], object]] = []

    @property
    def task_run_id(self) -> str:
        """The task run."""
        return self._run.id

    @property
    def state(self) -> State[R]:
        """The newest state of the task run; PENDING before its first one."""
        return self._run.state or Pending()

    def done(self) -> bool:
        """Whether nothing more will happen to the run; its state may be `NotReady`, which is not final."""
        return self._done

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the run has ended, or until `timeout` seconds have passed.

        Raises:
            SystemExit: the body left with it.
            ValueError: `timeout` is negative.
        """
        self.join(timeout)
        if self._exit is not None:
            raise self._exit

    def join(self, timeout: float | None = None) -> None:
        """Like `wait`, and raises nothing of what the body ended with."""
        deadline = _Deadline(timeout)
        if not self._done:
            with _helped([self], timeout)():
                self._block(deadline)

    def _block(self, deadline: _Deadline) -> None:
        # A bare lock, because a `Condition` costs more than a small task, and an untimed wait for a lock
        # can be interrupted by signals.
        waiter = threading.Lock()
        waiter.acquire()

        def wake(_: object) -> None:
            waiter.release()

        if self._call_later(wake) and not waiter.acquire(timeout=deadline.left(-1)):
            self.forget(wake)

    @overload
    def result(self, timeout: float | None = None, raise_on_failure: Literal[True] = True) -> R: ...
    @overload
    def result(self, timeout: float | None = None, *, raise_on_failure: bool) -> R | BaseException: ...
    @overload
    def result(self, timeout: float | None, raise_on_failure: bool) -> R | BaseException: ...
    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """Wait for the run, and give its result.

        Args:
            timeout: seconds to wait at most; None: until it ends.
            raise_on_failure: raise the exception of a run that did not complete; else return it.

        Raises:
            TimeoutError: the run has not ended in time.
            UnfinishedRun: the run will not start, because an upstream did not complete.
            BaseException: the run's own exception.
        """
        self.wait(timeout)
        if not self._done:
            raise TimeoutError(f"Task run '{self.task_run_id}' did not end within {timeout:g} seconds.")
        return self.state.result(raise_on_failure, _sync=True)

    def add_done_callback(self, fn: Callable[[HeadraceFuture[Any]], object]) -> None:
        """Call `fn` with this future when the run has ended, at once if it has.

        Called in the thread that ended the run. What it raises is logged, and changes nothing.
        """
        if not self._call_later(fn):
            self._call(fn)

    def finish(self, error: BaseException | None = None) -> None:
        """Say that nothing more happens to the run; for task runners. Only the first call counts.

        Args:
            error: what the body ended with; a `SystemExit` is raised again by those who wait.
        """
        with self._lock:
            if self._done:
                return
            if isinstance(error, SystemExit):
                self._exit = error
            self._done = True
            callbacks, self._callbacks = self._callbacks, []
        for fn in callbacks:
            self._call(fn)

    def _call_later(self, fn: Callable[[Any], object]) -> bool:
        with self._lock:
            if not self._done:
                self._callbacks.append(fn)
            return not self._done

    def forget(self, fn: Callable[[Any], object]) -> None:
        """Take back `add_done_callback(fn)`, if it has not been called yet."""
        with self._lock:
            if fn in self._callbacks:
                self._callbacks.remove(fn)

    def _call(self, fn: Callable[[Any], object]) -> None:
        try:
            fn(self)
        except Exception:
            _logger.exception("A done callback of task run '%s' failed.", self.task_run_id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(task_run_id={self.task_run_id!r}, state={self.state})"


class HeadraceFutureList(list[HeadraceFuture[V]]):
    """What `map` hands out: futures in the order of the items."""

    __rebuilds_as__ = list
    """With its futures replaced by something else, it becomes a plain list (see `Traversal`)."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until every run has ended, or until `timeout` seconds have passed."""
        wait(self, timeout)

    @overload
    def result(self, timeout: float | None = None, raise_on_failure: Literal[True] = True) -> list[V]: ...
    @overload
    def result(self, timeout: float | None = None, *, raise_on_failure: bool) -> list[V | BaseException]: ...
    @overload
    def result(self, timeout: float | None, raise_on_failure: bool) -> list[V | BaseException]: ...
    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """Wait for all, and give their results in order.

        Args:
            timeout: seconds to wait at most for all of them; None: until they end.
            raise_on_failure: raise the exception of the first run that ends without completing, at once;
                else exceptions sit in their places.

        Raises:
            TimeoutError: not all have ended in time.
        """
        for future in as_completed(self, timeout):
            if raise_on_failure:
                future.result()
        return [future.result(raise_on_failure=raise_on_failure) for future in self]


class DoneAndNotDone(NamedTuple):
    """What `wait` gives."""

    done: set[HeadraceFuture[Any]]
    not_done: set[HeadraceFuture[Any]]


DoneAndNotDoneFutures = DoneAndNotDone

_FUTURES = Traversal(HeadraceFuture)


def resolve_futures_to_states(expr: Any) -> Any:
    """`expr` with every future in it replaced by its state, once it has ended; not inside `quote`."""
    return _FUTURES.substitute(expr, _state_of, keep_annotations=True)


def resolve_futures_to_results(expr: Any) -> Any:
    """`expr` with every future in it replaced by its result, once it has ended; not inside `quote`.

    Raises:
        BaseException: what one of them has failed with.
    """
    return _FUTURES.substitute(expr, lambda future, _: future.result(), keep_annotations=True)


def _state_of(future: HeadraceFuture[Any], _: bool) -> State[Any]:
    future.join()
    return future.state


def wait(futures: Iterable[HeadraceFuture[Any]], timeout: float | None = None) -> DoneAndNotDone:
    """Wait until all `futures` have ended, or until `timeout` seconds have passed; 0 looks once.

    Raises:
        SystemExit: one of the bodies left with it.
        ValueError: `timeout` is negative.
    """
    every = dict.fromkeys(futures)
    done: set[HeadraceFuture[Any]] = set()
    for future in _ending(every, _Deadline(timeout), timeout):
        future.wait()
        done.add(future)
    return DoneAndNotDone(done, every.keys() - done)


def as_completed(
    futures: Iterable[HeadraceFuture[R]], timeout: float | None = None
) -> Iterator[HeadraceFuture[R]]:
    """The futures in the order in which their runs end, each once however often it was given.

    Args:
        futures: what to wait for.
        timeout: seconds from this call for all of them; 0 gives those that have ended.

    Raises:
        TimeoutError: from the iterator, when `timeout` has passed and some have not ended.
        ValueError: `timeout` is negative.
    """
    return _as_completed(dict.fromkeys(futures), _Deadline(timeout), timeout)


def _as_completed(
    futures: dict[HeadraceFuture[R], None], deadline: _Deadline, timeout: float | None
) -> Iterator[HeadraceFuture[R]]:
    missing = len(futures)
    for future in _ending(futures, deadline, timeout):
        missing -= 1
        yield future
    if missing:
        raise TimeoutError(f"{missing} (of {len(futures)}) futures unfinished")


def _ending(
    futures: dict[HeadraceFuture[R], None], deadline: _Deadline, timeout: float | None
) -> Iterator[HeadraceFuture[R]]:
    """The futures as they end, until the deadline; those that have ended already come first."""
    ended: SimpleQueue[HeadraceFuture[R]] = SimpleQueue()
    pending: list[HeadraceFuture[R]] = []
    for future in futures:
        if future.done():
            ended.put(future)
        else:
            pending.append(future)
            future.add_done_callback(ended.put)
    try:
        blocked = _helped(pending, timeout)
        for _ in futures:
            yield _next_of(ended, blocked, deadline)
    except Empty:
        return
    finally:
        for future in pending:
            future.forget(ended.put)


def _next_of(
    ended: SimpleQueue[HeadraceFuture[R]], blocked: Blocked, deadline: _Deadline
) -> HeadraceFuture[R]:
    try:
        return ended.get_nowait()
    except Empty:
        with blocked():
            return ended.get(timeout=deadline.left(None))


def _helped(futures: Iterable[HeadraceFuture[Any]], timeout: float | None) -> Blocked:
    """What a thread enters while it waits for `futures`.

    In a thread of a task runner, those of the futures that only wait for a free thread are run here first.
    """
    helper = _here.helper
    if helper is None or not any(map(helper.owns, futures)):
        return nullcontext
    if timeout is None:
        # Only without a limit: a task that runs here cannot be left when time is up.
        for future in futures:
            helper.run_if_queued(future)
    return helper.blocked


class _Deadline:
    """The end of a wait that may have a limit."""

    __slots__ = ("_at",)

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must not be negative, got {timeout!r}")
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self, unlimited: T) -> float | T:
        """Seconds until then, at least 0; `unlimited` when there is no limit."""
        return unlimited if self._at is None else max(0.0, self._at - time.monotonic())
