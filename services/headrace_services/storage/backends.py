"""The two databases behind one face: connections for reading, the store that writes, and notices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from headrace.core.clock import Clock
from headrace_services.storage.entity_stores import numbered
from headrace_services.storage.errors import is_disconnect, translated
from headrace_services.storage.postgresql import CONNECT_SECONDS, Pool, connect, make_pool
from headrace_services.storage.postgresql_store import PostgresqlStore
from headrace_services.storage.sqlite_store import SqliteStore, open_connection
from headrace_services.storage.steps import Row, Steps
from headrace_services.storage.urls import sqlite_path

__all__ = ["Backend", "PostgresqlBackend", "SqliteBackend", "Store"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
_NOTICES_PER_SECOND: Final = 50
_RECONNECT_SECONDS: Final = 1.0
_CHANNEL: Final = "headrace"
_QUEUE: Final = "queue"
"""What a notice says when there may be something to hand to workers."""
# Every query has an index that fits it. A plan made while the tables were empty, and kept with its
# statement, must not scan them when they are full.
_PLANNING: Final = {"enable_seqscan": "off"}


class Store(Protocol):
    """The writer's side of a database."""

    async def transact(
        self, logic: Callable[[], Steps[T]], *, is_optimistic: bool = False, is_alone: bool = False
    ) -> T:
        """Run `logic` in one transaction; it is durable when this returns.

        Args:
            logic: what to do.
            is_optimistic: nothing needs to be locked before it is written, because the write, of which there
                is one at most, confirms what was read.
            is_alone: nobody else waits, and it is small.

        Raises:
            Conflict: it may be tried again.
            DatabaseUnavailable, StorageFull: nothing was written.
        """
        ...


class Backend(Protocol):
    """One database, whichever it is."""

    @property
    def dialect(self) -> str:
        """ "sqlite" or "postgresql"."""
        ...

    @property
    def version(self) -> str:
        """The database's own version."""
        ...

    @property
    def store(self) -> Store:
        """Where transactions run."""
        ...

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> Sequence[Row]:
        """The rows of a query with `?` for each parameter."""
        ...

    async def lease_now(self) -> int:
        """The instant by which leases are measured, microseconds."""
        ...

    async def listen(self, heard: Callable[[bool], None]) -> None:
        """Call `heard` whenever another replica has committed something; True: for workers as well."""
        ...

    def notify(self, is_queue: bool) -> None:
        """Tell the other replicas that something was committed."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class SqliteBackend:
    """A file. Reading has connections of its own, which never wait for the writer."""

    dialect = "sqlite"
    version = sqlite3.sqlite_version

    def __init__(self, path: Path, clock: Clock, readers: int) -> None:
        self.store = SqliteStore(path)
        self._path = path
        self._clock = clock
        self._threads = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="headrace-reader")
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()

    @classmethod
    async def open(cls, url: str, clock: Clock, readers: int) -> SqliteBackend:
        """Open the file of `url`."""
        backend = cls(sqlite_path(url), clock, readers)
        await backend.store.open()
        return backend

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> Sequence[Row]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, sql, parameters)

    def _read(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        with translated():
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = open_connection(self._path, read_only=True)
            try:
                return connection.execute(sql, parameters).fetchall()
            finally:
                self._idle.put(connection)

    async def lease_now(self) -> int:
        return self._clock.now()

    async def listen(self, heard: Callable[[bool], None]) -> None:
        """Nobody else writes to the file."""

    def notify(self, is_queue: bool) -> None:
        """Nobody else reads the file."""

    async def close(self) -> None:
        self._threads.shutdown(wait=True)
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()
        await self.store.close()


class PostgresqlBackend:
    """A PostgreSQL database: a pool for reading, a connection for writing, one for notices."""

    dialect = "postgresql"

    def __init__(self, url: str, pool: Pool, version: str) -> None:
        self.store = PostgresqlStore(url)
        self.version = version
        self._url = url
        self._pool = pool
        self._listener: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        self._is_queue_due = False
        self._listening = asyncio.Event()

    @classmethod
    async def open(cls, url: str, readers: int) -> PostgresqlBackend:
        """Connect to the database of `url`."""
        with translated():
            pool = await make_pool(url, "reader", readers, _PLANNING)
            version = str(await pool.fetchval("SHOW server_version")).split(" ")[0]
        backend = cls(url, pool, version)
        await backend.store.open()
        return backend

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> Sequence[Row]:
        with translated():
            try:
                return await self._pool.fetch(numbered(sql), *parameters)
            except Exception as error:
                if not is_disconnect(error):
                    raise
            # The pool had kept a connection whose server had gone; it has dropped it now.
            return await self._pool.fetch(numbered(sql), *parameters)

    async def lease_now(self) -> int:
        rows = await self.fetch("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        now: int = rows[0][0]
        return now

    async def listen(self, heard: Callable[[bool], None]) -> None:
        self._listener = asyncio.create_task(self._keep_listening(heard), name="headrace-listener")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._listening.wait(), CONNECT_SECONDS)

    def notify(self, is_queue: bool) -> None:
        self._is_queue_due |= is_queue
        self._due.set()

    async def _keep_listening(self, heard: Callable[[bool], None]) -> None:
        """Hold a connection for notices, and make a new one whenever it breaks."""
        while True:
            try:
                await self._listen_once(heard)
            except Exception as error:
                # Notices only wake; whoever waits polls slowly as well.
                _log.debug("the connection for notices broke: %s", error)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen_once(self, heard: Callable[[bool], None]) -> None:
        connection = await connect(self._url, "notices")
        own_pid = connection.get_server_pid()
        broken = asyncio.Event()

        def on_notice(_connection: object, pid: int, _channel: str, payload: object) -> None:
            if pid != own_pid:
                heard(payload == _QUEUE)

        def on_end(_connection: object) -> None:
            broken.set()
            self._due.set()

        try:
            connection.add_termination_listener(on_end)
            await connection.add_listener(_CHANNEL, on_notice)
            self._listening.set()
            heard(True)  # what was missed meanwhile
            while not broken.is_set():
                await self._due.wait()
                self._due.clear()
                payload, self._is_queue_due = _QUEUE if self._is_queue_due else "", False
                if not broken.is_set():
                    await connection.execute(f"NOTIFY {_CHANNEL}, '{payload}'")
                    await asyncio.sleep(1 / _NOTICES_PER_SECOND)
        finally:
            connection.terminate()

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        await self.store.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._pool.close(), CONNECT_SECONDS)
