"""Work pools and queues: from messages to rows and back."""

from __future__ import annotations

import json
from typing import Final

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct

from headrace.core.errors import FieldsInvalid
from headrace.v1.work_pool_pb2 import WorkPool, WorkQueue
from headrace_services.domain.structs import whole_numbers
from headrace_services.storage.declared_rows import WorkPoolRow, WorkQueueRow
from headrace_services.storage.instants import set_micros

__all__ = [
    "DEFAULT_QUEUE",
    "limit_of",
    "pool_message",
    "queue_message",
    "struct_of",
    "struct_text",
]

DEFAULT_QUEUE: Final = "default"
_LARGEST: Final = 2**31 - 1


def struct_text(struct: Struct) -> str:
    """The object as JSON text with its keys in order: equal objects are equal text."""
    return json.dumps(whole_numbers(MessageToDict(struct)), sort_keys=True)


def struct_of(text: str) -> Struct:
    """The object of JSON text."""
    struct = Struct()
    ParseDict(json.loads(text), struct)
    return struct


def limit_of(message: WorkPool | WorkQueue, field: str) -> int | None:
    """The limit that the message sets; None: none.

    Raises:
        FieldsInvalid: it is too large to be one.
    """
    if not message.HasField("concurrency_limit"):
        return None
    if message.concurrency_limit > _LARGEST:
        raise FieldsInvalid.of(f"{field}.concurrency_limit", f"must be at most {_LARGEST}")
    return message.concurrency_limit


def pool_message(row: WorkPoolRow, default_queue: str) -> WorkPool:
    """The pool as it is shown, without its status and load."""
    pool = WorkPool(
        id=row.id,
        name=row.name,
        type=row.type,
        description=row.description,
        base_job_template=struct_of(row.base_job_template),
        concurrency_limit=row.concurrency_limit,
        paused=row.is_paused,
        default_queue=default_queue,
        etag=str(row.version),
    )
    set_micros(pool.create_time, row.create_time)
    set_micros(pool.update_time, row.update_time)
    return pool


def queue_message(row: WorkQueueRow, pool_name: str) -> WorkQueue:
    """The queue as it is shown, without its status and load."""
    queue = WorkQueue(
        id=row.id,
        work_pool=pool_name,
        name=row.name,
        description=row.description,
        priority=row.priority,
        concurrency_limit=row.concurrency_limit,
        paused=row.is_paused,
        is_default=row.is_default,
        etag=str(row.version),
    )
    set_micros(queue.create_time, row.create_time)
    set_micros(queue.update_time, row.update_time)
    return queue
