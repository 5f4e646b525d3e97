"""Writing the spool: the files of `headrace.core.spool`, by the process that records."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import shutil
import socket
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.core.clock import Clock
from headrace.core.errors import ConfigurationError, StorageFull
from headrace.core.limits import PROTOCOL_MAX
from headrace.core.spool import HEADER, SpoolMeta, segment_path

__all__ = ["LINGER_SECONDS", "SEGMENT_BYTES", "SpoolWriter", "locked"]

SEGMENT_BYTES: Final = 4 * 1024 * 1024
LINGER_SECONDS: Final = 60.0
"""How long acknowledged entries are kept: a database that fails over may have lost its last commits."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(slots=True)
class _Closed:
    """A segment that is complete.

    Attributes:
        last_seq: its last entry.
        size: bytes.
        acked_at: monotonic seconds when a server had all of it; None before.
    """

    path: Path
    last_seq: int
    size: int
    acked_at: float | None = None


class SpoolWriter:
    """Appends entries to the spool of one recorder. The caller holds a lock around every method.

    Nothing is on disk before the first entry: a program that runs no flow leaves no folder behind.
    """

    def __init__(
        self,
        root: Path,
        recorder_id: str,
        address: str,
        clock: Clock,
        sdk_version: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.folder = root / recorder_id
        self._segment_bytes = segment_bytes
        self.last_seq = 0
        self.size = 0
        self._meta = SpoolMeta(
            recorder_id=recorder_id,
            address=address,
            host=socket.gethostname(),
            pid=os.getpid(),
            created_at=clock.now(),
            sdk_version=sdk_version,
            python_version=platform.python_version(),
            protocol=PROTOCOL_MAX,
        )
        self._clock = clock
        self._lock_fd = -1
        self._durable_fd = -1
        self._fd = -1
        self._path = Path()
        self._segment_size = 0
        self._closed: list[_Closed] = []
        self._unsynced: list[int] = []
        self._is_writing = False

    @property
    def is_open(self) -> bool:
        """Whether there are files."""
        return self._lock_fd >= 0

    def append(self, entries: Sequence[bytes]) -> int:
        """Write `entries` with one system call; all of them or none.

        Returns:
            Sequence number of the last one.

        Raises:
            StorageFull: the disk or a quota is full; nothing is written.
            ConfigurationError: the folder cannot be written to.
        """
        frames: list[bytes] = []
        for entry in entries:
            frames.append(HEADER.pack(len(entry), zlib.crc32(entry)))
            frames.append(entry)
        data = b"".join(frames)
        count, size = len(entries), len(data)
        if self._is_writing:
            self._undo()
        if self._fd < 0 or self._segment_size + size > self._segment_bytes:
            self._roll()
        self._is_writing = True
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            raise self._explained(error) from None
        if written < size:
            self._undo()
            raise self._explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        # No call from here on: a signal's exception comes either before all of this or after it.
        self._segment_size += size
        self.size += size
        self.last_seq += count
        self._is_writing = False
        return self.last_seq

    def _undo(self) -> None:
        """Take back what an interrupted write has left: Ctrl-C or a time limit can strike anywhere."""
        if self._fd >= 0:
            os.ftruncate(self._fd, self._segment_size)
        self._is_writing = False

    def _roll(self) -> None:
        """Go on in a new segment, unless the present one is still empty."""
        if self._fd >= 0 and self._segment_size == 0:
            return
        try:
            if not self.is_open:
                self._create()
            path = segment_path(self.folder, self.last_seq + 1)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        except OSError as error:
            raise self._explained(error) from None
        closed, unsynced = self._closed, self._unsynced
        if self._fd >= 0:
            closed = [*closed, _Closed(self._path, self.last_seq, self._segment_size)]
            unsynced = [*unsynced, self._fd]
        self._closed, self._unsynced = closed, unsynced
        self._fd, self._path, self._segment_size = fd, path, 0

    def _create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock_fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        meta = self.folder / "meta.json"
        temporary = meta.with_suffix(".tmp")
        temporary.write_text(self._meta.to_json())
        temporary.replace(meta)
        self._durable_fd = os.open(self.folder / "durable", os.O_WRONLY | os.O_CREAT, 0o600)
        self._lock_fd = lock_fd

    def _explained(self, error: OSError) -> StorageFull | ConfigurationError:
        if error.errno in _FULL:
            return StorageFull(f"The disk that holds {self.folder.parent} is full: free some space on it.")
        return ConfigurationError(
            f"{self.folder.parent} cannot be written to ({error.strerror}): "
            f"make it writable, or set HEADRACE_HOME to another folder."
        )

    def sync_targets(self) -> list[int]:
        """Descriptors for `os.fdatasync` elsewhere: everything written before is in them.

        The caller closes them.
        """
        targets, self._unsynced = self._unsynced, []
        if self._fd >= 0:
            targets.append(os.dup(self._fd))
        return targets

    def acknowledged(self, seq: int) -> None:
        """A server has everything up to `seq`."""
        now = self._clock.monotonic()
        for segment in self._closed:
            if segment.acked_at is None and segment.last_seq <= seq:
                segment.acked_at = now

    def write_durable(self, seq: int) -> None:
        """Note `seq` in the `durable` file; losing the note costs a resend, nothing else."""
        if self._durable_fd >= 0:
            try:
                os.pwrite(self._durable_fd, seq.to_bytes(8, "little"), 0)
            except OSError:
                pass

    def trim(self, keep_seconds: float = LINGER_SECONDS) -> None:
        """Remove complete segments that were acknowledged at least `keep_seconds` ago."""
        limit = self._clock.monotonic() - keep_seconds
        while self._closed and (acked := self._closed[0].acked_at) is not None and acked <= limit:
            segment = self._closed.pop(0)
            segment.path.unlink(missing_ok=True)
            self.size -= segment.size

    def reclaim(self, durable: int) -> None:
        """Free every byte that a server has, the present segment included: the disk is full."""
        if self._fd >= 0 and self._segment_size and durable >= self.last_seq:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self.size -= self._segment_size
            self._fd, self._segment_size = -1, 0
        self.trim(0)

    def release(self, durable: int, *, sealed: bool) -> None:
        """The recorder is done: remove the folder when a server has everything, else leave it for one."""
        if not self.is_open:
            return
        try:
            if durable >= self.last_seq:
                shutil.rmtree(self.folder, ignore_errors=True)
            else:
                self.write_durable(durable)
                if sealed:
                    (self.folder / "sealed").write_text(str(self.last_seq))
        except OSError:
            pass  # no room for the note: the spool is then taken for one whose process died
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the files without a word: a forked child must not hold its parent's lock."""
        for fd in (self._fd, self._durable_fd, self._lock_fd, *self._unsynced):
            if fd >= 0:
                os.close(fd)
        self._unsynced = []
        self._fd = self._durable_fd = self._lock_fd = -1


@contextlib.contextmanager
def locked(folder: Path) -> Generator[bool]:
    """Whether nobody records into the spool; if so, nobody else takes it during the `with` block."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            # Whoever held the lock before may have delivered the spool, and removed it.
            yield (folder / "meta.json").exists()
    finally:
        os.close(descriptor)
