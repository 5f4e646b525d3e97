"""The loop in a thread behind the blocking client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from headrace.client.api import HeadraceClient
from headrace.settings import Settings, get_current_settings

__all__ = ["BlockingClient"]

T = TypeVar("T")


class BlockingClient:
    """Opens a `HeadraceClient` on an event loop of its own and waits for what it does there.

    Args:
        settings: instead of those in force.
        start_server: whether a server may be started for the address `auto`.
    """

    def __init__(self, settings: Settings | None = None, *, start_server: bool = True) -> None:
        self._client = HeadraceClient(settings or get_current_settings(), start_server=start_server)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run_loop, args=(self._loop,), name="headrace-client", daemon=True
        )
        self._thread.start()
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(self._client.__aexit__(kind, error, trace))
        finally:
            self._stop()

    def _stop(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    @property
    def address(self) -> str:
        """`host:port` of the server."""
        return self._client.address

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            call.close()
            raise RuntimeError(
                "the client is not open: use it as `with get_client(sync_client=True) as client:`"
            )
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        generator: Any = items
        try:
            while (item := self._run(_next(items))) is not _END:
                yield cast("T", item)
        finally:
            if self._loop is not None:
                self._run(generator.aclose())


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Until it is stopped. It is closed here, because the thread that stops it may run a loop of its own."""
    loop.run_forever()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


_END: Final = object()


async def _next(items: AsyncIterator[object]) -> object:
    return await anext(items, _END)
