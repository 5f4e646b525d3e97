"""The search for infrastructure that this worker does not hold, such as that of a process before it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from headrace_workers.actions import FoundInfrastructure
from headrace_workers.infrastructure.worker import EngineUnavailable, InfrastructureWorker

__all__ = ["Search"]

_log = logging.getLogger("headrace.worker")


class Search:
    """Looks at once when told to, and otherwise now and then.

    Args:
        worker: knows the engine.
        found: takes everything that there is.
    """

    def __init__(
        self, worker: InfrastructureWorker[Any], found: Callable[[Sequence[FoundInfrastructure]], None]
    ) -> None:
        self._worker = worker
        self._found = found
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look now: a server has just answered."""
        self._wake.set()

    async def run(self) -> None:
        """Look until cancelled, for the first time when woken."""
        await self._wake.wait()
        while True:
            self._wake.clear()
            await self._look()
            try:
                await asyncio.wait_for(self._wake.wait(), self._worker.search_seconds)
            except TimeoutError:
                pass

    async def _look(self) -> None:
        try:
            self._found(await self._worker.find())
        except EngineUnavailable as error:
            _log.info("The engine cannot be searched: %s", error)
        except Exception:
            _log.exception("A worker class has failed in its search")
