"""Calls fdatasync away from everybody who must not wait for a disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

__all__ = ["SYNC_INTERVAL_SECONDS", "Syncer"]

SYNC_INTERVAL_SECONDS: Final = 0.05
"""How often to ask while nobody waits for it."""


class Syncer:
    """A thread that syncs the spool when asked.

    Args:
        targets: gives the descriptors to sync, which are closed here, and the sequence number of the last
            entry written to them.
        synced: told the sequence number up to which everything is on the disk.
    """

    def __init__(self, targets: Callable[[], tuple[list[int], int]], synced: Callable[[int], None]) -> None:
        self._targets = targets
        self._synced = synced
        self._asked = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="headrace-sync", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Sync now: whoever asks while a sync goes on shares the next one."""
        self._asked.set()

    def stop(self) -> None:
        """End the thread after the sync that may be going on."""
        self._stopped = True
        self._asked.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            self._asked.wait()
            if self._stopped:
                return
            self._asked.clear()
            descriptors, seq = self._targets()
            if _sync(descriptors):
                self._synced(seq)


def _sync(descriptors: list[int]) -> bool:
    ok = True
    for descriptor in descriptors:
        try:
            os.fdatasync(descriptor)
        except OSError:
            ok = False
        finally:
            os.close(descriptor)
    return ok
