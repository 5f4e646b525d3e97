"""Replicas of the server: the real storage, hub, dispatcher, reaper and streams, on one database.

What is not real is what lies between: SQLite runs in place instead of in threads, notices between replicas
and messages on streams take virtual time, and any of them may be lost when the world says so.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from headrace.core.errors import DatabaseUnavailable, ServerUnavailable, ServiceError
from headrace.v1.worker_service_pb2 import ConnectRequest, ConnectResponse
from headrace_services.loops.worker_hub import WorkerHub, WorkerTerms
from headrace_services.rpc.worker_stream import WorkerStream
from headrace_services.storage.backends import SqliteBackend
from headrace_services.storage.database import Database
from headrace_services.storage.sqlite_store import SqliteStore
from headrace_services.storage.steps import Steps
from tests.simulation.virtual import VirtualClock, VirtualLoop

__all__ = ["Pipe", "Replica", "Shared"]

T = TypeVar("T")
HEARTBEAT_SECONDS = 60.0
REPLY_SECONDS = 60.0


class Shared:
    """The one database, as all replicas reach it.

    Attributes:
        down_until: nobody reaches it before.
        loses_answers: how likely it is that a commit is made and its answer lost.
        commits: how many there were.
    """

    def __init__(self, path: Path, loop: VirtualLoop, chance: random.Random) -> None:
        self.path = path
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.chance = chance
        self.down_until = 0.0
        self.loses_answers = 0.0
        self.commits = 0
        self.backends: list[SimulatedBackend] = []

    def check(self) -> None:
        """Raises DatabaseUnavailable while it is down."""
        if self.loop.now < self.down_until:
            raise DatabaseUnavailable("The database does not answer.")


class _InPlace(SqliteStore):
    """The writer's side, without its thread."""

    shared: Shared

    async def open(self) -> None:
        self._connected()

    async def transact(
        self, logic: Callable[[], Steps[T]], *, is_optimistic: bool = False, is_alone: bool = False
    ) -> T:
        await asyncio.sleep(0.001)
        self.shared.check()
        answer = self._transact(logic)
        self.shared.commits += 1
        if self.shared.chance.random() < self.shared.loses_answers:
            raise DatabaseUnavailable("The connection was lost after the commit.")
        return answer

    async def close(self) -> None:
        self._disconnect()

    def _connected(self) -> sqlite3.Connection:
        is_new = self._connection is None
        connection = super()._connected()
        if is_new:
            connection.execute("PRAGMA synchronous=OFF")
        return connection


