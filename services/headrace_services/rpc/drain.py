"""The server is about to stop: one word that every stream listens for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Drain"]


class Drain:
    """Begins once, when the server is told to stop. Belongs to one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._listeners: set[Callable[[], None]] = set()

    @property
    def begun(self) -> bool:
        """Whether the server is stopping."""
        return self._event.is_set()

    def begin(self) -> None:
        """Tell everybody."""
        self._event.set()
        for listener in list(self._listeners):
            listener()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` when the server stops, at once if it does already.

        Returns:
            What takes the listener away again.
        """
        self._listeners.add(listener)
        if self.begun:
            listener()
        return lambda: self._listeners.discard(listener)

    async def sleep(self, seconds: float) -> None:
        """Waits, but not past the server's stop."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            pass
