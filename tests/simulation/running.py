"""One world from its seed to its outcome."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest

from headrace.core import ids
from headrace_services.loops import dispatcher, worker_hub, worker_sessions
from headrace_services.storage import claiming
from tests.simulation.virtual import CountedIds, VirtualLoop
from tests.simulation.world import Faults, Outcome, World

__all__ = ["simulate"]

_PACE_SECONDS = 30.0


def simulate(
    template: Path, folder: Path, seed: int, faults: Faults, *, hours: float = 5.0, runs: int = 60
) -> Outcome:
    """Live through one seeded history.

    Args:
        template: a migrated SQLite file, which is copied.
        folder: for the copy.
        seed: the same seed is the same history.
        faults: what may go wrong.
        hours: of virtual time.
        runs: how many are asked for.
    """
    path = folder / "world.db"
    for old in folder.glob("world.db*"):
        old.unlink()
    shutil.copy(template, path)
    loop = VirtualLoop()
    state = random.getstate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids, "_source", CountedIds())
        patch.setattr(claiming, "_random", random.Random(seed))
        # Slow looks, which only find what a lost notice did not tell: slower, as leases are here.
        patch.setattr(dispatcher, "_LOOK_SECONDS", _PACE_SECONDS)
        patch.setattr(worker_hub, "_LOOK_SECONDS", _PACE_SECONDS)
        patch.setattr(worker_sessions, "_FLUSH_SECONDS", _PACE_SECONDS / 6)
        random.seed(seed)
        try:
            asyncio.set_event_loop(loop)
            return loop.run_until_complete(World(loop, path, seed, faults, hours, runs).live())
        finally:
            loop.close()
            asyncio.set_event_loop(None)
            random.setstate(state)
