"""Cache entries as rows, and as the messages that show them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from headrace.v1.cache_pb2 import CacheEntry
from headrace_services.storage.entities import Entity, column
from headrace_services.storage.instants import set_micros

__all__ = ["CacheEntryRow", "entry_message", "tag_text"]


@dataclass(slots=True)
class CacheEntryRow(Entity):
    """Where the result of a key is. The row is locked when it is read to be changed."""

    TABLE = "cache_entries"
    KEY = ("name",)

    name: str = column("text")
    id: str = column("uuid")
    producer_run_id: str = column("uuid")
    task_name: str = column("text")
    flow_name: str = column("text")
    tags: str = column("text")
    """A JSON list."""
    fence: int = column("bigint")
    """Of the lock under which it was written; 0: under none."""
    create_time: int = column("bigint")
    expire_time: int | None = column("bigint")
    result: bytes = column("bytea")
    """headrace.v1.Payload"""


def tag_text(tag: str) -> str:
    """What the JSON list of the tags of an entry contains if the tag is one of them."""
    return json.dumps(tag, ensure_ascii=False)


def entry_message(row: CacheEntryRow) -> CacheEntry:
    """The entry as it is shown."""
    entry = CacheEntry(
        id=row.id,
        key=row.name,
        producer_run_id=row.producer_run_id,
        task_name=row.task_name,
        flow_name=row.flow_name,
        tags=json.loads(row.tags),
    )
    entry.result.ParseFromString(row.result)
    set_micros(entry.create_time, row.create_time)
    if row.expire_time is not None:
        set_micros(entry.expire_time, row.expire_time)
    return entry
