"""`ResultStore`: reads and writes results under keys, and locks the keys."""

from __future__ import annotations

import asyncio
import copy
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from headrace.core.errors import ConfigurationError
from headrace.core.ids import new_id
from headrace.exceptions import SerializationError
from headrace.filesystems import FileSystem, filesystem_of, locate
from headrace.locking.protocol import IsolationLevel
from headrace.results.payloads import KeptResult
from headrace.results.records import ResultRecord, ResultRecordMetadata, kept_as, split
from headrace.serializers import Serializer, serializer_of
from headrace.settings import get_current_settings

if TYPE_CHECKING:
    from headrace.flows import Flow
    from headrace.results.cache_index import CacheIndex
    from headrace.results.payloads import Producer
    from headrace.tasks import Task

__all__ = ["Remembered", "ResultStore"]

R = TypeVar("R")

_REMEMBERED_RECORDS: Final = 1000
_REMEMBERED_BYTES: Final = 64 * 1024 * 1024


class Remembered:
    """The results of one flow run that were used last: at most 1000 of them, and 64 MiB of serialised values.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._records: OrderedDict[str, tuple[ResultRecord[Any], int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, uri: str) -> ResultRecord[Any] | None:
        """The record kept at `uri`, if it is remembered."""
        with self._lock:
            entry = self._records.get(uri)
            if entry is None:
                return None
            self._records.move_to_end(uri)
            return entry[0]

    def put(self, uri: str, record: ResultRecord[Any], size_bytes: int) -> None:
        """Remember a record."""
        with self._lock:
            self._drop(uri)
            self._records[uri] = (record, size_bytes)
            self._bytes += size_bytes
            while len(self._records) > _REMEMBERED_RECORDS or self._bytes > _REMEMBERED_BYTES:
                self._drop(next(iter(self._records)))

    def forget(self, uri: str) -> None:
        """Remember it no longer."""
        with self._lock:
            self._drop(uri)

    def _drop(self, uri: str) -> None:
        entry = self._records.pop(uri, None)
        if entry is not None:
            self._bytes -= entry[1]


class ResultStore:
    """Where results are kept, and how they are written.

    The methods whose names begin with `a` are their twins for coroutines: they ask storage in a thread.

    Attributes:
        result_storage: where values are.
        metadata_storage: where descriptions are; None: with the values.
        lock_manager: locks keys; None: none can be locked.
        serializer: what values are written with.
        cache_result_in_memory: whether results stay in memory, too.
        cache_index: knows which keys have a result; None: the storage itself does.
    """

    def __init__(
        self,
        *,
        result_storage: FileSystem | Path | str | None = None,
        metadata_storage: FileSystem | Path | str | None = None,
        lock_manager: Any = None,
        serializer: Serializer | str | None = None,
        cache_result_in_memory: bool = True,
    ) -> None:
        """A store.

        Args:
            result_storage: as the option of the same name; None: as settings say.
            metadata_storage: a place of its own for descriptions.
            lock_manager: see `headrace.locking`.
            serializer: a serializer or its name; None: as settings say.
            cache_result_in_memory: keep results in memory, too.

        Raises:
            ConfigurationError: there is no such storage.
            ValueError: there is no such serializer.
        """
        settings = get_current_settings()
        place = result_storage or settings.results_default_storage_block or "local"
        self.result_storage = filesystem_of(place)
        self.metadata_storage = None if metadata_storage is None else filesystem_of(metadata_storage)
        self.lock_manager = lock_manager
        self.serializer = serializer_of(serializer or settings.results_default_serializer)
        self.cache_result_in_memory = cache_result_in_memory
        self.cache_index: CacheIndex | None = None
        self._remembered = Remembered()

    def update_for_task(self, task: Task[..., Any]) -> ResultStore:
        """This store with what the options of a task say instead; results remembered in memory are shared."""
        updated = self._with(task.result_storage, task.result_serializer, task.cache_result_in_memory)
        policy = task.cache_policy
        if policy is None or not (policy.key_storage or policy.lock_manager or policy.cache_scope):
            return updated
        updated = copy.copy(updated)
        if policy.key_storage is not None:
            updated.metadata_storage = filesystem_of(policy.key_storage)
        updated.lock_manager = policy.lock_manager or updated.lock_manager
        if policy.cache_scope is not None:
            _share(updated, is_serializable=policy.isolation_level == IsolationLevel.SERIALIZABLE)
        return updated

    def update_for_flow(self, flow: Flow[..., Any]) -> ResultStore:
        """This store with what the options of a flow say instead."""
        return self._with(flow.result_storage, flow.result_serializer, flow.cache_result_in_memory)

    def _with(self, storage: Any, serializer: Serializer | str | None, in_memory: bool) -> ResultStore:
        if storage is None and serializer is None and in_memory is self.cache_result_in_memory:
            return self
        updated = copy.copy(self)
        if storage is not None:
            updated.result_storage = filesystem_of(storage)
        if serializer is not None:
            updated.serializer = serializer_of(serializer)
        updated.cache_result_in_memory = in_memory
        return updated

    # Reading.

    def read(self, key: str, holder: str | None = None) -> ResultRecord[Any]:
        """The record under a key, also one that has expired; waits while somebody else has it locked.

        Raises:
            FileNotFoundError: there is none.
            SerializationError: what lies there cannot be read.
            OSError: the storage cannot be reached.
        """
        if self.lock_manager is not None and not self.is_lock_holder(key, holder):
            self.lock_manager.wait_for_lock(key)
        return self._in_memory(key) or self._read(key)

    async def aread(self, key: str, holder: str | None = None) -> ResultRecord[Any]:
        """The async twin of `read`."""
        if self.lock_manager is not None and not self.is_lock_holder(key, holder):
            await self.lock_manager.await_for_lock(key)
        record = self._in_memory(key)
        return await asyncio.to_thread(self._read, key) if record is None else record

    def _in_memory(self, key: str) -> ResultRecord[Any] | None:
        return self._remembered.get(self._uri(key)) if self.cache_result_in_memory else None

    def _read(self, key: str) -> ResultRecord[Any]:
        if self.metadata_storage is None:
            content = self.result_storage.read(key)
            record = ResultRecord.deserialize(content, own=self.serializer)
        else:
            described = ResultRecordMetadata.from_bytes(self.metadata_storage.read(key), self.serializer)
            content = self.result_storage.read(described.storage_key)
            record = ResultRecord.deserialize(content, described)
        record.kept = self._kept(record.metadata, split(content)[1])
        if self.cache_result_in_memory:
            self._remembered.put(self._uri(key), record, len(content))
        return record

    def find(self, key: str) -> ResultRecord[Any] | None:
        """The record under a key if it may be used: it is there, can be read, and has not expired.

        Asks no lock.
        """
        if self.cache_index is not None:
            return self._find_shared(self.cache_index, key)
        try:
            record = self._in_memory(key) or self._read(key)
        except (OSError, SerializationError, ValueError):
            return None
        return None if record.metadata.is_expired else record

    def _find_shared(self, index: CacheIndex, key: str) -> ResultRecord[Any] | None:
        """The record that the server knows of. A value that is not where it should be is forgotten there."""
        entry = index.look_up(key)
        if entry is None:
            return None
        record = self._remembered.get(entry.id) if self.cache_result_in_memory else None
        if record is not None:
            return record
        try:
            record, size_bytes = index.read(entry, self.serializer)
        except (FileNotFoundError, SerializationError, ConfigurationError) as error:
            index.drop(entry, error)
            return None
        except OSError:
            return None  # for a moment, perhaps, and perhaps only from here
        if self.cache_result_in_memory:
            self._remembered.put(entry.id, record, size_bytes)
        return record

    def share(self, record: ResultRecord[Any], producer: Producer, holder: str) -> None:
        """Tell the server where a record is that has just been written, if it is to know.

        Args:
            record: as it was written.
            producer: who has computed it, and for how long it may be used.
            holder: who has locked the key, if anybody has.

        Raises:
            ServiceError: the server does not answer, or another holder has had the lock since.
        """
        if self.cache_index is not None:
            fence = getattr(self.lock_manager, "fence", None)
            self.cache_index.put(record, producer, 0 if fence is None else fence(record.key, holder))

    def exists(self, key: str) -> bool:
        """Whether there is a record under the key that has not expired.

        Raises:
            OSError: the storage cannot be reached.
        """
        place = self.result_storage if self.metadata_storage is None else self.metadata_storage
        if not place.exists(key):
            return False
        try:
            return not ResultRecordMetadata.from_bytes(place.read(key), self.serializer).is_expired
        except (FileNotFoundError, SerializationError):
            return False

    async def aexists(self, key: str) -> bool:
        """The async twin of `exists`."""
        return await asyncio.to_thread(self.exists, key)

    # Writing.

    def create_result_record(
        self, obj: R, key: str | None = None, expiration: datetime | None = None
    ) -> ResultRecord[R]:
        """A record of `obj`, not written yet.

        Args:
            obj: the value.
            key: where it is to be kept; None: a random key.
            expiration: from when on it may not be used any more; aware.
        """
        return ResultRecord(obj, ResultRecordMetadata(key or new_id(), self.serializer, expiration))

    def persist_result_record(
        self, result_record: ResultRecord[Any], holder: str | None = None
    ) -> KeptResult:
        """Write a record in the place of what is under its key.

        Returns:
            What the record of a run says about it.

        Raises:
            SerializationError: the value cannot be serialised.
            OSError: it cannot be written.
            ValueError: the key leads out of the storage.
            RuntimeError: somebody else than `holder` has the key locked.
        """
        kept, write = self.prepare_record(result_record, holder)
        write()
        return kept

    def prepare_record(
        self, record: ResultRecord[Any], holder: str | None = None
    ) -> tuple[KeptResult, Callable[[], None]]:
        """Serialise a record as it is now, to be written later; see `persist_result_record`.

        Returns:
            What the record of a run says about it, and what writes it.

        Raises:
            SerializationError: the value cannot be serialised.
        """
        metadata, key = record.metadata, record.key
        blob = record.serialize_result()
        kept = self._kept(metadata, blob)

        def write() -> None:
            locks = self.lock_manager
            if locks is not None and not self.is_lock_holder(key, holder) and locks.is_locked(key):
                raise RuntimeError(f"The result {key!r} cannot be written: somebody else has it locked.")
            self.result_storage.write(key, metadata.to_bytes(blob) + blob)
            if self.metadata_storage is not None:
                self.metadata_storage.write(key, metadata.to_bytes())
            record.kept = kept
            if self.cache_result_in_memory:
                self._remembered.put(self._uri(key), record, len(blob))
            else:
                self._remembered.forget(self._uri(key))

        return kept, write

    async def apersist_result_record(
        self, result_record: ResultRecord[Any], holder: str | None = None
    ) -> KeptResult:
        """The async twin of `persist_result_record`."""
        return await asyncio.to_thread(self.persist_result_record, result_record, holder)

    def write(
        self,
        obj: Any,
        key: str | None = None,
        expiration: datetime | None = None,
        holder: str | None = None,
    ) -> ResultRecord[Any]:
        """Make a record of `obj`, and write it; see `create_result_record` and `persist_result_record`."""
        record = self.create_result_record(obj, key, expiration)
        self.persist_result_record(record, holder)
        return record

    async def awrite(
        self,
        obj: Any,
        key: str | None = None,
        expiration: datetime | None = None,
        holder: str | None = None,
    ) -> ResultRecord[Any]:
        """The async twin of `write`."""
        return await asyncio.to_thread(self.write, obj, key, expiration, holder)

    def _kept(self, metadata: ResultRecordMetadata, blob: bytes) -> KeptResult:
        return kept_as(metadata, locate(self.result_storage, metadata.storage_key), blob)

    def _uri(self, key: str) -> str:
        return locate(self.metadata_storage or self.result_storage, key)

    # Locks.

    @property
    def _locks(self) -> Any:
        if self.lock_manager is None:
            raise ConfigurationError(
                "Keys of results can be locked only with a lock manager: give one to the cache policy, "
                "`policy.configure(isolation_level='SERIALIZABLE', lock_manager=MemoryLockManager())`."
            )
        return self.lock_manager

    def supports_isolation_level(self, level: Any) -> bool:
        """Whether transactions of that isolation can be had; SERIALIZABLE needs a lock manager."""
        return getattr(level, "value", level) != "SERIALIZABLE" or self.lock_manager is not None

    def acquire_lock(self, key: str, holder: str | None = None, timeout: float | None = None) -> bool:
        """Lock a key; see `LockManager.acquire_lock`.

        Args:
            key: what to lock.
            holder: who asks; None: this thread.
            timeout: seconds to wait for it; None: as long as it takes.

        Returns:
            Whether it was had in time.

        Raises:
            ConfigurationError: there is no lock manager.
        """
        return bool(self._locks.acquire_lock(key, _holder(holder), timeout))

    async def aacquire_lock(self, key: str, holder: str | None = None, timeout: float | None = None) -> bool:
        """The async twin of `acquire_lock`."""
        return bool(await self._locks.aacquire_lock(key, _holder(holder), timeout))

    def release_lock(self, key: str, holder: str | None = None) -> None:
        """Give a lock back.

        Raises:
            ConfigurationError: there is no lock manager.
            ValueError: `holder` does not have it.
        """
        self._locks.release_lock(key, _holder(holder))

    def is_locked(self, key: str) -> bool:
        """Whether somebody has the key locked."""
        return bool(self._locks.is_locked(key))

    def is_lock_holder(self, key: str, holder: str | None = None) -> bool:
        """Whether `holder` has the key locked; None: this thread."""
        return bool(self._locks.is_lock_holder(key, _holder(holder)))

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody has the key locked; whether that came in time."""
        return bool(self._locks.wait_for_lock(key, timeout))

    def __repr__(self) -> str:
        return f"ResultStore({self.result_storage!r}, {self.serializer.type!r})"


def _share(store: ResultStore, *, is_serializable: bool) -> None:
    """Have a store's keys known to the server, and locked there if they are to be locked."""
    # Loaded by the first task whose results are shared so.
    store.cache_index = import_module("headrace.results.cache_index").CacheIndex()
    store.metadata_storage = None
    if is_serializable and store.lock_manager is None:
        store.lock_manager = import_module("headrace.locking.server").ServerLockManager()


def _holder(holder: str | None) -> str:
    return holder or f"thread:{os.getpid()}:{threading.get_ident()}"
