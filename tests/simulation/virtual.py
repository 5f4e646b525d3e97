"""Time that passes only when nobody has anything to do, and ids that are the same every time."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

__all__ = ["EPOCH_MICROS", "CountedIds", "VirtualClock", "VirtualLoop"]

EPOCH_MICROS = 1_800_000_000_000_000


class _NoIo(selectors.SelectSelector):
    """Waits for nothing: what would be waited for in vain is time that has passed."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("Everybody waits, and nothing will ever happen.")
        if timeout > 0:
            self.loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer.

    Attributes:
        now: seconds since the beginning.
    """

    def __init__(self) -> None:
        selector = _NoIo()
        self.now = 0.0
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class VirtualClock:
    """The loop's time, as everything else reads it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> int:
        return EPOCH_MICROS + int(self._loop.now * 1e6)

    def monotonic(self) -> float:
        return self._loop.now


class CountedIds:
    """Ids of the form of UUIDv7 that count up, in the place of `headrace.core.ids._source`."""

    def __init__(self) -> None:
        self._last = 0

    def take(self) -> str:
        self._last += 1
        text = f"{(0x0199 << 112) | (7 << 76) | (2 << 62) | self._last:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
