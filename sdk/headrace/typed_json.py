"""Python values as plain JSON values that say which class they came from.

A value that JSON has no words for becomes `{"__class__": "package.module.Name", "data": …}`. Only classes
that hold data are made again: the built-in containers, numbers and times, enums, dataclasses, pydantic models
and exceptions. A dict that has such a key itself, or keys that are not text, is written as a list of pairs.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from importlib import import_module
from pathlib import PurePath
from typing import Any, Final, cast
from uuid import UUID

from headrace.exceptions import SerializationError

__all__ = ["MARK", "MARK_BYTES", "from_plain", "to_plain"]

MARK: Final = "__class__"
MARK_BYTES: Final = b'"__class__"'

_LISTED: Final = (tuple, set, frozenset)
_TEXT: Final[dict[type[Any], tuple[Callable[[Any], Any], Callable[[Any], Any]]]] = {
    bytes: (lambda value: base64.b64encode(value).decode(), base64.b64decode),
    bytearray: (
        lambda value: base64.b64encode(value).decode(),
        lambda text: bytearray(base64.b64decode(text)),
    ),
    complex: (str, complex),
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    time: (time.isoformat, time.fromisoformat),
    timedelta: (
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts: timedelta(*parts),
    ),
    Decimal: (str, Decimal),
    Fraction: (str, Fraction),
    UUID: (str, UUID),
}
"""How a value of exactly this class is written and read."""


def to_plain(value: Any) -> Any:
    """`value` in None, bool, int, float, str, lists and dicts with text for keys.

    Raises:
        SerializationError: something in it has a class that cannot be written.
        RecursionError: it is nested too deeply, or holds itself.
    """
    cls = cast("type[Any]", type(value))
    if value is None or cls in (bool, int, str):
        return value
    if cls is float:
        return value if math.isfinite(value) else _marked(float, repr(value))
    if cls is list:
        return [to_plain(item) for item in value]
    if cls is dict:
        return _of_dict(value)
    if cls in _LISTED:
        return _marked(cls, [to_plain(item) for item in value])
    if cls in _TEXT:
        return _marked(cls, _TEXT[cls][0](value))
    return _of_object(cls, value)


def _of_dict(value: dict[Any, Any]) -> Any:
    if MARK not in value and all(type(key) is str for key in value):
        return {key: to_plain(item) for key, item in value.items()}
    return _marked(dict, [[to_plain(key), to_plain(item)] for key, item in value.items()])


def _of_object(cls: type[Any], value: Any) -> Any:
    if isinstance(value, PurePath):
        return _marked(cls, str(value))
    if isinstance(value, Enum):
        return _marked(cls, value.name)
    if _is_model(cls):
        return _marked(cls, value.model_dump(mode="json"))
    if dataclasses.is_dataclass(cls):
        return _marked(cls, {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(cls)})
    if isinstance(value, BaseException):
        return _marked(cls, {"args": to_plain(list(value.args))})
    raise SerializationError(
        f"{_path(cls)} cannot be written as JSON: use the serializer 'pickle', or return a dict, "
        "a dataclass or a pydantic model."
    )


def _marked(cls: type[Any], data: Any) -> dict[str, Any]:
    return {MARK: _path(cls), "data": data}


def _path(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_model(cls: type[Any]) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def from_plain(value: Any) -> Any:
    """The value that `to_plain` made `value` of.

    Raises:
        SerializationError: a class is not there, or may not be made from JSON.
    """
    if type(value) is list:
        return [from_plain(item) for item in cast("list[Any]", value)]
    if type(value) is not dict:
        return value
    members = cast("dict[str, Any]", value)
    if MARK not in members:
        return {key: from_plain(item) for key, item in members.items()}
    return _made(_class_at(members[MARK]), members["data"])


def _made(cls: type[Any], data: Any) -> Any:
    if cls is float:
        return float(data)
    if cls is dict:
        return {from_plain(key): from_plain(item) for key, item in data}
    if cls in _LISTED:
        return cast("Any", cls)(from_plain(item) for item in data)
    if cls in _TEXT:
        return _TEXT[cls][1](data)
    if issubclass(cls, PurePath):
        return cls(data)
    if issubclass(cls, Enum):
        return cls[data]
    if _is_model(cls):
        return cls.model_validate(data)
    if dataclasses.is_dataclass(cls):
        return _dataclass(cls, {name: from_plain(item) for name, item in data.items()})
    if issubclass(cls, BaseException):
        return cls(*from_plain(data["args"]))
    raise SerializationError(f"{_path(cls)} is not made from JSON.")


def _dataclass(cls: type[Any], members: dict[str, Any]) -> Any:
    made: Any = object.__new__(cls)
    for name, member in members.items():
        object.__setattr__(made, name, member)
    return made


def _class_at(path: str) -> type[Any]:
    parts = path.split(".")
    for split in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:split])
        try:
            found: Any = sys.modules.get(name) or import_module(name)
        except ImportError:
            continue
        for part in parts[split:]:
            found = getattr(found, part, None)
        if isinstance(found, type):
            return cast("type[Any]", found)
        break
    raise SerializationError(f"The class {path} of a recorded value is not there.")
