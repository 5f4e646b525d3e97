"""What workers say of attempts, gathered and made durable in bulk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from headrace.core.errors import ServiceError
from headrace_services.storage.attempt_news import News, NewsOutcome
from headrace_services.storage.writer import Writer

__all__ = ["WorkerNews"]

_log = logging.getLogger(__name__)
_MOST: Final = 500
_RETRY_SECONDS: Final = 0.5


class WorkerNews:
    """One batch is under way at a time, the next gathers meanwhile.

    Args:
        writer: makes it durable.
        settled: called with every outcome.
    """

    def __init__(self, writer: Writer, settled: Callable[[NewsOutcome], None]) -> None:
        self._writer = writer
        self._settled = settled
        self._waiting: list[News] = []
        self._wake = asyncio.Event()

    def tell(self, news: Sequence[News]) -> None:
        """Take news in."""
        self._waiting.extend(news)
        self._wake.set()

    async def run(self) -> None:
        """Make it durable, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._apply(batch)

    async def flush(self) -> None:
        """Make durable what has gathered, once."""
        batch, self._waiting = self._waiting, []
        if batch:
            await self._apply(batch)

    async def _apply(self, batch: list[News]) -> None:
        while True:
            try:
                outcomes = await self._writer.apply_news(batch)
            except ServiceError as error:
                if error.code != "UNAVAILABLE":
                    _log.error("news of %d attempts could not be stored: %s", len(batch), error.message)
                    return
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                break
        for outcome in outcomes:
            self._settled(outcome)
