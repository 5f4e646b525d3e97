"""Objects that declare nothing: taken apart as a pickle would, and only into data."""

from __future__ import annotations

import copyreg
from collections import OrderedDict
from typing import Any, Final, cast

from headrace.core.fingerprint.nodes import HashError, Node, Order, fields, leaf, mapping, qualified, sequence

__all__ = ["of_reduced", "of_set_like"]

_NEW: Final = {copyreg.__newobj__, getattr(copyreg, "__newobj_ex__", None)}  # type: ignore[attr-defined]
_PROTOCOL: Final = 4
# Names that no attribute has.
_ARGUMENTS: Final = "\0arguments"
_ITEMS: Final = "\0items"
_PAIRS: Final = "\0pairs"
_STATE: Final = "\0state"


def of_reduced(value: Any) -> bytes | Node:
    """The parts of any object that can be pickled.

    Raises:
        HashError: it cannot be, because it holds a lock, a file, a connection, an address.
    """
    cls = cast("Any", type(value))
    reduced = _reduce(value, cls)
    if isinstance(reduced, str):
        return leaf(b"G", f"{cls.__module__}:{cls.__qualname__}:{reduced}".encode())
    padded: list[Any] = [*reduced, None, None, None]
    make, arguments, state, items, pairs = padded[:5]
    parts: dict[str, Any] = {}
    if make in _NEW:
        arguments = arguments[1:]
    if arguments:
        parts[_ARGUMENTS] = sequence(b"(", [_named(argument) for argument in arguments])
    parts.update(_of_state(state))
    if items is not None:
        parts[_ITEMS] = sequence(b"[", items)
    if pairs is not None:
        parts[_PAIRS] = mapping(b":", pairs, ordered=isinstance(value, OrderedDict))
    header = qualified(cls) + (b"" if make in _NEW or make is cls else b"\0" + qualified(make))
    return fields(b"R", header, list(parts), parts.values())


def of_set_like(value: Any) -> Node:
    """An instance of a subclass of `set` or `frozenset`, whose pickle has its members in an order."""
    parts: dict[str, Any] = {_ITEMS: sequence(b"{", value, order=Order.FREE)}
    parts.update(getattr(value, "__dict__", {}))
    return fields(b"R", qualified(type(value)), list(parts), parts.values())


def _reduce(value: Any, cls: Any) -> Any:
    try:
        return value.__reduce_ex__(_PROTOCOL)
    except Exception as error:
        name = f"{cls.__module__}.{cls.__qualname__}"
        raise HashError(
            "", f"{name} is more than data ({error}); give it a __headrace_key__, or leave it out"
        ) from error


def _named(argument: Any) -> Any:
    """Classes that are named only to make the object count by name."""
    if isinstance(argument, type):
        return leaf_node(qualified(argument))
    return argument


def leaf_node(content: bytes) -> Node:
    """A token as something to be gone through, for places where values stand."""
    return sequence(b"N", (), header=content)


def _of_state(state: Any) -> dict[str, Any]:
    """The attributes by name; with slots, they come as a pair."""
    pair = cast("tuple[Any, ...]", state) if isinstance(state, tuple) else (state,)
    if len(pair) > 2 or not all(_is_attributes(part) for part in pair):
        return {_STATE: state}
    attributes: dict[str, Any] = {}
    for part in pair:
        attributes.update(part or {})
    return attributes


def _is_attributes(part: Any) -> bool:
    if part is None:
        return True
    return type(part) is dict and all(type(name) is str for name in cast("dict[Any, Any]", part))
