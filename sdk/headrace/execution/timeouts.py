"""Time limits for plain functions: an alarm on the main thread, a planted exception on the others.

Limits nest: the one that ends first, of all that are in force on the thread, is raised. An alarm handler
and a timer that were there before are put back when the last limit ends.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import FrameType
from typing import Any, Final

from headrace.engine.api import LimitPassed
from headrace.execution.interruption import plant

__all__ = ["AlarmLimit", "ThreadLimit", "blocking_limit"]

_log = logging.getLogger("headrace.timeouts")
_SOON: Final = 1e-6


def blocking_limit(
    seconds: float, error: TimeoutError, passed: Callable[[], object] | None = None
) -> AlarmLimit | ThreadLimit:
    """The limit that works on this thread: raises `error` inside once `seconds` have passed.

    Args:
        seconds: how long the inside may run.
        error: what is raised.
        passed: called when the time is up, if the inside cannot be interrupted at once.
    """
    if threading.current_thread() is threading.main_thread():
        return AlarmLimit(seconds, error)
    return ThreadLimit(seconds, error, passed)


class _Alarms:
    """The limits in force on the main thread, outermost first, over the process's one interval timer."""

    def __init__(self) -> None:
        self._limits: list[AlarmLimit] = []
        self._users_handler: Any = None
        self._users_deadline: float | None = None
        self._users_interval = 0.0

    def push(self, limit: AlarmLimit) -> None:
        if not self._limits:
            left, self._users_interval = signal.setitimer(signal.ITIMER_REAL, 0)
            self._users_deadline = time.monotonic() + left if left else None
            self._users_handler = signal.signal(signal.SIGALRM, self._ring)
        self._limits.append(limit)
        self._arm()

    def pop(self, limit: AlarmLimit) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._limits.remove(limit)
        if self._limits:
            self._arm()
            return
        signal.signal(signal.SIGALRM, signal.SIG_DFL if self._users_handler is None else self._users_handler)
        if self._users_deadline is not None:
            left = max(_SOON, self._users_deadline - time.monotonic())
            signal.setitimer(signal.ITIMER_REAL, left, self._users_interval)

    def _arm(self) -> None:
        due = [limit.deadline for limit in self._limits if limit.is_armed]
        if self._users_deadline is not None:
            due.append(self._users_deadline)
        if due:
            signal.setitimer(signal.ITIMER_REAL, max(_SOON, min(due) - time.monotonic()))

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        expired = next((limit for limit in self._limits if limit.is_armed and limit.deadline <= now), None)
        if expired is not None:
            expired.is_armed = False
            self._arm()
            raise expired.error
        if self._users_deadline is not None and self._users_deadline <= now:
            self._ring_users(signum, frame)
        self._arm()

    def _ring_users(self, signum: int, frame: FrameType | None) -> None:
        interval = self._users_interval
        self._users_deadline = time.monotonic() + interval if interval else None
        if callable(self._users_handler):
            self._users_handler(signum, frame)


_alarms: Final = _Alarms()


class AlarmLimit:
    """A limit on the main thread: SIGALRM interrupts whatever runs, `time.sleep` too.

    Attributes:
        deadline: when it ends, in seconds of `time.monotonic`.
        error: what it raises.
        is_armed: whether it can still raise.
    """

    def __init__(self, seconds: float, error: TimeoutError) -> None:
        self._seconds = seconds
        self.error = error
        self.deadline = 0.0
        self.is_armed = False

    async def __aenter__(self) -> None:
        self.deadline = time.monotonic() + self._seconds
        self.is_armed = True
        _alarms.push(self)

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> None:
        was_armed, self.is_armed = self.is_armed, False
        _alarms.pop(self)
        if error is None and (not was_armed or time.monotonic() >= self.deadline):
            raise self.error


class ThreadLimit:
    """A limit on another thread: takes effect when Python code runs again there.

    A C call that blocks, such as `time.sleep`, is not interrupted; the run is timed out once it returns.
    """

    def __init__(
        self, seconds: float, error: TimeoutError, passed: Callable[[], object] | None = None
    ) -> None:
        self._seconds = seconds
        self._error = error
        # It records: what tells it where to is in the context.
        here = copy_context()
        self._passed = None if passed is None else lambda: here.run(passed)
        self._lock = threading.Lock()
        self._done = False
        self._fired = False
        self._deadline = 0.0
        self._thread_id = threading.get_ident()
        # What is planted is a class, so each limit needs one of its own.
        self._interruption = type("LimitPassed", (LimitPassed,), {"error": error})
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True

    async def __aenter__(self) -> None:
        _warn_once()
        self._deadline = time.monotonic() + self._seconds
        self._timer.start()

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> None:
        # The interruption can strike anywhere in here; then it leaves in place of the error.
        with self._lock:
            self._done = True
            if self._fired:
                plant(self._thread_id, None)
        self._timer.cancel()
        if error is None and (self._fired or time.monotonic() >= self._deadline):
            raise self._error

    def _fire(self) -> None:
        with self._lock:
            if self._done:
                return
            self._fired = True
            if self._passed is not None:
                self._passed()
            plant(self._thread_id, self._interruption)


class _Warned:
    done = False


def _warn_once() -> None:
    if not _Warned.done:
        _Warned.done = True
        _log.warning(
            "A time limit on a worker thread cannot interrupt a blocking call, such as time.sleep: it takes "
            "effect when the call returns."
        )
