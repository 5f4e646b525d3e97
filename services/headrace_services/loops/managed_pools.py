"""Sees to it that each managed pool has a worker on this machine.

Every server on a database does that for every managed pool, as far as its settings let it: how many runs
there are at once is the pool's limit, which holds for all workers together, so servers need not agree on who
works which pool.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from dataclasses import dataclass
from typing import Final

from headrace.core.clock import Clock
from headrace_services.loops.loop import Loop
from headrace_services.loops.managed_workers import ManagedWorker, ManagedWorkerSettings
from headrace_services.storage.database import Database

__all__ = ["ManagedPools", "restart_delay_seconds"]

_log = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 5.0
"""Between two looks at what pools there are; those made by this server are seen at once."""
_FIRST_DELAY_SECONDS: Final = 1.0
_LAST_DELAY_SECONDS: Final = 60.0
_GOOD_SECONDS: Final = 60.0
"""A worker that has lived so long ended for another reason than the one before."""


def restart_delay_seconds(failures: int) -> float:
    """How long a worker that has ended is not started again.

    Args:
        failures: how often in a row it has ended soon after its start.
    """
    return min(math.ldexp(_FIRST_DELAY_SECONDS, min(failures - 1, 16)), _LAST_DELAY_SECONDS)


@dataclass(slots=True)
class _Place:
    """One pool, and its worker."""

    pool: str
    worker: ManagedWorker | None = None
    began_at: float = 0.0
    failures: int = 0
    wait_until: float = 0.0


class ManagedPools:
    """The workers of managed pools.

    Args:
        database: where the pools are.
        settings: of the workers.
        clock: what the time is.

    Attributes:
        loop: its pace: every few seconds, and when a pool is made or a worker ends.
    """

    def __init__(self, database: Database, settings: ManagedWorkerSettings, clock: Clock) -> None:
        self._reader = database.reader.work_pools
        self._settings = settings
        self._clock = clock
        self._places: dict[str, _Place] = {}
        self._leaving: list[ManagedWorker] = []
        self._is_stopping = False
        self._lock = asyncio.Lock()
        self.loop = Loop("managed pools", _LOOK_SECONDS, self.look, clock)

    async def look(self) -> None:
        """Start what is missing, and have those leave whose pool is gone.

        Raises:
            DatabaseUnavailable: try again later.
        """
        pools = await self._reader.managed()
        async with self._lock:
            if self._is_stopping:
                return
            for id in self._places.keys() - pools.keys():
                self._give_up(self._places.pop(id))
            self._leaving = [worker for worker in self._leaving if worker.exit_code is None]
            for id, name in pools.items():
                await self._see_to(id, self._places.setdefault(id, _Place(name)))
        now = self._clock.monotonic()
        waits = [place.wait_until - now for place in self._places.values() if place.worker is None]
        self.loop.interval_seconds = min([_LOOK_SECONDS, *(max(wait, 0.01) for wait in waits)])

    def _give_up(self, place: _Place) -> None:
        if place.worker is not None:
            place.worker.tell_to_leave()
            self._leaving.append(place.worker)

    async def _see_to(self, id: str, place: _Place) -> None:
        now = self._clock.monotonic()
        if place.worker is not None and place.worker.exit_code is not None:
            self._failed(place, f"has ended with exit code {place.worker.exit_code}", place.worker.last_line)
        if place.worker is not None or now < place.wait_until:
            return
        home = self._settings.folder / id
        name = f"managed-{place.pool}@{socket.gethostname()}"
        worker = ManagedWorker(place.pool, name, home, self._settings, self.loop.wake)
        place.began_at = now
        try:
            await worker.start()
        except OSError as error:
            self._failed(place, "cannot be started", str(error))
        else:
            place.worker = worker

    def _failed(self, place: _Place, what: str, why: str) -> None:
        now = self._clock.monotonic()
        place.worker = None
        place.failures = 1 if now - place.began_at > _GOOD_SECONDS else place.failures + 1
        delay = restart_delay_seconds(place.failures)
        place.wait_until = now + delay
        _log.warning(
            "managed pool %s: its worker %s; starting it again in %g s. %s", place.pool, what, delay, why
        )

    async def stop(self) -> None:
        """Let every worker finish what it runs, as far as their grace goes, and start none any more."""
        async with self._lock:
            self._is_stopping = True
            for place in self._places.values():
                self._give_up(place)
            self._places.clear()
        await asyncio.gather(*(worker.left() for worker in self._leaving))
