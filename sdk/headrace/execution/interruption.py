"""Ending the body of a run from another thread: scopes that say what of it can be interrupted, and how.

Where a scope is open, `interrupt` makes its thread, or its coroutine, raise `Cancel` inside. What is struck
is whatever runs there: user code, as a rule; never the recorder, whose books must stay whole.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

import headrace.recorder
from headrace.engine.journal import Journal
from headrace.exceptions import Cancel

if TYPE_CHECKING:
    from headrace.context import RunContext

__all__ = [
    "LoopScope",
    "PassiveScope",
    "Scope",
    "ThreadScope",
    "plant",
    "signals_are_taken",
    "takes_signals",
    "was_for_scope",
]

_RECORDER: Final = str(Path(headrace.recorder.__file__).parent)
# What a run is and what is recorded of it change together there.
_WHOLE: Final = frozenset(method.__code__ for method in (Journal.begin, Journal.announce, Journal.enter))
_SOON_SECONDS: Final = 0.01


class Scope(Protocol):
    """A piece of a run that can be interrupted while it is open."""

    def interrupt(self) -> None:
        """End it, from any thread; nothing happens once it has closed, and nothing the second time."""
        ...


def plant(thread_id: int, error: type[BaseException] | None) -> None:
    """Have `error` raised in another thread as soon as Python code runs there again; None: not any more."""
    value = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), value)


# Signals: they interrupt what blocks the main thread, a sleep or a read.


class _Signals:
    """Whether SIGTERM on the main thread is ours, and which scopes it is for."""

    def __init__(self) -> None:
        self.is_taken = False
        self.is_sent = False
        self.wanted: list[ThreadScope] = []


_signals: Final = _Signals()


class takes_signals:
    """While inside, the handler of SIGTERM asks `was_for_scope`, so that it may be sent to this process."""

    def __enter__(self) -> None:
        _signals.is_taken = True

    def __exit__(self, *_: object) -> None:
        _signals.is_taken = False


def signals_are_taken() -> bool:
    """Whether SIGTERM is taken already, by a run further out."""
    return _signals.is_taken


def was_for_scope(frame: FrameType | None) -> bool:
    """For the handler of SIGTERM: whether the signal was sent by a scope, which then has no more to say.

    Raises:
        Cancel: the scope is open.
    """
    is_ours, _signals.is_sent = _signals.is_sent, False
    if _is_recording(frame):
        return is_ours  # it is sent again
    while _signals.wanted:
        scope = _signals.wanted.pop()
        if scope.is_open and not scope.is_struck:
            scope.is_struck = True
            raise Cancel
    return is_ours


def _frame_of(thread_id: int) -> FrameType | None:
    return sys._current_frames().get(thread_id)  # pyright: ignore[reportPrivateUsage]  # documented


def _is_recording(frame: FrameType | None) -> bool:
    """Whether a state is being put on record in a stack."""
    while frame is not None:
        if frame.f_code in _WHOLE or frame.f_code.co_filename.startswith(_RECORDER):
            return True
        frame = frame.f_back
    return False


class ThreadScope:
    """Plain code on the thread that opens it. A C call that blocks is interrupted on the main thread only.

    Attributes:
        is_open: whether it can still be interrupted.
        is_struck: whether it has been.
    """

    __slots__ = (
        "_context",
        "_is_asked",
        "_is_planted",
        "_lock",
        "_outer",
        "_thread_id",
        "is_open",
        "is_struck",
    )

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._thread_id = threading.get_ident()
        self._is_asked = self._is_planted = False
        self._outer: Scope | None = None
        self.is_open = self.is_struck = False

    def __enter__(self) -> None:
        self._outer, self._context.scope = self._context.scope, self
        self.is_open = True

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.is_open = False
            if self._is_planted:
                plant(self._thread_id, None)
        self._context.scope = self._outer

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def interrupt(self) -> None:
        with self._lock:
            if self.is_open and not self._is_asked:
                self._is_asked = True
                self._strike()

    def _later(self) -> None:
        """Strike again in a moment, unless it was struck: the recorder was at work, or it was not noticed."""
        timer = threading.Timer(_SOON_SECONDS, self._strike_again)
        timer.daemon = True
        timer.start()

    def _strike_again(self) -> None:
        with self._lock:
            if self.is_open and not self.is_struck:
                self._strike()

    def _strike(self) -> None:
        if self._thread_id == threading.main_thread().ident and _signals.is_taken:
            if self not in _signals.wanted:
                _signals.wanted.append(self)
            _signals.is_sent = True
            signal.pthread_kill(self._thread_id, signal.SIGTERM)
            # A signal that comes just before a call which blocks does not end that call; the next one does.
            self._later()
        elif _is_recording(_frame_of(self._thread_id)):
            self._later()
        else:
            self._is_planted = self.is_struck = True
            plant(self._thread_id, Cancel)


class LoopScope:
    """A coroutine, which is interrupted where it waits next."""

    __slots__ = ("_context", "_is_open", "_is_struck", "_loop", "_outer", "_task")

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._is_open = self._is_struck = False
        self._outer: Scope | None = None

    async def __aenter__(self) -> None:
        self._outer, self._context.scope = self._context.scope, self
        self._is_open = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        self._context.scope = self._outer
        if self._is_struck and self._task is not None:
            self._task.uncancel()
            if isinstance(error, asyncio.CancelledError):
                raise Cancel from None

    def interrupt(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._strike)
        except RuntimeError:
            pass  # the loop has ended, and with it the body

    def _strike(self) -> None:
        if self._is_open and not self._is_struck and self._task is not None:
            self._is_struck = True
            self._task.cancel()


class PassiveScope:
    """A body that takes turns with somebody else's code, so that its next turn is when it is interrupted."""

    __slots__ = ()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass

    def interrupt(self) -> None:
        pass
