"""A thread for calls that block, with less on the way there and back than an executor has."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

__all__ = ["CallThread"]

T = TypeVar("T")
_Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class CallThread:
    """Makes calls in one thread, one after the other."""

    def __init__(self, name: str) -> None:
        self._calls: Final[SimpleQueue[_Call | None]] = SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` returns, or raises. A caller that is cancelled does not stop it.

        Raises:
            RuntimeError: the thread is closed.
        """
        if self._is_closed:
            raise RuntimeError(f"The thread {self._thread.name} is closed.")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._calls.put((loop, answer, function))
        return await answer

    def close(self) -> None:
        """Take no more calls; those that were made are finished."""
        self._is_closed = True
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            self._make(*call)
            # What a call holds must not live until the next one comes.
            del call

    def _make(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: asyncio.Future[Any],
        function: Callable[[], Any],
    ) -> None:
        value: Any = None
        error: BaseException | None = None
        try:
            value = function()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(_settle, answer, value, error)


def _settle(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if answer.done():
        return  # whoever asked has gone
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(value)
