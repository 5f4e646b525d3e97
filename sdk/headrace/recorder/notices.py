"""What is said once per process and not with every entry."""

from __future__ import annotations

import logging

__all__ = ["Notices", "logger"]

logger = logging.getLogger("headrace.recorder")


class Notices:
    """Warnings by key, each said at its first occasion."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def once(self, key: str, message: str) -> None:
        """Log `message` unless something was said under `key` before."""
        if key not in self._said:
            self._said.add(key)
            logger.warning("%s", message)
