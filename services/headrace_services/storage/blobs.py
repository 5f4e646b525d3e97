"""Ids as SQLite keeps them."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["blob", "from_blob"]


@lru_cache(maxsize=16384)
def blob(id: str) -> bytes:
    """An id as SQLite keeps it.

    Raises:
        ValueError: it is none.
    """
    found = bytes.fromhex(id.replace("-", ""))
    if len(found) != 16:
        raise ValueError(f"{id!r} is not an id")
    return found


def from_blob(id: bytes | None) -> str | None:
    """An id as everybody else sees it."""
    if id is None:
        return None
    text = id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
