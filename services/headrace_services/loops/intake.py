"""Spools that were left behind: taken in through the same write path, under the old recorder's id.

A spool is left behind when its process has died, or ended while no server was there. Who holds the lock of
a spool lives; a free lock is the proof of death. Taking in goes on where the database is, so it can be cut
off anywhere and begun again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias

from google.protobuf.message import DecodeError

from headrace.core import limits
from headrace.core.clock import Clock
from headrace.core.errors import DatabaseUnavailable, RecorderSealed, ServiceError, StorageFull
from headrace.core.spool import SpoolMeta, read_entries, read_sealed, segments
from headrace.v1.record_service_pb2 import RecordEntries, RecordEntry, RecorderOpen
from headrace.v1.state_pb2 import CrashedDetails
from headrace_services.loops.loop import Loop
from headrace_services.storage.database import Database

__all__ = ["EntryCheck", "Spool", "SpoolIntake", "death_notice"]

EntryCheck: TypeAlias = Callable[[RecordEntries], tuple[Sequence[RecordEntry], Mapping[int, ServiceError]]]
"""Gives the entries to record, and by sequence number why some are refused."""

DAMAGED: Final = "damaged"
_YOUNG_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class Spool(Enum):
    """What was found where a spool may be."""

    ABSENT = "absent"
    ALIVE = "alive"
    TAKEN_IN = "taken in"
    SET_ASIDE = "set aside"


class _Damaged(Exception):
    """The spool cannot be taken in; the text says why."""


class SpoolIntake:
    """Takes in the spools of one home.

    Args:
        root: the folder of the spools.
        database: where they go.
        check: what entries of a living process go through as well.
        replica_id: this server process.
        lease_seconds: how long a recorder may be silent.
        address: where this server listens; spools written for it are taken in too.
        scan_seconds: how often to look.
        clock: what the time is.

    Attributes:
        loop: its pace.
        alive: how many processes were recording into the home at the last scan.
        taken_in: how many spools this server has taken in.
    """

    def __init__(
        self,
        root: Path,
        database: Database,
        check: EntryCheck,
        *,
        replica_id: str,
        lease_seconds: float,
        address: str,
        scan_seconds: float,
        clock: Clock,
    ) -> None:
        self._root = root
        self._check = check
        self._writer = database.writer
        self._replica_id = replica_id
        self._lease_seconds = lease_seconds
        self._addresses = frozenset({"auto", address})
        self._under_way: set[str] = set()
        self.alive = 0
        self.taken_in = 0
        self.loop = Loop("intake of spools", scan_seconds, self.scan, clock)

    async def scan(self) -> None:
        """Takes in every spool that was left behind for this server.

        Raises:
            DatabaseUnavailable, StorageFull: the rest has to wait.
        """
        alive = 0
        for name in await asyncio.to_thread(_names, self._root):
            found = await self.take_in(name, only_ours=True)
            alive += found is Spool.ALIVE
        self.alive = alive

    async def take_in(self, recorder_id: str, *, only_ours: bool = False) -> Spool:
        """Takes in one recorder's spool, if its process does not live any more.

        Args:
            recorder_id: the folder's name.
            only_ours: leave a spool alone that was written for another address.

        Raises:
            DatabaseUnavailable, StorageFull: try again later.
        """
        folder = self._root / recorder_id
        if recorder_id in self._under_way or not folder.is_dir():
            return Spool.ALIVE if recorder_id in self._under_way else Spool.ABSENT
        self._under_way.add(recorder_id)
        try:
            with _locked(folder) as locked:
                if not locked:
                    return Spool.ALIVE
                return await self._take_in(folder, only_ours)
        finally:
            self._under_way.discard(recorder_id)

    async def _take_in(self, folder: Path, only_ours: bool) -> Spool:
        try:
            try:
                meta = SpoolMeta.read(folder)
            except ValueError as error:
                if _is_young(folder):
                    return Spool.ALIVE
                raise _Damaged(str(error)) from None
            if only_ours and meta.address not in self._addresses:
                return Spool.ABSENT
            await self._replay(folder, meta)
        except (DatabaseUnavailable, StorageFull):
            raise
        except _Damaged as error:
            _set_aside(folder, str(error))
            return Spool.SET_ASIDE
        except ServiceError as error:
            _set_aside(folder, error.message)
            return Spool.SET_ASIDE
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self.taken_in += 1
        return Spool.TAKEN_IN

    async def _replay(self, folder: Path, meta: SpoolMeta) -> None:
        opening = RecorderOpen(
            protocol_min=meta.protocol, protocol_max=meta.protocol, recorder_id=meta.recorder_id
        )
        opening.sdk.name, opening.sdk.version = "headrace", meta.sdk_version
        opening.sdk.host, opening.sdk.pid = meta.host, meta.pid
        status = await self._writer.open_recorder(opening, self._replica_id, self._lease_seconds)
        sealed_at = read_sealed(folder)
        last = status.durable_seq
        if not status.sealed:
            last = await self._send(folder, meta.recorder_id, status.durable_seq)
            if sealed_at is not None and last >= sealed_at:
                await self._writer.seal_recorder(meta.recorder_id)
            else:
                await self._writer.crash_recorder(
                    meta.recorder_id, death_notice(meta.pid, meta.host), CrashedDetails.CAUSE_PROCESS_EXIT
                )
        _log.info(
            "took in %d entries of a process that is gone (pid %d on %s)",
            *(last - status.durable_seq, meta.pid, meta.host),
        )
        if last < (sealed_at or 0) or any(first > last + 1 for first, _ in segments(folder)):
            raise _Damaged(f"the entries after {last} cannot be read")

    async def _send(self, folder: Path, recorder_id: str, durable_seq: int) -> int:
        entries = read_entries(folder, durable_seq)
        last = durable_seq
        while chunk := await asyncio.to_thread(_chunk, entries):
            first = chunk[0][0]
            if first != last + 1:
                raise _Damaged(f"the database ends at entry {last}, the spool begins with {first}")
            batch, refused = self._check(_batch(first, [data for _, data in chunk]))
            try:
                outcome = await self._writer.record(recorder_id, first, batch)
            except RecorderSealed:
                return last
            for seq, error in refused.items():
                _log.warning("entry %d of recorder %s is left out: %s", seq, recorder_id, error.message)
            last = outcome.durable_seq
        return last


def death_notice(pid: int, host: str) -> str:
    """The message of runs whose process has died."""
    return f"The process ended without finishing (pid {pid} on {host})."


def _names(root: Path) -> list[str]:
    try:
        return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name != DAMAGED)
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[bool]:
    """Whether the lock of the spool could be had; it is held meanwhile."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _is_young(folder: Path) -> bool:
    """Whether somebody may be about to make the folder, or to remove it."""
    try:
        return time.time() - folder.stat().st_mtime < _YOUNG_SECONDS
    except FileNotFoundError:
        return True


def _chunk(entries: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    chunk: list[tuple[int, bytes]] = []
    size = 0
    for seq, data in islice(entries, limits.BATCH_ENTRIES):
        chunk.append((seq, data))
        size += len(data)
        if size >= limits.BATCH_BYTES:
            break
    return chunk


def _batch(first: int, entries: list[bytes]) -> RecordEntries:
    batch = RecordEntries(first_seq=first)
    for offset, data in enumerate(entries):
        try:
            entry = RecordEntry.FromString(data)
            # Nobody waits for an answer any more: what was proposed without a server has happened.
            if entry.WhichOneof("kind") == "state":
                entry.state.want_verdict = False
            batch.entries.append(entry)
        except DecodeError:
            _log.warning("entry %d of a spool is no message and is left out", first + offset)
            batch.entries.add()
    return batch


def _set_aside(folder: Path, reason: str) -> None:
    aside = folder.parent / DAMAGED
    aside.mkdir(exist_ok=True)
    target = aside / folder.name
    if target.exists():
        target = aside / f"{folder.name}.{time.time_ns()}"
    folder.rename(target)
    _log.error("the spool %s cannot be taken in and was moved to %s: %s", folder.name, target, reason)
