"""`headrace.v1.LockService`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from google.protobuf.duration_pb2 import Duration

from headrace.core.clock import Clock
from headrace.core.errors import DatabaseUnavailable, ObjectNotFound, ServerDraining, StorageFull
from headrace.v1 import lock_service_pb2 as pb
from headrace.v1.lock_pb2 import Lock
from headrace_services.rpc.call import Call
from headrace_services.rpc.drain import Drain
from headrace_services.storage.database import Database
from headrace_services.storage.instants import duration_micros
from headrace_services.storage.lock_commands import AcquireLock, ReleaseLock, RenewLocks

__all__ = ["LockService"]

T = TypeVar("T")
_LOOK_SECONDS: Final = 0.5
"""How often whoever waits looks at the database: another server may have released the lock."""


class LockService:
    """Locks by key, held as leases.

    Args:
        database: where they are.
        clock: what the time is.
        drain: nobody waits in a server that stops.
    """

    def __init__(self, database: Database, clock: Clock, drain: Drain) -> None:
        self._writer = database.writer
        self._reader = database.reader.locks
        self._database = database
        self._clock = clock
        self._drain = drain
        # Since when holders have been able to renew here, by the clock of leases; None: they are not yet.
        self._heard_since: int | None = None
        # Set when the lock of the key is released here. It lives as long as somebody waits for it.
        self._releases: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        drain.listen(self._wake_all)

    async def AcquireLock(self, request: pb.AcquireLockRequest, call: Call) -> pb.AcquireLockResponse:
        until = self._until(request.wait)
        while True:
            await self._hearing(self._hear())
            command = AcquireLock(request, self._heard_since)
            answer = await self._hearing(self._writer.do(command))
            if answer.is_acquired:
                return pb.AcquireLockResponse(acquired=True, lock=answer.lock)
            if not await self._free(request.key, until):
                found = await self._hearing(self._reader.get(request.key, self._heard_since))
                return pb.AcquireLockResponse(lock=found[0] if found else None)

    async def RenewLocks(self, request: pb.RenewLocksRequest, call: Call) -> pb.RenewLocksResponse:
        command = RenewLocks(request.locks, duration_micros(request.lease))
        lost = await self._hearing(self._writer.do(command))
        return pb.RenewLocksResponse(lost=lost)

    async def ReleaseLock(self, request: pb.ReleaseLockRequest, call: Call) -> pb.ReleaseLockResponse:
        released = await self._writer.do(ReleaseLock(request.lock))
        event = self._releases.pop(request.lock.key, None)
        if event is not None:
            event.set()
        return pb.ReleaseLockResponse(released=released)

    async def GetLock(self, request: pb.GetLockRequest, call: Call) -> pb.GetLockResponse:
        found = await self._get(request.key)
        if found is None:
            raise ObjectNotFound.of("lock", request.key)
        return pb.GetLockResponse(lock=found[0])

    async def WaitForLock(self, request: pb.WaitForLockRequest, call: Call) -> pb.WaitForLockResponse:
        return pb.WaitForLockResponse(is_free=await self._free(request.key, self._until(request.wait)))

    async def ListLocks(self, request: pb.ListLocksRequest, call: Call) -> pb.ListLocksResponse:
        locks, token = await self._reader.page(request.key_prefix, request.page_size, request.page_token)
        return pb.ListLocksResponse(locks=locks, next_page_token=token)

    # Waiting

    def _until(self, wait: Duration) -> float:
        return self._clock.monotonic() + duration_micros(wait) / 1e6

    async def _free(self, key: str, until: float) -> bool:
        """Wait until nobody has the lock; whether that came about before `until`.

        Raises:
            ServerDraining: the server stops.
        """
        while True:
            released = self._releases.setdefault(key, asyncio.Event())
            if self._drain.begun:
                raise ServerDraining()
            found = await self._get(key)
            if found is None:
                return True
            left = until - self._clock.monotonic()
            if left <= 0:
                return False
            pause = min(left, found[1] / 1e6, _LOOK_SECONDS * random.uniform(0.5, 1))
            try:
                await asyncio.wait_for(released.wait(), pause)
            except TimeoutError:
                pass

    async def _get(self, key: str) -> tuple[Lock, int] | None:
        await self._hearing(self._hear())
        return await self._hearing(self._reader.get(key, self._heard_since))

    def _wake_all(self) -> None:
        for event in list(self._releases.values()):
            event.set()

    # Hearing: a server that was not there, or without its database, has heard nobody

    async def _hear(self) -> None:
        if self._heard_since is None:
            self._heard_since = await self._database.now()

    async def _hearing(self, asked: Awaitable[T]) -> T:
        try:
            return await asked
        except (DatabaseUnavailable, StorageFull):
            self._heard_since = None
            raise
