"""What the worker and one run process say to each other: JSON objects, each after its length."""

from __future__ import annotations

import json
import struct
from typing import Any, Final

__all__ = ["HEAD_BYTES", "decode_head", "encode"]

_HEAD: Final = struct.Struct("!I")
HEAD_BYTES: Final = _HEAD.size


def encode(message: dict[str, Any]) -> bytes:
    """A message with its length."""
    body = json.dumps(message).encode()
    return _HEAD.pack(len(body)) + body


def decode_head(head: bytes) -> int:
    """How many bytes follow."""
    length: int = _HEAD.unpack(head)[0]
    return length
