"""What is written of every change, for those who watch."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from headrace.core.errors import ResumeTokenInvalid

__all__ = ["KEPT_SECONDS", "OutboxKind", "Position", "format_position", "ids_of", "parse_position"]

KEPT_SECONDS: Final = 3600
"""How long a change is kept: a resume token older than that is expired."""


class OutboxKind(IntEnum):
    """What happened to the runs whose ids a row holds."""

    CHANGED = 1
    REMOVED = 2


Position = tuple[int, int]
"""(xid, seq): on PostgreSQL the transaction and the place within; on SQLite 0 and the order of commits."""


def parse_position(token: str, kind: str) -> Position:
    """The position of a resume token.

    Args:
        token: as it was given out.
        kind: what it must be for, e.g. "runs".

    Raises:
        ResumeTokenInvalid: the token was not made here, or for something else.
    """
    found, _, place = token.partition(".")
    xid, _, seq = place.partition("-")
    if found != kind or not (xid.isascii() and xid.isdigit() and seq.isascii() and seq.isdigit()):
        raise ResumeTokenInvalid()
    if len(xid) > 19 or len(seq) > 19:
        raise ResumeTokenInvalid()
    return int(xid), int(seq)


def format_position(position: Position, kind: str) -> str:
    """The resume token of a position."""
    return f"{kind}.{position[0]}-{position[1]}"


def ids_of(keys: bytes) -> list[bytes]:
    """The ids of a row, 16 bytes each."""
    return [keys[i : i + 16] for i in range(0, len(keys), 16)]
