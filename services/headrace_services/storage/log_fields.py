"""The fields of log lines, in the form in which both databases can compare them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct, Value

from headrace_services.storage.rows import text

__all__ = ["encode_fields", "encode_value"]


def encode_fields(fields: Struct) -> str | None:
    """A JSON object of every field's name to its value as JSON text; those of objects with dotted names."""
    found = {text(name): _encoded(value) for name, value in _flat("", MessageToDict(fields))}
    return json.dumps(found) if found else None


def encode_value(value: Value) -> str:
    """A value as `encode_fields` has it."""
    return _encoded(MessageToDict(value))


def _flat(prefix: str, fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        yield prefix + name, value
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", cast("dict[str, Any]", value))


def _encoded(value: Any) -> str:
    return text(json.dumps(_plain(value), sort_keys=True, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """On the wire every number has a fraction; 3.0 is 3."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in cast("dict[str, Any]", value).items()}
    return [_plain(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value
