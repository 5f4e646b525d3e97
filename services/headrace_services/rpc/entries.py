"""Recorded entries are checked one by one: a bad one is refused, the others are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from headrace.core import limits
from headrace.core.errors import MessageTooLarge, ServiceError
from headrace.v1.record_service_pb2 import RecordEntries, RecordEntry
from headrace_services.rpc.validation import rules

__all__ = ["refused_entries"]

_BATCH: Final = "headrace.v1.RecordEntries"


def refused_entries(batch: RecordEntries) -> tuple[Sequence[RecordEntry], dict[int, ServiceError]]:
    """The entries to record, and by sequence number why some of them must not be.

    A refused entry is replaced by an empty one, which records nothing and keeps the sequence whole.
    """
    data = batch.SerializeToString()
    checked = rules().parse(_BATCH, data)
    if len(data) <= limits.MESSAGE_BYTES and rules().is_valid(checked):
        return batch.entries, {}
    refused = {
        batch.first_seq + index: error
        for index, entry in enumerate(checked.entries)
        if (error := _refusal(batch.entries[index], entry, index)) is not None
    }
    if not refused:
        return batch.entries, {}
    kept = [
        RecordEntry() if batch.first_seq + index in refused else entry
        for index, entry in enumerate(batch.entries)
    ]
    return kept, refused


def _refusal(entry: RecordEntry, checked: Any, index: int) -> ServiceError | None:
    size = entry.ByteSize()
    if size > limits.MESSAGE_BYTES:
        return MessageTooLarge(
            f"The entry has {size} bytes; the server takes up to {limits.MESSAGE_BYTES}.",
            facts={"max_bytes": str(limits.MESSAGE_BYTES), "bytes": str(size)},
        )
    return rules().check_parsed(checked, f"entries[{index}].")
