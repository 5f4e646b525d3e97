"""The folders of runs: below one folder per worker process, and swept when that process was killed.

A worker holds a lock on its folder for as long as it lives. The kernel lets go of it however the worker ends,
so a folder that nobody holds is left over. Process ids say less: they are used again, and mean something
else in each container that shares the folder for temporary files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["WORKER_PREFIX", "WorkerFolder", "sweep_folders"]

WORKER_PREFIX: Final = "headrace-worker-"
"""What the name of each worker's own folder begins with."""
_BEING_MADE: Final = "headrace-making-"
_LOCK: Final = ".lock"


class WorkerFolder:
    """The folder of this worker process; `close` removes it with everything in it.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        # It gets its name when it is held: nobody takes it for one that is left over.
        made = Path(tempfile.mkdtemp(prefix=_BEING_MADE))
        self._lock = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = made.with_name(WORKER_PREFIX + made.name.removeprefix(_BEING_MADE))
        made.rename(self.path)

    def temporary(self, prefix: str) -> tempfile.TemporaryDirectory[str]:
        """A folder in it, which is removed with its contents when it is left."""
        return tempfile.TemporaryDirectory(prefix=prefix, dir=self.path, ignore_cleanup_errors=True)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep_folders() -> list[str]:
    """Remove the folders of workers of this user that have not lived to do it themselves; their names."""
    swept: list[str] = []
    for folder in Path(tempfile.gettempdir()).glob(WORKER_PREFIX + "*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                swept.append(folder.name)
            finally:
                os.close(lock)
    return swept
