"""SQLite's write-ahead log, made long at once.

Each commit ends with an fdatasync of the log. While the log grows, that has to store the file's new length
too. After a checkpoint SQLite begins again at the log's start and overwrites what is there: on ext4 a commit
then took 0.21 ms instead of 0.36 ms. So a log that is in use is brought to the length at which it begins
again, with zeros: SQLite takes for a frame only what has the salt of the log's header, and its locks are not
on this file (https://www.sqlite.org/walformat.html).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

__all__ = ["LOG_BYTES", "lengthen_log"]

_sync: Final = getattr(os, "fdatasync", os.fsync)  # macOS has none
_PAGES: Final = 1000
"""SQLite's own `wal_autocheckpoint`: a commit that brings the log to so many is followed by a checkpoint;
among large commits the log gets longer, see `checkpoints`."""
_MARGIN_PAGES: Final = 100
"""What the last commit before a checkpoint may add."""
_PAGE_BYTES: Final = 4096
_FRAME_HEADER_BYTES: Final = 24
LOG_BYTES: Final = (_PAGES + _MARGIN_PAGES) * (_PAGE_BYTES + _FRAME_HEADER_BYTES)


def lengthen_log(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the log of a database to `LOG_BYTES`, unless another program writes to it, or the disk is full.

    Args:
        connection: to the database, in no transaction.
        path: of the database.
    """
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("BEGIN IMMEDIATE")
        try:
            with contextlib.suppress(OSError):
                _append_zeros(path.with_name(f"{path.name}-wal"))
        finally:
            connection.execute("ROLLBACK")


def _append_zeros(log: Path) -> None:
    """Nobody else appends meanwhile: the caller holds the lock of writers."""
    with log.open("r+b", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            zeros = memoryview(bytes(max(0, LOG_BYTES - before)))
            while zeros:
                zeros = zeros[file.write(zeros) :]
            _sync(file.fileno())
        except OSError:
            file.truncate(before)
            raise
