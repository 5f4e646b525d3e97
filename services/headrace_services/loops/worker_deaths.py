"""Workers on this machine that die are noticed at once, without waiting for their lease to end.

A stream that ends without a word makes its worker a suspect. While it has no new stream, its process id says
whether it lives, provided that it was seen alive here when the stream opened: it may live in another
container, where the number means nothing.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Container
from dataclasses import dataclass
from typing import Final, Protocol

from headrace.core.clock import Clock
from headrace_services.loops.deaths import process_birth
from headrace_services.loops.loop import Loop
from headrace_services.storage.writer import Writer

__all__ = ["LocalWorker", "WorkerDeaths"]

_log = logging.getLogger(__name__)
_IDLE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.25
_MOST_LOOKS: Final = 400


class LocalWorker(Protocol):
    """A worker's stream, as far as its process goes."""

    session_id: str
    name: str
    host: str
    pid: int


@dataclass(slots=True)
class _Suspect:
    name: str
    pid: int
    birth: str
    looks: int = 0


class WorkerDeaths:
    """Finds out about dead workers.

    Args:
        writer: ends their sessions.
        connected: the sessions that have a stream here.
        clock: what the time is.

    Attributes:
        loop: its pace; it does next to nothing while nobody is suspected.
        deaths: how many were found, for tests and metrics.
    """

    def __init__(self, writer: Writer, connected: Container[str], clock: Clock) -> None:
        self._writer = writer
        self._connected = connected
        self._host = socket.gethostname()
        self._births: dict[str, str] = {}
        self._suspects: dict[str, _Suspect] = {}
        self.deaths = 0
        self.loop = Loop("watch over local workers", _IDLE_SECONDS, self.look, clock)

    def opened(self, worker: LocalWorker) -> None:
        """A stream has opened."""
        self._suspects.pop(worker.session_id, None)
        birth = process_birth(worker.pid) if worker.host == self._host else None
        if birth is not None:
            self._births[worker.session_id] = birth

    def ended(self, worker: LocalWorker) -> None:
        """The only stream of a session has ended without a word."""
        birth = self._births.pop(worker.session_id, None)
        if birth is not None:
            self._suspects[worker.session_id] = _Suspect(worker.name, worker.pid, birth)
            self.loop.interval_seconds = _LOOK_SECONDS
            self.loop.wake()

    def left(self, worker: LocalWorker) -> None:
        """The worker has said goodbye."""
        self._births.pop(worker.session_id, None)

    async def look(self) -> None:
        """Look whether the suspects live.

        Raises:
            DatabaseUnavailable, StorageFull: try again later.
        """
        for session_id, suspect in list(self._suspects.items()):
            suspect.looks += 1
            if session_id in self._connected or suspect.looks > _MOST_LOOKS:
                del self._suspects[session_id]  # it is back, or its lease will tell
            elif process_birth(suspect.pid) != suspect.birth:
                words = f"The worker's process has ended (pid {suspect.pid} on {self._host})."
                lost = await self._writer.expire_session(session_id, reason=words)
                self._suspects.pop(session_id, None)
                self.deaths += 1
                _log.warning("the worker %s has died; it held %d runs", suspect.name, len(lost))
        self.loop.interval_seconds = _LOOK_SECONDS if self._suspects else _IDLE_SECONDS
