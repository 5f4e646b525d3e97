"""Messages of the wire as JSON for scripts.

The keys are the proto's field names, in its order, and every key is always there:

    Timestamp   RFC 3339 in UTC with six decimals, e.g. "2026-11-20T09:16:17.000000Z"
    Duration    seconds, a number
    enum        the name without its type's prefix, e.g. "COMPLETED"; null when unspecified
    Payload     the value itself where it is JSON; else its encoding and size
    bytes       base64
    unset       null; the members of a oneof are the exception: only the one that is set appears
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

__all__ = ["enum_word", "payload_value", "to_json"]

_MICROS = 1_000_000


class _Step(NamedTuple):
    name: str
    convert: Callable[[Any], Any]
    repeated: bool
    has_presence: bool
    in_oneof: bool


def to_json(message: Message) -> Any:
    """`message` as what `json.dumps` takes; see the module for the form."""
    special = _SPECIAL.get(message.DESCRIPTOR.full_name)
    if special is not None:
        return special(message)
    found: dict[str, Any] = {}
    for step in _plan(message.DESCRIPTOR):
        if step.repeated:
            found[step.name] = step.convert(getattr(message, step.name))
        elif step.has_presence and not message.HasField(step.name):
            if not step.in_oneof:
                found[step.name] = None
        else:
            found[step.name] = step.convert(getattr(message, step.name))
    return found


def enum_word(descriptor: EnumDescriptor, number: int) -> str | None:
    """The name of an enum's value without the enum's prefix; None for 0; the digits for a newer peer's."""
    if number == 0:
        return None
    value = descriptor.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in descriptor.name).lstrip("_") + "_"
    return str(value.name).removeprefix(prefix)


def payload_value(payload: Any) -> Any:
    """The value of a `Payload` that is JSON; else what it is and how large."""
    which = payload.WhichOneof("body")
    if which == "inline" and payload.encoding == "json":
        try:
            return json.loads(payload.inline)
        except ValueError:
            pass
    described: dict[str, Any] = {"encoding": payload.encoding, "metadata": dict(payload.metadata)}
    if which == "blob":
        described |= {"uri": payload.blob.uri, "size_bytes": payload.blob.size_bytes}
    else:
        described["size_bytes"] = len(payload.inline)
    return described


def _timestamp(message: Any) -> str:
    from datetime import UTC, datetime

    whole = datetime.fromtimestamp(message.seconds, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{message.nanos // 1000:06d}Z"


def _duration(message: Any) -> float:
    return float(round(message.seconds + message.nanos / 1e9, 9))


def _struct_value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(message.struct_value)
    if kind == "list_value":
        return [_struct_value(v) for v in message.list_value.values]
    if kind == "number_value" and message.number_value.is_integer():
        return int(message.number_value)
    return None if kind in (None, "null_value") else getattr(message, kind)


def _struct(message: Any) -> dict[str, Any]:
    return {key: _struct_value(value) for key, value in sorted(message.fields.items())}


_SPECIAL: dict[str, Callable[[Any], Any]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _struct,
    "headrace.v1.Payload": payload_value,
}


@lru_cache
def _plan(descriptor: Descriptor) -> tuple[_Step, ...]:
    steps: list[_Step] = []
    for field in descriptor.fields:
        oneof = field.containing_oneof
        # A field that is merely `optional` stands in a oneof of its own, named with an underscore.
        in_oneof = oneof is not None and not oneof.name.startswith("_")
        steps.append(_Step(field.name, _converter(field), field.is_repeated, field.has_presence, in_oneof))
    return tuple(steps)


def _converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = _single(field.message_type.fields_by_name["value"])
        return lambda pairs: {str(key): value(pairs[key]) for key in sorted(pairs)}
    single = _single(field)
    if field.is_repeated:
        return lambda items: [single(item) for item in items]
    return single


def _single(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.message_type is not None:
        return to_json
    enum = field.enum_type
    if enum is not None:
        words = {number: enum_word(enum, number) for number in enum.values_by_number}
        return lambda number: words.get(number, str(number))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda raw: base64.b64encode(raw).decode("ascii")
    return lambda value: value
