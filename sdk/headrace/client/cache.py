"""Calls of `CacheService`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from headrace.client.service_calls import ServiceCalls
from headrace.core.limits import PAGE_SIZE_DEFAULT
from headrace.v1 import cache_service_pb2 as cache
from headrace.v1.cache_pb2 import CacheEntry, CacheFilter

__all__ = ["CacheCalls"]


class CacheCalls(ServiceCalls):
    """The index of cached results."""

    async def look_up_cache_entry(self, key: str, *, timeout: float | None = None) -> CacheEntry | None:
        """What a call with the key may use; None: nothing."""
        request = cache.LookUpCacheEntryRequest(key=key)
        answer = cache.LookUpCacheEntryResponse.FromString
        found = await self._call("CacheService/LookUpCacheEntry", request, answer, timeout)
        return found.entry if found.HasField("entry") else None

    async def put_cache_entry(
        self,
        entry: CacheEntry,
        *,
        lifetime: timedelta | None = None,
        fence: int = 0,
        timeout: float | None = None,
    ) -> CacheEntry:
        """Say where the result of a key is, in place of what was said before.

        Args:
            entry: its `result` is a reference.
            lifetime: how long it may be used; None: always.
            fence: of the lock that the caller has of the key; 0: none.
            timeout: seconds for this call.

        Raises:
            LockLost: somebody else has had the lock since.
            FieldsInvalid: the result is a value.
        """
        request = cache.PutCacheEntryRequest(entry=entry, fence=fence)
        if lifetime is not None:
            request.lifetime.FromTimedelta(lifetime)
        answer = cache.PutCacheEntryResponse.FromString
        return (await self._call("CacheService/PutCacheEntry", request, answer, timeout)).entry

    async def list_cache_entries(
        self, request: cache.ListCacheEntriesRequest, *, timeout: float | None = None
    ) -> cache.ListCacheEntriesResponse:
        """One page of entries, by key."""
        answer = cache.ListCacheEntriesResponse.FromString
        return await self._call("CacheService/ListCacheEntries", request, answer, timeout)

    async def iter_cache_entries(
        self, filter: CacheFilter | None = None, *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> AsyncIterator[CacheEntry]:
        """Every entry that matches, by key."""
        request = cache.ListCacheEntriesRequest(filter=filter, page_size=page_size)
        while True:
            page = await self.list_cache_entries(request)
            for entry in page.entries:
                yield entry
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def invalidate_cache_entries(
        self, filter: CacheFilter | None = None, *, all: bool = False, timeout: float | None = None
    ) -> int:
        """Have the next calls compute anew; gives how many entries went.

        Args:
            filter: which.
            all: every one; without a filter.
            timeout: seconds for this call.

        Raises:
            FieldsInvalid: neither or both are given.
        """
        request = cache.InvalidateCacheEntriesRequest(filter=filter, all=all)
        answer = cache.InvalidateCacheEntriesResponse.FromString
        found = await self._call("CacheService/InvalidateCacheEntries", request, answer, timeout)
        return found.invalidated_entries
