"""Calls of `LockService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from headrace.client.service_calls import ServiceCalls
from headrace.core.limits import PAGE_SIZE_DEFAULT
from headrace.v1 import lock_service_pb2 as locks
from headrace.v1.lock_pb2 import Lock, LockRef

__all__ = ["LockCalls"]


class LockCalls(ServiceCalls):
    """Locks by key; `headrace.locking.server` keeps them for as long as they are needed."""

    async def acquire_lock(
        self,
        key: str,
        holder: str,
        *,
        lease_seconds: float,
        wait_seconds: float = 0.0,
        hold_timeout_seconds: float | None = None,
        client: str = "",
        timeout: float | None = None,
    ) -> locks.AcquireLockResponse:
        """Acquire a lock, unless somebody else has it.

        Args:
            key: what is locked.
            holder: for whom; who has it gets it again.
            lease_seconds: for how long, unless it is renewed.
            wait_seconds: how long to wait for it, at most 60.
            hold_timeout_seconds: for how long at most; None: as long as it is renewed.
            client: which process asks, for people.
            timeout: seconds for this call, which the waiting is part of.
        """
        request = locks.AcquireLockRequest(key=key, holder=holder, client=client)
        request.lease.FromTimedelta(timedelta(seconds=lease_seconds))
        request.wait.FromTimedelta(timedelta(seconds=wait_seconds))
        if hold_timeout_seconds is not None:
            request.hold_timeout.FromTimedelta(timedelta(seconds=hold_timeout_seconds))
        answer = locks.AcquireLockResponse.FromString
        return await self._call("LockService/AcquireLock", request, answer, timeout)

    async def renew_locks(
        self, held: Sequence[LockRef], lease_seconds: float, *, timeout: float | None = None
    ) -> list[LockRef]:
        """Have leases begin anew; gives those that were lost."""
        request = locks.RenewLocksRequest(locks=held)
        request.lease.FromTimedelta(timedelta(seconds=lease_seconds))
        answer = locks.RenewLocksResponse.FromString
        return list((await self._call("LockService/RenewLocks", request, answer, timeout)).lost)

    async def release_lock(
        self, key: str, holder: str, *, fence: int = 0, timeout: float | None = None
    ) -> bool:
        """Give a lock back; gives whether the holder had it.

        Args:
            key: of the lock.
            holder: as it was acquired.
            fence: which holding of it; 0: whichever it is.
            timeout: seconds for this call.
        """
        request = locks.ReleaseLockRequest(lock=LockRef(key=key, holder=holder, fence=fence))
        answer = locks.ReleaseLockResponse.FromString
        return (await self._call("LockService/ReleaseLock", request, answer, timeout)).released

    async def get_lock(self, key: str, *, timeout: float | None = None) -> Lock:
        """Who has the lock.

        Raises:
            ObjectNotFound: nobody.
        """
        request = locks.GetLockRequest(key=key)
        answer = locks.GetLockResponse.FromString
        return (await self._call("LockService/GetLock", request, answer, timeout)).lock

    async def wait_for_lock(
        self, key: str, *, wait_seconds: float = 0.0, timeout: float | None = None
    ) -> bool:
        """Wait until nobody has the lock, at most 60 s; gives whether that came about."""
        request = locks.WaitForLockRequest(key=key)
        request.wait.FromTimedelta(timedelta(seconds=wait_seconds))
        answer = locks.WaitForLockResponse.FromString
        return (await self._call("LockService/WaitForLock", request, answer, timeout)).is_free

    async def list_locks(
        self, request: locks.ListLocksRequest, *, timeout: float | None = None
    ) -> locks.ListLocksResponse:
        """One page of locks, by key."""
        answer = locks.ListLocksResponse.FromString
        return await self._call("LockService/ListLocks", request, answer, timeout)

    async def iter_locks(
        self, key_prefix: str = "", *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> AsyncIterator[Lock]:
        """Every lock whose key begins so, by key; also those of holders that are silent."""
        request = locks.ListLocksRequest(key_prefix=key_prefix, page_size=page_size)
        while True:
            page = await self.list_locks(request)
            for lock in page.locks:
                yield lock
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
