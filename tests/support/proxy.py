"""A TCP proxy between a client and a server that can be told to do what networks do.

What it does to bytes, it does to each direction by itself: `to_server` and `to_client` are `Lane`s, and may
be changed at any time, from any thread. `strand` does so to the connections that there are, and to no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

__all__ = ["Lane", "Proxy"]

_CHUNK_BYTES: Final = 65536
_RESETS: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset instead of an end."""


@dataclass
class Lane:
    """One direction of all connections.

    Attributes:
        swallows: bytes are read and acknowledged by TCP, and go nowhere.
        delay_seconds: how long each piece is held up.
        bytes_per_second: the most that passes on each connection; None: as much as there is.
        cut_at: asked of each piece before it passes; True: the piece is lost, and its connection breaks.
    """

    swallows: bool = False
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    cut_at: Callable[[bytes], bool] | None = None


class Proxy:
    """Listens on `address` and passes bytes to `target`, in a thread of its own; a context manager.

    Args:
        target: `host:port` of the server.
        host: where it listens.

    Attributes:
        to_server: what happens to what clients say.
        to_client: what happens to what the server says.
        connections: how many have been accepted.
    """

    def __init__(self, target: str, host: str = "127.0.0.1") -> None:
        self.to_server, self.to_client = Lane(), Lane()
        self.connections = 0
        self._accepted = threading.Condition()
        self._host = host
        self.address = ""
        self.target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def swallows(self) -> bool:
        """Whether nothing passes, in either direction."""
        return self.to_server.swallows and self.to_client.swallows

    @swallows.setter
    def swallows(self, value: bool) -> None:
        self.to_server.swallows = self.to_client.swallows = value

    def wait_for_connections(self, count: int, timeout: float = 60.0) -> None:
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

    def restore(self) -> None:
        """Accept connections again, at the same address."""
        self._do(self._listen())

    def strand(self, *, to_server: bool = False, to_client: bool = False) -> None:
        """Have the connections that there are swallow what goes in a direction; new ones are as before."""
        self._do(self._strand(to_server, to_client))

    async def _strand(self, to_server: bool, to_client: bool) -> None:
        for is_meant, name in ((to_server, "to_server"), (to_client, "to_client")):
            if is_meant:
                lane: Lane = getattr(self, name)
                setattr(self, name, replace(lane))
                lane.swallows = True

    def reset(self) -> None:
        """Reset every connection (RST), with what is on its way; new ones are accepted."""
        self._do(self._reset())

    def send_to(self, target: str) -> None:
        """From now on new connections go to another server; those that are there are reset."""
        self.target = target
        self.reset()

    def _do(self, coro: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coro, self._loop).result(10)

    async def _listen(self) -> None:
        before = int(self.address.rpartition(":")[2] or 0)
        self._server = await asyncio.start_server(self._accept, self._host, before)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"{self._host}:{port}"

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reset(self) -> None:
        for writer in list(self._writers):
            _break(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._accepted:
            self.connections += 1
            self._accepted.notify_all()
        host, _, port = self.target.rpartition(":")
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        self._writers |= {writer, far_writer}
        for lane, source, sink, back in (
            (self.to_server, reader, far_writer, writer),
            (self.to_client, far_reader, writer, far_writer),
        ):
            task = self._loop.create_task(self._pass_on(lane, source, sink, back))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self,
        lane: Lane,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
    ) -> None:
        try:
            while data := await source.read(_CHUNK_BYTES):
                if lane.cut_at is not None and lane.cut_at(data):
                    _break(sink)
                    _break(back)
                    return
                if lane.delay_seconds:
                    await asyncio.sleep(lane.delay_seconds)
                if lane.bytes_per_second is not None:
                    await asyncio.sleep(len(data) / lane.bytes_per_second)
                if not lane.swallows:
                    sink.write(data)
                    await sink.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(sink)
            sink.close()


def _break(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
    writer.transport.abort()
