"""Checkpoints of a SQLite file beside its transactions.

What is committed lies in the write-ahead log until it is copied into the file, and both are synced for that.
SQLite does it in the commit that finds the log long, which then takes as long as the disk likes. For small
commits that is as good as anything: it comes seldom, and the log begins again. Large ones would pay for it
nearly every time, and others wait for them as it is. So they leave it to a thread, which nobody waits for;
should it not keep up, a commit does it after all.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Generator
from typing import Final

__all__ = ["Checkpoints"]

_log = logging.getLogger(__name__)
_LARGE: Final = 100
"""So many changed rows make a large transaction."""
_CHANGES: Final = 1000
"""After so many in large ones the log is copied: about as often as SQLite would do it itself."""
_USUAL_PAGES: Final = 1000
"""The length of the log at which a small commit copies it: SQLite's own."""
_LAST_RESORT_PAGES: Final = 4096
"""The same for a large one: 16 MiB."""


class Checkpoints:
    """Copies the log of a file into it, from time to time.

    Args:
        connect: makes a connection of its own to the file.

    Attributes:
        made: how many times.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._changes = 0
        self._wanted = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self.made = 0

    @contextlib.contextmanager
    def beside(self, connection: sqlite3.Connection, changes: int) -> Generator[None]:
        """Around a commit.

        Args:
            connection: that commits.
            changes: how many rows its transaction has changed.
        """
        if changes < _LARGE:
            yield
            return
        connection.execute(f"PRAGMA wal_autocheckpoint={_LAST_RESORT_PAGES}")
        try:
            yield
        finally:
            connection.execute(f"PRAGMA wal_autocheckpoint={_USUAL_PAGES}")
        self._changes += changes
        if self._changes >= _CHANGES:
            self._changes = 0
            self._want()

    def close(self) -> None:
        """Come to an end, and let go of the file."""
        self._is_closing = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _want(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="headrace-checkpoints", daemon=True)
            self._thread.start()
        self._wanted.set()

    def _run(self) -> None:
        try:
            with contextlib.closing(self._connect()) as connection:
                self._copy(connection)
        except sqlite3.Error as error:
            # The commits do it from now on, and whoever asks for those is told what is wrong.
            _log.debug("checkpoints beside the transactions have ended: %s", error)

    def _copy(self, connection: sqlite3.Connection) -> None:
        while True:
            self._wanted.wait()
            if self._is_closing:
                return
            self._wanted.clear()
            try:
                # Passive: it waits for nobody, nobody for it.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                self.made += 1
            except sqlite3.OperationalError as error:
                _log.debug("a checkpoint was not possible: %s", error)
