"""The encoder: goes through a value with a stack of its own, so that depth is no limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from headrace.core.fingerprint.kinds import decompose
from headrace.core.fingerprint.leaves import LEAVES
from headrace.core.fingerprint.nodes import HashError, Node, Order, leaf, new_digest, token

__all__ = ["fingerprint"]

VERSION: Final = b"\x01"
"""Changes whenever any value's fingerprint does."""

_TANGLED_MAX: Final = 1_000
"""How often one object may be met anew on ways through one cycle."""


def fingerprint(value: Any, *, name: str = "value") -> str:
    """The fingerprint of a value: 66 hexadecimal digits, of which the first two are the version.

    Args:
        value: anything made of data. Objects say themselves what counts by `__headrace_key__(self)`, or a
            function does that `register_cache_encoder` knows; otherwise fields count, or what a pickle would
            hold.
        name: what the value is called in errors.

    Raises:
        HashError: something in it is more than data, e.g. a lock, a file, a generator.
    """
    digest = new_digest()
    digest.update(VERSION)
    digest.update(_Walk(name).token_of(value))
    return (VERSION + digest.digest()).hex()


class _Frame:
    """A node whose children are being gone through."""

    __slots__ = ("add", "digest", "lowest", "node", "position", "tokens", "value")

    def __init__(self, value: Any, node: Node, depth: int) -> None:
        self.value = value  # held, so that its id is not another's
        self.node = node
        self.position = -1
        self.lowest = depth
        self.tokens: list[bytes] = []
        self.digest = new_digest()
        self.digest.update(node.tag + bytes((node.order,)))
        if node.header:
            self.digest.update(len(node.header).to_bytes(4, "big"))
            self.digest.update(node.header)
        self.add: Callable[[bytes], object]
        self.add = self.digest.update if node.order is Order.KEPT else self.tokens.append

    def end(self) -> bytes:
        tokens = self.tokens
        if self.node.order is Order.FREE_PAIRS:
            tokens = [key + value for key, value in zip(tokens[::2], tokens[1::2], strict=True)]
        for one in sorted(tokens):
            self.digest.update(one)
        return token(self.node.tag, self.digest)


class _Walk:
    """One fingerprint in the making."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack: list[_Frame] = []
        self._open: dict[int, int] = {}  # id -> depth of what is on the stack
        # Values are kept with their tokens: a temporary one must not give its id to the next.
        self._known: dict[int, tuple[Any, bytes]] = {}
        self._tangled: dict[int, int] = {}

    def token_of(self, value: Any) -> bytes:
        found = self._visit(value)
        stack = self._stack
        while found is None:
            frame = stack[-1]
            add = frame.add
            for child in frame.node.children:
                frame.position += 1
                encode = LEAVES.get(cast("type[Any]", type(child)))
                known = self._visit(child) if encode is None else encode(child)
                if known is None:
                    break
                add(known)
            else:
                found = self._leave(frame)
                if stack:
                    stack[-1].add(found)
                    found = None
        return found

    def _visit(self, value: Any) -> bytes | None:
        """The token of a value, or None: it has been put on the stack."""
        cls = cast("Any", type(value))
        encode = LEAVES.get(cls)
        if encode is not None:
            return encode(value)
        key = id(value)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        depth = self._open.get(key)
        if depth is not None:
            # A cycle: told by how far up it leads, which is the same whatever was met before.
            self._stack[-1].lowest = min(self._stack[-1].lowest, depth)
            return leaf(b"^", (len(self._stack) - depth).to_bytes(8, "big"))
        try:
            part = value if cls is Node else decompose(value)
        except HashError as error:
            raise HashError(self._path(), error.reason) from error.__cause__
        except Exception as error:  # a property, a pickling method, a library: anything may run here
            reason = f"taking it apart failed with {type(error).__name__}: {error}"
            raise HashError(self._path(), reason) from error
        if isinstance(part, bytes):
            return part
        self._open[key] = len(self._stack)
        self._stack.append(_Frame(value, part, len(self._stack)))
        return None

    def _leave(self, frame: _Frame) -> bytes:
        self._stack.pop()
        key = id(frame.value)
        depth = self._open.pop(key)
        found = frame.end()
        if frame.lowest >= depth:
            self._known[key] = (frame.value, found)
            return found
        # Inside a cycle the token says where the cycle was entered: it holds for this way only.
        self._stack[-1].lowest = min(self._stack[-1].lowest, frame.lowest)
        self._tangled[key] = met = self._tangled.get(key, 0) + 1
        if met > _TANGLED_MAX:
            raise HashError(self._path(), "is part of too many cycles; give it a __headrace_key__")
        return found

    def _path(self) -> str:
        return self._name + "".join(frame.node.label(frame.position) for frame in self._stack)
