"""Lengths of time as people type them."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MAX_SPAN_SECONDS", "span_seconds"]

MAX_SPAN_SECONDS: Final = 1000 * 366 * 86400
"""What is further away than that is a mistake, and may be no date at all."""

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w|seconds?|minutes?|hours?|days?|weeks?)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def span_seconds(typed: str) -> float | None:
    """The seconds that "90s", "15m" or "2 hours" means; None: it is no length of time."""
    found = _SPAN.fullmatch(typed.strip().lower())
    return None if found is None else float(found[1]) * _SECONDS[found[2][0]]
