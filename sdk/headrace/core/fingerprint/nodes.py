"""What a value is made of, as the encoder sees it: a token for a leaf, a `Node` for what holds others.

A token is a tag of one byte, a length byte and that many bytes; `0xFF` in the place of the length stands for
a digest of 32 bytes. Tokens therefore end where they end, whatever follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Any, Final

from headrace.core.errors import HashError

__all__ = [
    "DIGEST_BYTES",
    "HashError",
    "Node",
    "Order",
    "fields",
    "leaf",
    "mapping",
    "new_digest",
    "qualified",
    "sequence",
    "token",
]

DIGEST_BYTES: Final = 32
_INLINE_MAX: Final = 64
_DIGEST_FOLLOWS: Final = b"\xff"


class Order(IntEnum):
    """Whether the order of children counts."""

    KEPT = 1
    FREE = 2
    FREE_PAIRS = 3
    """Key, value, key, value: a key stays with its value."""


class Node:
    """A value that holds others.

    Attributes:
        tag: one byte, the kind of the value.
        children: what it holds, in order.
        order: whether that order counts.
        header: what else belongs to the value; hashed before the children.
        label: the n-th child's place, for messages.
    """

    __slots__ = ("children", "header", "label", "order", "tag")

    def __init__(
        self,
        tag: bytes,
        children: Iterable[Any],
        label: Callable[[int], str],
        *,
        order: Order = Order.KEPT,
        header: bytes = b"",
    ) -> None:
        self.tag = tag
        self.children: Iterator[Any] = iter(children)
        self.label = label
        self.order = order
        self.header = header


def new_digest() -> hashlib.blake2b:
    """The one hash function of fingerprints."""
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def leaf(tag: bytes, content: bytes | memoryview) -> bytes:
    """The token of a value that holds no others."""
    size = len(content)
    if size <= _INLINE_MAX:
        return tag + bytes((size,)) + bytes(content)
    digest = new_digest()
    digest.update(tag)
    digest.update(content)
    return token(tag, digest)


def token(tag: bytes, digest: hashlib.blake2b) -> bytes:
    """The token that carries a digest."""
    return tag + _DIGEST_FOLLOWS + digest.digest()


def qualified(named: Any) -> bytes:
    """Module and name of a class or function."""
    module = getattr(named, "__module__", None) or ""
    name = getattr(named, "__qualname__", None) or getattr(named, "__name__", "")
    return f"{module}:{name}".encode("utf-8", "surrogatepass")


def _index(position: int) -> str:
    return f"[{position}]"


def sequence(tag: bytes, items: Iterable[Any], *, order: Order = Order.KEPT, header: bytes = b"") -> Node:
    """A node whose children are known by number."""
    return Node(tag, items, _index, order=order, header=header)


def mapping(
    tag: bytes, pairs: Iterable[tuple[Any, Any]], *, ordered: bool = False, header: bytes = b""
) -> Node:
    """A node of keys and values."""
    listed = list(pairs)
    flat = [part for pair in listed for part in pair]

    def label(position: int) -> str:
        key = listed[position // 2][0]
        shown = repr(key) if isinstance(key, str | int) else f"<{type(key).__name__}>"
        return f"[{shown}]" if position % 2 else f".keys()[{position // 2}]"

    return Node(tag, flat, label, order=Order.KEPT if ordered else Order.FREE_PAIRS, header=header)


def fields(tag: bytes, header: bytes, names: Sequence[str], values: Iterable[Any]) -> Node:
    """A node of named fields; their order is not part of the value, so they are sorted by name."""
    pairs = sorted(zip(names, values, strict=True), key=lambda pair: pair[0])
    flat = [part for pair in pairs for part in pair]

    def label(position: int) -> str:
        name = pairs[position // 2][0]
        return "" if name.startswith("\0") else f".{name}"

    return Node(tag, flat, label, header=header)
