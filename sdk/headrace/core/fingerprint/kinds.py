"""What a value that is no leaf is made of."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

from headrace.core.fingerprint import functions
from headrace.core.fingerprint.nodes import HashError, Node, Order, fields, leaf, mapping, qualified, sequence
from headrace.core.fingerprint.reduced import of_reduced, of_set_like
from headrace.core.fingerprint.registry import registered

__all__ = ["decompose"]

Part = bytes | Node
"""A token, or what is to be gone through."""

_EXACT: Final[dict[type, Callable[[Any], Part]]] = {
    list: lambda value: sequence(b"[", value),
    tuple: lambda value: sequence(b"(", value),
    set: lambda value: sequence(b"{", value, order=Order.FREE),
    frozenset: lambda value: sequence(b"<", value, order=Order.FREE),
    dict: lambda value: mapping(b":", value.items()),
    OrderedDict: lambda value: mapping(b"o", value.items(), ordered=True),
    MappingProxyType: lambda value: mapping(b"p", value.items()),
    slice: lambda value: sequence(b"/", (value.start, value.stop, value.step)),
    re.Pattern: lambda value: sequence(b"x", (value.pattern, value.flags)),
    ZoneInfo: lambda value: _of_zone(value),
    FunctionType: functions.of_function,
    CodeType: functions.of_code,
    MethodType: lambda value: sequence(b"m", (value.__func__, value.__self__)),
    ModuleType: lambda value: leaf(b"M", value.__name__.encode()),
}


_FOREIGN: Final = {
    "numpy": "headrace.core.fingerprint.arrays",
    "pandas": "headrace.core.fingerprint.frames",
    "polars": "headrace.core.fingerprint.polars_frames",
    "pyarrow": "headrace.core.fingerprint.arrow_tables",
    "torch": "headrace.core.fingerprint.tensors",
}
"""Libraries whose values have an encoder: imported when one is met, for then the library is loaded too."""


def decompose(value: Any) -> Part:
    """The token of `value`, or the node to go through.

    Raises:
        HashError: it is more than data; the path is the caller's to fill in.
    """
    cls = cast("Any", type(value))
    exact = _EXACT.get(cls)
    if exact is not None:
        return exact(value)
    own = _own_words(value, cls)
    if own is not None:
        return own
    if isinstance(value, type):
        return functions.of_class(value)
    if isinstance(value, enum.Enum):
        return _of_enum(value)
    for base in cls.__mro__:
        home = _FOREIGN.get(str(base.__module__).partition(".")[0])
        if home is not None:
            part: Part | None = import_module(home).encode(value)
            if part is not None:
                return part
    return _of_instance(value, cls)


def _own_words(value: Any, cls: Any) -> Node | None:
    speak = getattr(cls, "__headrace_key__", None) or registered(cls)
    if speak is None:
        return None
    try:
        word = speak(value)
    except HashError:
        raise
    except Exception as error:
        raise HashError("", f"its key failed with {type(error).__name__}: {error}") from error
    return Node(b"K", (word,), lambda _: ".__headrace_key__()", header=qualified(cls))


def _of_enum(member: enum.Enum) -> Node:
    # A combination of flags has a name in some versions of Python only.
    name = None if isinstance(member, enum.Flag) else member.name
    return fields(b"E", qualified(type(member)), ("name", "value"), (name, member.value))


def _of_zone(zone: ZoneInfo) -> Part:
    key: Any = zone.key
    if key is None:
        raise HashError("", "is a time zone without a name")
    return leaf(b"w", key.encode())


def _of_instance(value: Any, cls: Any) -> Part:
    if isinstance(value, PurePath):
        return leaf(b"P", value.as_posix().encode("utf-8", "surrogateescape"))
    if isinstance(value, BuiltinFunctionType):
        return functions.of_builtin(value)
    if isinstance(value, frozenset | set):
        return of_set_like(value)
    if isinstance(value, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return fields(b"T", qualified(cls), cls._fields, value)  # type: ignore[attr-defined]
    if not isinstance(value, dict | list | tuple | str | bytes | int | float):
        names = _declared(value, cls)
        if names is not None:
            return _of_fields(value, cls, names)
    return of_reduced(value)


def _declared(value: Any, cls: Any) -> Iterable[str] | None:
    """The fields that count, of a class that declares them."""
    if hasattr(cls, "__pydantic_fields__"):
        return [*cls.__pydantic_fields__, *(getattr(value, "__pydantic_extra__", None) or ())]
    if hasattr(cls, "__fields_set__") and hasattr(cls, "__fields__"):  # pydantic 1
        return list(value.__dict__)
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if field.compare]
    attributes = getattr(cls, "__attrs_attrs__", None)
    if attributes is not None:
        return [attribute.name for attribute in attributes if attribute.eq]
    return None


_NOT_SET: Final = object()


def _of_fields(value: Any, cls: type, names: Iterable[str]) -> Node:
    found = {name: getattr(value, name, _NOT_SET) for name in names}
    held = {name: part for name, part in found.items() if part is not _NOT_SET}
    return fields(b"O", qualified(cls), list(held), held.values())
