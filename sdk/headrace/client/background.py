"""Conversations with a server beside the record: on one event loop in a thread of its own.

Plain functions wait for them, coroutines await them. No code of the user runs on that loop, and no loop of
the user's ever carries a connection that outlives it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from headrace.futures import current_helper

__all__ = ["offloaded", "run_in_background", "start_in_background"]

P = ParamSpec("P")
T = TypeVar("T")


class _Background:
    """The loop and its thread, started by the first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="headrace-background", daemon=True
                ).start()
            return self._loop


_background = _Background()


def _after_fork() -> None:
    global _background
    _background = _Background()


os.register_at_fork(after_in_child=_after_fork)


def offloaded(fn: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Run a coroutine function on the background loop, in a copy of the caller's context.

    Cancelling the caller cancels it.
    """

    @wraps(fn)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        loop = _background.loop()
        if asyncio.get_running_loop() is loop:
            return await fn(*args, **kwargs)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fn(*args, **kwargs), loop))

    return call


def run_in_background(coro: Coroutine[Any, Any, T]) -> T:
    """Run `coro` to its end on the background loop, in a copy of this context, and wait for it.

    The caller's thread only waits, so a signal or a time limit ends the wait at once; the coroutine is then
    cancelled. In a thread of a task runner, another may take its place meanwhile.
    """
    helper = current_helper()
    with nullcontext() if helper is None else helper.blocked():
        future = asyncio.run_coroutine_threadsafe(coro, _background.loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def start_in_background(coro: Coroutine[Any, Any, object]) -> None:
    """Run `coro` on the background loop, in a copy of this context, and do not wait for it."""
    asyncio.run_coroutine_threadsafe(coro, _background.loop())
