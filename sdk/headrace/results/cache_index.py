"""The index of cached results in the server: which keys have one, and where it is."""

from __future__ import annotations

import logging
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from headrace.client.background import run_in_background
from headrace.client.lasting import lasting_client
from headrace.core.errors import ServiceError
from headrace.filesystems import object_at
from headrace.results.payloads import KeptResult, Producer
from headrace.results.records import ResultRecord, ResultRecordMetadata, kept_as, split
from headrace.v1.cache_pb2 import CacheEntry, CacheFilter

if TYPE_CHECKING:
    from headrace.serializers import Serializer

__all__ = ["CacheIndex"]

_log = logging.getLogger("headrace.task_runs")
_TAGS: Final = 100
_NAME_CHARACTERS: Final = 200


class CacheIndex:
    """Asks the server, which never sees a value: it is read from storage, and written there, by this process.

    Without a server in reach nothing is found; the task runs, and a warning says so.
    """

    def look_up(self, key: str) -> CacheEntry | None:
        """The entry of a key, unless it has expired by the server's clock."""
        try:
            return run_in_background(_look_up(key))
        except ServiceError as error:
            _log.warning("The server cannot be asked for a cached result: %s", error)
            return None

    def read(self, entry: CacheEntry, own: Serializer) -> tuple[ResultRecord[Any], int]:
        """The record of an entry, and the size of the object in storage in bytes.

        Args:
            entry: as the server has it.
            own: the serializer to read with if the value was written with one of this name.

        Raises:
            FileNotFoundError: the value is not there, or cannot be seen here.
            SerializationError: it cannot be read here.
            ConfigurationError: there is no such kind of storage here.
            OSError: the storage cannot be reached.
        """
        uri = entry.result.blob.uri
        filesystem, name = object_at(uri)
        content = filesystem.read(name)
        written = ResultRecordMetadata.from_bytes(content, own)
        # How long it may be used is the server's affair.
        expires = entry.expire_time.ToDatetime(UTC) if entry.HasField("expire_time") else None
        metadata = ResultRecordMetadata(written.storage_key, written.serializer, expires)
        record = ResultRecord.deserialize(content, metadata)
        record.kept = kept_as(metadata, uri, split(content)[1])
        record.producer_run_id = entry.producer_run_id
        return record, len(content)

    def put(self, record: ResultRecord[Any], producer: Producer, fence: int) -> None:
        """Have the key of a record lead to where it was written.

        Args:
            record: as it was written.
            producer: who has computed it.
            fence: of the lock of the key; 0: it is not locked.

        Raises:
            LockLost: another holder has had the lock since.
            ServiceError: the server does not answer.
        """
        kept = record.kept
        assert kept is not None, "the record was not written"
        entry = CacheEntry(
            key=record.key,
            producer_run_id=producer.run_id,
            task_name=producer.task_name[:_NAME_CHARACTERS],
            flow_name=producer.flow_name[:_NAME_CHARACTERS],
            tags=[tag for tag in producer.tags if 0 < len(tag) <= _NAME_CHARACTERS][:_TAGS],
        )
        # The server has no use for the value, however small it is.
        KeptResult(kept.encoding, kept.uri, kept.size_bytes, kept.sha256).put_in(entry.result)
        run_in_background(_put(entry, producer, fence))

    def drop(self, entry: CacheEntry, reason: Exception) -> None:
        """Forget an entry whose value cannot be had, unless there is another one meanwhile."""
        _log.info("The cached result of key %r is forgotten: %s", entry.key, reason)
        try:
            run_in_background(_drop(entry))
        except ServiceError as error:
            _log.warning("The server cannot be told that a cached result is gone: %s", error)


async def _look_up(key: str) -> CacheEntry | None:
    async with lasting_client() as client:
        return await client.look_up_cache_entry(key)


async def _put(entry: CacheEntry, producer: Producer, fence: int) -> None:
    async with lasting_client() as client:
        await client.put_cache_entry(entry, lifetime=producer.lifetime, fence=fence)


async def _drop(entry: CacheEntry) -> None:
    async with lasting_client() as client:
        await client.invalidate_cache_entries(CacheFilter(keys=[entry.key], entry_ids=[entry.id]))
