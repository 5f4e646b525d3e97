"""`headrace.v1.CacheService`."""

from __future__ import annotations

from headrace.core.errors import FieldsInvalid
from headrace.v1 import cache_service_pb2 as pb
from headrace_services.rpc.call import Call
from headrace_services.storage.cache_commands import (
    INVALIDATED_AT_ONCE,
    InvalidateCacheEntries,
    PutCacheEntry,
)
from headrace_services.storage.database import Database

__all__ = ["CacheService"]


class CacheService:
    """Which keys have a cached result, and where it is."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer
        self._reader = database.reader.cache

    async def LookUpCacheEntry(
        self, request: pb.LookUpCacheEntryRequest, call: Call
    ) -> pb.LookUpCacheEntryResponse:
        return pb.LookUpCacheEntryResponse(entry=await self._reader.look_up(request.key))

    async def PutCacheEntry(self, request: pb.PutCacheEntryRequest, call: Call) -> pb.PutCacheEntryResponse:
        entry = await self._writer.do(PutCacheEntry(request))
        return pb.PutCacheEntryResponse(entry=entry)

    async def ListCacheEntries(
        self, request: pb.ListCacheEntriesRequest, call: Call
    ) -> pb.ListCacheEntriesResponse:
        entries, token = await self._reader.page(request.filter, request.page_size, request.page_token)
        return pb.ListCacheEntriesResponse(entries=entries, next_page_token=token)

    async def InvalidateCacheEntries(
        self, request: pb.InvalidateCacheEntriesRequest, call: Call
    ) -> pb.InvalidateCacheEntriesResponse:
        if not request.all and not request.filter.ByteSize():
            raise FieldsInvalid.of("filter", "must say which entries, unless `all` is set")
        if request.all and request.filter.ByteSize():
            raise FieldsInvalid.of("all", "cannot be set together with a filter")
        total, gone = 0, INVALIDATED_AT_ONCE
        while gone == INVALIDATED_AT_ONCE:
            gone = await self._writer.do(InvalidateCacheEntries(request.filter))
            total += gone
        return pb.InvalidateCacheEntriesResponse(invalidated_entries=total)
