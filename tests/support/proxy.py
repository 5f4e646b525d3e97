"""A TCP proxy between a client and a server that can be told to swallow what it is given."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

__all__ = ["Proxy"]


class Proxy:
    """Listens on `address` and passes bytes to `target`, in a thread of its own; a context manager.

    Attributes:
        swallows: while True, bytes are read and acknowledged by TCP, and go nowhere.
        connections: how many have been accepted.
    """

    def __init__(self, target: str) -> None:
        self.swallows = False
        self.connections = 0
        self._accepted = threading.Condition()
        self.address = ""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_for_connections(self, count: int, timeout: float = 20.0) -> None:
        """Until `count` connections have been accepted.

        Raises:
            TimeoutError: that did not happen within `timeout` seconds.
        """
        with self._accepted:
            if not self._accepted.wait_for(lambda: self.connections >= count, timeout):
                raise TimeoutError(f"{self.connections} connections in {timeout} s")

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        self._do(self._close())
        self._tasks.clear()

    def restore(self) -> None:
        """Accept connections again, at the same address."""
        self._do(self._listen())

    def _do(self, coro: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coro, self._loop).result(10)

    async def _listen(self) -> None:
        before = int(self.address.rpartition(":")[2] or 0)
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", before)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._accepted:
            self.connections += 1
            self._accepted.notify_all()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = self._loop.create_task(self._pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if not self.swallows:
                    sink.write(data)
                    await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