class SimulatedBackend(SqliteBackend):
    """One replica's way to the database."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared.path, shared.clock, 1)
        self._shared = shared
        store = _InPlace(shared.path)
        store.shared = shared
        for unused in (self.store, store):
            unused._thread.close()  # pyright: ignore[reportPrivateUsage]
        self.store = store
        self._heard: Callable[[bool], None] | None = None

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
        await asyncio.sleep(0.001)
        self._shared.check()
        return self._read(sql, parameters)

    async def lease_now(self) -> int:
        self._shared.check()
        return self._shared.clock.now()

    async def listen(self, heard: Callable[[bool], None]) -> None:
        self._heard = heard

    def notify(self, is_queue: bool) -> None:
        """Tell the other replicas, mostly."""
        for other in self._shared.backends:
            if other is not self and other._heard is not None and self._shared.chance.random() < 0.9:
                self._shared.loop.call_later(0.02, other._heard, is_queue)


class Pipe:
    """One worker's stream to a replica. Both ways keep their order.

    Attributes:
        is_hole: whatever is sent on it vanishes.
        is_broken: it has ended for both sides.
    """

    def __init__(self, replica: Replica, hear: Callable[[ConnectResponse], None]) -> None:
        self._replica = replica
        self._loop = replica.shared.loop
        self._hear = hear
        self._up: asyncio.Queue[ConnectRequest | None] = asyncio.Queue()
        self._arrival = {"up": 0.0, "down": 0.0}
        self.is_hole = self.is_broken = False

    def _later(self, way: str, call: Callable[[], None]) -> None:
        delay = self._replica.shared.chance.uniform(0.001, 0.5)
        self._arrival[way] = max(self._arrival[way] + 1e-6, self._loop.now + delay)
        self._loop.call_at(self._arrival[way], call)

    def say(self, request: ConnectRequest) -> None:
        """The worker sends."""
        copy = ConnectRequest.FromString(request.SerializeToString())
        self._later("up", lambda: None if self._is_lost() else self._up.put_nowait(copy))

    def answer(self, response: ConnectResponse) -> None:
        """The server sends."""
        copy = ConnectResponse.FromString(response.SerializeToString())
        self._later("down", lambda: None if self._is_lost() else self._hear(copy))

    def hang_up(self) -> None:
        """The worker will send no more, or is gone; for a server that is the same."""
        self._later("up", lambda: None if self.is_hole else self._up.put_nowait(None))

    def _is_lost(self) -> bool:
        return self.is_hole or self.is_broken

    async def requests(self) -> AsyncIterator[ConnectRequest]:
        """What the server reads."""
        while (request := await self._up.get()) is not None:
            yield request


class Replica:
    """One server process, while it is up.

    Attributes:
        is_up: it is.
        pipes: the streams that it serves.
    """

    def __init__(self, name: str, shared: Shared) -> None:
        self.name = name
        self.shared = shared
        self.is_up = False
        self.pipes: dict[Pipe, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._died = asyncio.Event()

    async def start(self) -> None:
        """Come up: a new process on the same database."""
        self._backend = SimulatedBackend(self.shared)
        self.database = Database(self._backend, self.shared.clock)
        await self.database.start()
        self.shared.backends.append(self._backend)
        terms = WorkerTerms(self.name, HEARTBEAT_SECONDS, REPLY_SECONDS)
        self.hub = WorkerHub(self.database, terms, self.shared.clock)
        runners = [self.hub.dispatcher.run, self.hub.news.run, *(one.run for one in self.hub.loops)]
        self._tasks = [asyncio.create_task(run()) for run in runners]
        self._died = asyncio.Event()
        self.is_up = True

    async def kill(self) -> None:
        """The process is gone, with everything that it had not committed."""
        self.is_up = False
        self._died.set()
        self.shared.backends.remove(self._backend)
        writer = self.database.writer._task  # pyright: ignore[reportPrivateUsage]
        doomed = [*self._tasks, *self.pipes.values(), *([writer] if writer else [])]
        for pipe in list(self.pipes):
            pipe.is_broken = True
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        self.pipes.clear()
        self._backend.store._disconnect()  # pyright: ignore[reportPrivateUsage]

    def connect(
        self, hear: Callable[[ConnectResponse], None], ended: Callable[[ServiceError | None], None]
    ) -> Pipe:
        """A worker's new stream."""
        pipe = Pipe(self, hear)
        self.pipes[pipe] = asyncio.create_task(self._serve(pipe, ended))
        return pipe

    def cut(self, pipe: Pipe) -> None:
        """The stream breaks: neither side hears more of it."""
        pipe.is_broken = True
        pipe._up.put_nowait(None)

    async def _serve(self, pipe: Pipe, ended: Callable[[ServiceError | None], None]) -> None:
        stream = WorkerStream(self.hub, self.shared.clock)
        responses = stream.responses(pipe.requests())
        error: ServiceError | None = None
        try:
            async for response in responses:
                pipe.answer(response)
        except ServiceError as raised:
            error = raised
        except asyncio.CancelledError:
            error = ServerUnavailable("The server is gone.")
            raise
        finally:
            self.hub.remove(stream)
            await responses.aclose()
            self.pipes.pop(pipe, None)
            if not pipe.is_hole:
                pipe._later("down", lambda: ended(error))

    async def call(self, work: Callable[[Database], Awaitable[T]]) -> T:
        """A unary call.

        Raises:
            ServerUnavailable: the process dies before it answers.
            ServiceError: as it answers.
        """
        if not self.is_up:
            raise ServerUnavailable("Nobody listens there.")
        task = asyncio.ensure_future(work(self.database))
        death = asyncio.ensure_future(self._died.wait())
        await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if not task.done():
            task.cancel()
            raise ServerUnavailable("The server is gone.")
        return task.result()
