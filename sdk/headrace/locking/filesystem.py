"""Locks as files in a folder that all processes concerned can reach."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from headrace.locking.owners import Owner
from headrace.locking.protocol import not_held

__all__ = ["FileSystemLockManager"]

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_RECORD_MAX_BYTES: Final = 64 * 1024
_PAUSE_SECONDS: Final = (0.002, 0.1)


class FileSystemLockManager:
    """Locks of all processes that work on one folder.

    The lock of a process that is gone is free: on the same machine at once, from another machine after the
    hold timeout. Who judges hold timeouts by a clock that runs ahead ends them early.

        FileSystemLockManager("/srv/shared/locks")
    """

    def __init__(self, lock_files_directory: str | os.PathLike[str]) -> None:
        """
        Args:
            lock_files_directory: folder of the lock files; made by the first lock.
        """
        self.lock_files_directory = Path(lock_files_directory).expanduser().resolve()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, FileSystemLockManager)
            and self.lock_files_directory == other.lock_files_directory
        )

    def __hash__(self) -> int:
        return hash(self.lock_files_directory)

    def __repr__(self) -> str:
        return f"FileSystemLockManager({str(self.lock_files_directory)!r})"

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        return _wait(acquire_timeout, lambda: self._take(key, holder, hold_timeout))

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        return await _wait_async(acquire_timeout, lambda: self._take(key, holder, hold_timeout))

    def release_lock(self, key: str, holder: str) -> None:
        path = self._path(key)
        if not path.exists():
            raise not_held(key, holder)
        with _exclusively(path) as file:
            record = _read(file)
            if record is None or record["holder"] != holder:
                raise not_held(key, holder)
            path.unlink()

    def is_locked(self, key: str) -> bool:
        return self._record(key) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        record = self._record(key)
        return record is not None and record["holder"] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        return _wait(timeout, lambda: not self.is_locked(key))

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        return await _wait_async(timeout, lambda: not self.is_locked(key))

    def _path(self, key: str) -> Path:
        name = key
        if not _PLAIN_NAME.fullmatch(key):
            name = "~" + hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
        return self.lock_files_directory / f"{name}.lock"

    def _record(self, key: str) -> dict[str, Any] | None:
        """Who has the lock; None for nobody."""
        path = self._path(key)
        if not path.exists():
            return None
        with _exclusively(path) as file:
            record = _read(file)
            if record is None:
                path.unlink()
            return record

    def _take(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        self.lock_files_directory.mkdir(parents=True, exist_ok=True)
        with _exclusively(self._path(key)) as file:
            record = _read(file)
            if record is not None and record["holder"] != holder:
                return False
            expires_at = None if hold_timeout is None else time.time() + hold_timeout
            _write(
                file,
                {"key": key, "holder": holder, "expires_at": expires_at, "owner": Owner.this().to_json()},
            )
            return True


@contextmanager
def _exclusively(path: Path) -> Generator[int]:
    """The lock file, open for this one alone while its record is looked at and changed."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, path):
                yield file
                return
        finally:
            # The child of a fork in between shares the file: closing alone would leave it locked.
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)


def _is_at(file: int, path: Path) -> bool:
    """Whether the file is still the one of that name: its last holder removes it."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(file)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _read(file: int) -> dict[str, Any] | None:
    """The record of who has the lock; None when nobody has it, or its time or its process is over."""
    line, _, _ = os.pread(file, _RECORD_MAX_BYTES, 0).partition(b"\n")
    try:
        record: dict[str, Any] = json.loads(line)
        expires_at, owner = record["expires_at"], Owner.from_json(record["owner"])
    except (ValueError, KeyError, TypeError):  # nothing written yet, or not to the end by one who died
        return None
    if (expires_at is not None and expires_at <= time.time()) or owner.is_gone():
        return None
    return record


def _write(file: int, record: dict[str, Any]) -> None:
    text = json.dumps(record).encode() + b"\n"
    if os.pwrite(file, text, 0) != len(text):
        raise OSError(errno.ENOSPC, "no room for a lock file")
    os.ftruncate(file, len(text))


def _pauses(timeout: float | None) -> Iterator[float]:
    """Seconds between tries: longer and longer, until the time is up."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause, longest = _PAUSE_SECONDS
    while True:
        left = longest if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return
        yield min(pause * random.uniform(0.5, 1), left)
        pause = min(pause * 1.5, longest)


def _wait(timeout: float | None, is_done: Callable[[], bool]) -> bool:
    if is_done():
        return True
    for pause in _pauses(timeout):
        time.sleep(pause)
        if is_done():
            return True
    return False


async def _wait_async(timeout: float | None, is_done: Callable[[], bool]) -> bool:
    if is_done():
        return True
    for pause in _pauses(timeout):
        await asyncio.sleep(pause)
        if is_done():
            return True
    return False
