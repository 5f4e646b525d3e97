"""Identifiers: UUIDv7 (RFC 9562), made by whoever creates the thing."""

from __future__ import annotations

import os
import threading
import time
import uuid
from functools import lru_cache

__all__ = ["flow_id_of", "is_id", "new_id"]

_FLOWS = uuid.UUID("6e9d3c1e-58a7-5f0c-9a51-3f0de2c1b7a4")

_POOL_BYTES = 4096
_HEX = frozenset("0123456789abcdef")


class _Source:
    """Time-ordered ids that never repeat and never go backwards within one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._pool = b""
        self._next = 0

    def take(self) -> str:
        with self._lock:
            # 48 bits of milliseconds and 12 of their fraction: RFC 9562, section 6.2, method 3.
            ns = time.time_ns()
            ticks = (ns // 1_000_000 << 12) | (ns % 1_000_000 * 4096 // 1_000_000)
            if ticks <= self._last:
                ticks = self._last + 1
            self._last = ticks
            if self._next >= len(self._pool):
                self._pool = os.urandom(_POOL_BYTES)
                self._next = 0
            rand = int.from_bytes(self._pool[self._next : self._next + 8], "big")
            self._next += 8
        high = (ticks >> 12 << 16) | 0x7000 | (ticks & 0xFFF)
        low = (rand & 0x3FFF_FFFF_FFFF_FFFF) | 0x8000_0000_0000_0000
        text = f"{high << 64 | low:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_source = _Source()


def _reset_after_fork() -> None:
    """A forked child must not hand out its parent's random bytes again."""
    global _source
    _source = _Source()


os.register_at_fork(after_in_child=_reset_after_fork)


def new_id() -> str:
    """A new UUIDv7 as 36 lower-case characters; later calls in this process sort after earlier ones."""
    return _source.take()


def is_id(text: str) -> bool:
    """Whether `text` is a UUID in its canonical 36-character form (any version, lower case)."""
    return (
        len(text) == 36
        and text[8] == text[13] == text[18] == text[23] == "-"
        and _HEX.issuperset(text.replace("-", ""))
    )


@lru_cache(maxsize=1024)
def flow_id_of(name: str, workspace: int = 1) -> str:
    """The id of the flow called `name`: it follows from the name, so that nobody must ask for it."""
    return str(uuid.uuid5(_FLOWS, f"{workspace}/{name}"))
