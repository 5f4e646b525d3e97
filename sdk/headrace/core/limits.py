"""Sizes above which something is refused with a clear error. One table, used by both sides.

The transport's own limit (`TRANSPORT_MESSAGE_BYTES`) stays well above the others, because gRPC answers a
message over it by ending the whole stream.
"""

from __future__ import annotations

from typing import Final

TRANSPORT_MESSAGE_BYTES: Final = 8 * 1024 * 1024
MESSAGE_BYTES: Final = 1024 * 1024
INLINE_PAYLOAD_BYTES: Final = 64 * 1024
EVENT_BYTES: Final = 1_000_000
LOG_MESSAGE_BYTES: Final = 32 * 1024
STATE_MESSAGE_BYTES: Final = 8 * 1024
BATCH_ENTRIES: Final = 1000
BATCH_BYTES: Final = 512 * 1024
INPUT_RUN_IDS: Final = 5000
TAGS_PER_RUN: Final = 50
NAME_CHARACTERS: Final = 200
CACHE_KEY_CHARACTERS: Final = 2000
PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1000
RECORD_WINDOW_ENTRIES: Final = 10_000
PROTOCOL_MIN: Final = 1
PROTOCOL_MAX: Final = 1
"""Versions of the record stream that this code speaks."""
