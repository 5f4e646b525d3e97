"""Processes on this machine that die are noticed at once, without waiting for their lease to end.

A record stream that ends without a word makes its process a suspect. While it has no new stream, the lock
of its spool says whether it lives; where it has no spool here, its process id does, provided that it was
seen alive when its stream opened (it may live in another container, where the number means nothing).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.core.clock import Clock
from headrace.v1.record_service_pb2 import RecorderOpen
from headrace.v1.state_pb2 import CrashedDetails
from headrace_services.loops.intake import Spool, SpoolIntake, death_notice
from headrace_services.loops.loop import Loop
from headrace_services.storage.database import Database

__all__ = ["ProcessWatch", "process_birth"]

_FIRST_SECONDS: Final = 0.1
_SLOWEST_SECONDS: Final = 1.0
_BACKOFF: Final = 1.3
_UNSEEN: Final = "before this server started"

_log = logging.getLogger(__name__)


def process_birth(pid: int) -> str | None:
    """When the process was started, in the kernel's own words; None: it does not live, as seen from here."""
    if pid <= 0:
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _without_proc(pid)
    # The name of the program stands in brackets and may contain anything.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _without_proc(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"


@dataclass(slots=True)
class _Suspect:
    pid: int
    host: str
    birth: str | None
    next_look: float
    pause: float = _FIRST_SECONDS


class ProcessWatch:
    """Finds out about dead processes.

    Args:
        database: where their runs are.
        streams: has the ids of the recorders that have a stream.
        intake: takes in what they left behind.
        clock: what the time is.

    Attributes:
        loop: its pace; it does nothing while nobody is suspected.
        deaths: how many were found, for tests and metrics.
    """

    def __init__(
        self, database: Database, streams: Container[str], intake: SpoolIntake, clock: Clock
    ) -> None:
        self._database = database
        self._streams = streams
        self._intake = intake
        self._clock = clock
        self._host = socket.gethostname()
        self._births: dict[str, str] = {}
        self._suspects: dict[str, _Suspect] = {}
        self.deaths = 0
        self.loop = Loop("watch over local processes", _FIRST_SECONDS, self.look, clock)

    @property
    def suspects(self) -> int:
        """How many processes have lost their stream and are not known to be dead."""
        return len(self._suspects)

    def opened(self, open: RecorderOpen) -> None:
        """A recorder has a stream."""
        self._suspects.pop(open.recorder_id, None)
        if open.sdk.host == self._host and (birth := process_birth(open.sdk.pid)) is not None:
            self._births[open.recorder_id] = birth

    def ended(self, open: RecorderOpen, *, sealed: bool) -> None:
        """A recorder has no stream any more."""
        birth = self._births.pop(open.recorder_id, None)
        if not sealed and open.sdk.host == self._host:
            self._suspect(open.recorder_id, open.sdk.pid, birth)

    async def recall(self) -> None:
        """Suspects every local recorder that the database believes alive: this server has just started.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        now = await self._database.now()
        reader = self._database.reader
        for recorder in [*await reader.live_recorders(now), *await reader.expired_recorders(now)]:
            if recorder.host == self._host and recorder.recorder_id not in self._streams:
                self._suspect(recorder.recorder_id, recorder.pid, _UNSEEN)

    def _suspect(self, recorder_id: str, pid: int, birth: str | None) -> None:
        self._suspects[recorder_id] = _Suspect(pid, self._host, birth, self._clock.monotonic())
        self.loop.wake()

    async def look(self) -> None:
        """One look at the suspects whose turn it is.

        Raises:
            DatabaseUnavailable, StorageFull: they stay suspects.
        """
        now = self._clock.monotonic()
        for recorder_id, suspect in list(self._suspects.items()):
            if recorder_id in self._streams:
                self._suspects.pop(recorder_id, None)
            elif suspect.next_look <= now:
                suspect.pause = min(suspect.pause * _BACKOFF, _SLOWEST_SECONDS)
                suspect.next_look = now + suspect.pause
                await self._examine(recorder_id, suspect)

    async def _examine(self, recorder_id: str, suspect: _Suspect) -> None:
        found = await self._intake.take_in(recorder_id)
        if found is Spool.ALIVE:
            return
        if found is Spool.ABSENT:
            birth = process_birth(suspect.pid)
            if suspect.birth is None or (birth is not None and suspect.birth == _UNSEEN):
                # Not a process that can be told from another one: its lease decides.
                self._suspects.pop(recorder_id, None)
                return
            if birth == suspect.birth:
                return
        if recorder_id in self._streams:
            return
        crashed = await self._database.writer.crash_recorder(
            recorder_id, death_notice(suspect.pid, suspect.host), CrashedDetails.CAUSE_PROCESS_EXIT
        )
        self._suspects.pop(recorder_id, None)
        self.deaths += 1
        if crashed:
            _log.warning(
                "process %d on %s is gone: %d runs are declared crashed",
                *(suspect.pid, suspect.host, len(crashed)),
            )
