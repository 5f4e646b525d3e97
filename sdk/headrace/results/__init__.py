"""What runs returned: how it is recorded, where it is kept, and how it comes back.

`encode_value` and `StoredResult` are about what travels in the record; `ResultStore` and `get_result_store`
about what is kept outside of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.results.payloads import (
    EncodedValue,
    InlineResult,
    KeptResult,
    StoredResult,
    encode_value,
    load_payload,
    payload_metadata,
)

if TYPE_CHECKING:
    from headrace.context import get_result_store as get_result_store
    from headrace.context import should_persist_result as should_persist_result
    from headrace.results.records import ResultRecord as ResultRecord
    from headrace.results.records import ResultRecordMetadata as ResultRecordMetadata
    from headrace.results.store import ResultStore as ResultStore

__all__ = [
    "EncodedValue",
    "InlineResult",
    "KeptResult",
    "ResultRecord",
    "ResultRecordMetadata",
    "ResultStore",
    "StoredResult",
    "encode_value",
    "get_result_store",
    "load_payload",
    "payload_metadata",
    "should_persist_result",
]

_HOMES = {
    "ResultRecord": "headrace.results.records",
    "ResultRecordMetadata": "headrace.results.records",
    "ResultStore": "headrace.results.store",
    "get_result_store": "headrace.context",
    "should_persist_result": "headrace.context",
}


def __getattr__(name: str) -> Any:
    # Loaded by their first use: most programs keep nothing.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
