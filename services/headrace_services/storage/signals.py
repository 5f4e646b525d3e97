"""Word that something was committed. It only wakes; nothing that matters hangs on it."""

from __future__ import annotations

import asyncio

__all__ = ["Signals"]


class Signals:
    """A counter that grows with each commit of this process, and with each notice from another replica.

    Belongs to one event loop. A waiter must have a slow poll behind it: a notice from another replica
    can be lost.
    """

    def __init__(self) -> None:
        self._count = 0
        self._bumped = asyncio.Event()

    @property
    def count(self) -> int:
        """How often something was committed so far."""
        return self._count

    def bump(self) -> None:
        """Something was committed: wake whoever waits."""
        self._count += 1
        self._bumped.set()
        self._bumped = asyncio.Event()

    async def wait(self, after: int, timeout: float) -> int:
        """Wait until the counter is past `after`, at most `timeout` seconds.

        Returns:
            The counter now; equal to `after` when the time is up.
        """
        if self._count <= after:
            try:
                await asyncio.wait_for(self._bumped.wait(), timeout)
            except TimeoutError:
                pass
        return self._count
