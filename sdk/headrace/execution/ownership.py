"""The lease of a run that was started in this process, and the wish of others that the process ends."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING

from headrace.exceptions import TerminationSignal
from headrace.execution.interruption import signals_are_taken, takes_signals, was_for_scope
from headrace.recorder import get_recorder

if TYPE_CHECKING:
    from headrace.context import RunContext
    from headrace.runs import FlowRun, TaskRun

__all__ = ["owning", "owning_if_root", "taking_termination", "terminating", "terminating_loop"]


@contextmanager
def owning(run: FlowRun | TaskRun, context: RunContext) -> Generator[None]:
    """While inside, the lease of `run` is renewed; `context` learns when it is lost, or `run` suspended."""

    def lost(reason: str) -> None:
        context.lost = reason

    def suspended(reason: str) -> None:
        context.suspended = reason

    recorder = get_recorder()
    recorder.begin_owner(run.owner.run_id, run.owner.attempt, run.owner.fence, lost, suspended)
    try:
        yield
    finally:
        recorder.end_owner(run.owner.run_id)


def owning_if_root(run: FlowRun | TaskRun, context: RunContext) -> AbstractContextManager[None]:
    """`owning`, for a run that was called by no other."""
    return owning(run, context) if context.parent is None else nullcontext()


def _takes_sigterm() -> bool:
    """Whether SIGTERM can and should be taken: on the main thread, when nobody else has."""
    return _can_take_sigterm() and signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, raise_termination)


def _can_take_sigterm() -> bool:
    return threading.current_thread() is threading.main_thread() and not signals_are_taken()


def raise_termination(signum: int, frame: FrameType | None) -> None:
    """A handler of SIGTERM for code that runs before a run is entered.

    Raises:
        TerminationSignal: always.
    """
    raise TerminationSignal(signum)


@contextmanager
def taking_termination() -> Generator[None]:
    """While inside, SIGTERM raises `TerminationSignal`, unless the program handles it itself."""
    if not _takes_sigterm():
        yield
        return
    signal.signal(signal.SIGTERM, raise_termination)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is raise_termination:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _never() -> bool:
    return False


@contextmanager
def terminating(is_over: Callable[[], bool] = _never) -> Generator[None]:
    """While inside, SIGTERM raises `TerminationSignal` wherever the main thread is.

    Where the program handles SIGTERM itself, its handler does what it did before; only what a scope sends
    to interrupt its own body does not reach it.

    Args:
        is_over: nothing is left that could be ended: SIGTERM does nothing any more.
    """
    before = signal.getsignal(signal.SIGTERM) if _can_take_sigterm() else None
    if before is None:  # another thread, another run's handler, or one that was not set from Python
        yield
        return

    def raise_signal(signum: int, frame: FrameType | None) -> None:
        if was_for_scope(frame) or before is signal.SIG_IGN or is_over():
            return
        if callable(before):
            before(signum, frame)
        else:
            raise TerminationSignal(signum)

    signal.signal(signal.SIGTERM, raise_signal)
    try:
        with takes_signals():
            yield
    finally:
        # Unless the body has set one of its own.
        if signal.getsignal(signal.SIGTERM) is raise_signal:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def terminating_loop(is_over: Callable[[], bool] = _never) -> Generator[None]:
    """While inside, SIGTERM cancels the calling task, and comes out of here as `TerminationSignal`.

    Args:
        is_over: as of `terminating`.
    """
    task = asyncio.current_task()
    if task is None or not _takes_sigterm():
        yield
        return
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM)
    received: list[int] = []

    def cancel() -> None:
        if is_over():
            return
        received.append(signal.SIGTERM)
        task.cancel(msg=TERMINATED)

    loop.add_signal_handler(signal.SIGTERM, cancel)
    try:
        yield
        if received:  # and obeyed otherwise: the run was being cancelled
            task.uncancel()
    except asyncio.CancelledError:
        if not received:
            raise
        task.uncancel()
        raise TerminationSignal(received[0]) from None
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


TERMINATED = "terminated"
"""The message with which a task is cancelled because of SIGTERM."""
