"""Control groups of runs: caps on memory and processes for a run with everything it starts.

Both kinds that Linux has are spoken: the one hierarchy of version 2, and the hierarchies of version 1, one
for each controller. A run's group is `PARENT/WORKER/RUN`. Groups need a parent that this process may write
to, and whose processes are all in groups below it; which one is for whoever runs the machine to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.core.errors import ConfigurationError
from headrace_workers.process.folders import WORKER_PREFIX

__all__ = ["ControlGroup", "ControlGroups", "Hierarchies", "find_hierarchies"]

_CONTROLLERS: Final = ("memory", "pids")
_UNIFIED: Final = 2
_MOUNTS: Final = Path("/proc/self/mounts")
_REMOVALS: Final = 50
_REMOVAL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class _Files:
    """What a version calls its files."""

    memory: str
    swap: str
    events: str


_VERSION_2: Final = _Files("memory.max", "memory.swap.max", "memory.events")
_VERSION_1: Final = _Files("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control")
_KILL: Final = "cgroup.kill"


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where the controllers are.

    Attributes:
        version: 1 or 2.
        memory: folder at the top of the hierarchy with the memory controller.
        pids: of that with the controller of processes; the same in version 2.
    """

    version: int
    memory: Path
    pids: Path

    @property
    def tops(self) -> tuple[Path, ...]:
        """Each folder once."""
        return tuple(dict.fromkeys((self.memory, self.pids)))


def find_hierarchies(mounts: str) -> Hierarchies | None:
    """The hierarchies of this machine; None: it has none that will do.

    Args:
        mounts: text as of /proc/self/mounts.
    """
    found: dict[str, Path] = {}
    for line in mounts.splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup2" and set(_CONTROLLERS) <= set(_words(Path(folder) / "cgroup.controllers")):
            return Hierarchies(_UNIFIED, Path(folder), Path(folder))
        if kind == "cgroup":
            found.update({name: Path(folder) for name in options.split(",") if name in _CONTROLLERS})
    return Hierarchies(1, found["memory"], found["pids"]) if len(found) == len(_CONTROLLERS) else None


def _words(file: Path) -> Sequence[str]:
    try:
        return file.read_text().split()
    except OSError:
        return ()


class ControlGroup:
    """The group of one run.

    Args:
        hierarchies: in which it is made.
        name: its folder below the top of each.
    """

    def __init__(self, hierarchies: Hierarchies, name: str) -> None:
        self._files = _VERSION_2 if hierarchies.version == _UNIFIED else _VERSION_1
        self._memory = hierarchies.memory / name
        self._pids = hierarchies.pids / name
        self._folders = [top / name for top in hierarchies.tops]
        for folder in self._folders:
            folder.mkdir()

    def limit(self, memory_bytes: int | None, processes: int | None) -> None:
        """Set the caps; None: there is none."""
        if memory_bytes is not None:
            (self._memory / self._files.memory).write_text(str(memory_bytes))
            # What does not fit must not end up on a disk instead; a kernel without swap has no such file.
            with contextlib.suppress(OSError):
                no_swap = "0" if self._files is _VERSION_2 else str(memory_bytes)
                (self._memory / self._files.swap).write_text(no_swap)
            with contextlib.suppress(OSError):
                (self._memory / "memory.oom.group").write_text("1")
        if processes is not None:
            (self._pids / "pids.max").write_text(str(processes))

    @property
    def entrances(self) -> list[str]:
        """The files that a process id is written to."""
        return [str(folder / "cgroup.procs") for folder in self._folders]

    def enter(self, pid: int) -> None:
        """Put a process into it; what that starts is in it, too.

        Raises:
            OSError: it has ended.
        """
        for entrance in self.entrances:
            Path(entrance).write_text(str(pid))

    @property
    def out_of_memory(self) -> int:
        """How many processes the kernel has killed because the cap on memory was reached."""
        words = _words(self._memory / self._files.events)
        counts = dict(zip(words[::2], words[1::2], strict=False))
        return int(counts.get("oom_kill", 0))

    async def close(self) -> None:
        """End what is left in it, and remove it."""
        for _ in range(_REMOVALS):
            self.kill()
            if self._remove():
                return
            await asyncio.sleep(_REMOVAL_SECONDS)

    def kill(self) -> None:
        """End what is left in it, also what has left its process group."""
        _kill(self._pids)

    def _remove(self) -> bool:
        return all(_is_removed(folder) for folder in self._folders)


class ControlGroups:
    """The groups of one worker.

    The worker holds a lock on its own group for as long as it lives, as on its folder: what nobody holds is
    left over, and the next worker with the same parent removes it.

    Args:
        parent: below the top of every hierarchy, such as `headrace` or `system.slice/headrace.service`; made
            if it is not there.
        worker: name of the worker's own group in it; it begins with `WORKER_PREFIX`.

    Raises:
        ConfigurationError: they cannot be made; the message says what stands against it.
    """

    def __init__(self, parent: str, worker: str, hierarchies: Hierarchies | None = None) -> None:
        found = hierarchies or find_hierarchies(_MOUNTS.read_text() if _MOUNTS.exists() else "")
        if found is None:
            raise ConfigurationError(
                f"HEADRACE_WORKER_CGROUP is {parent}, but this machine has no control groups with the "
                f"controllers {' and '.join(_CONTROLLERS)}."
            )
        self._hierarchies = found
        self._parent = parent.strip("/")
        self._worker = worker
        try:
            self._lock = self._begin()
        except OSError as error:
            raise ConfigurationError(
                f"HEADRACE_WORKER_CGROUP is {parent}, and no groups can be made there: {error.strerror} "
                f"({error.filename}). With version 2 a group whose processes are all in groups below it "
                "is needed, with the controllers memory and pids, that the worker's user may write to."
            ) from None

    def _begin(self) -> int:
        """Make the worker's group and take its lock; a sweep may have been faster, then it is made again."""
        while True:
            for folder in self._folders(self._worker):
                folder.mkdir(parents=True, exist_ok=True)
                if self._hierarchies.version == _UNIFIED:
                    _delegate(folder.parent)
                    _delegate(folder)
            lock = _locked(self._folders(self._worker)[-1])
            if lock is not None:
                return lock

    def _folders(self, worker: str) -> list[Path]:
        return [top / self._parent / worker for top in self._hierarchies.tops]

    def make(self, name: str, memory_bytes: int | None, processes: int | None) -> ControlGroup:
        """The group of a run.

        Raises:
            OSError: it cannot be made.
        """
        group = ControlGroup(self._hierarchies, f"{self._parent}/{self._worker}/{name}")
        group.limit(memory_bytes, processes)
        return group

    def sweep(self) -> None:
        """End and remove what workers that are gone have left; it may take a moment."""
        for folder in (self._hierarchies.tops[-1] / self._parent).glob(f"{WORKER_PREFIX}*/"):
            if folder.name != self._worker and (lock := _locked(folder)) is not None:
                try:
                    self._remove(folder.name)
                finally:
                    os.close(lock)

    def _remove(self, worker: str) -> None:
        folders = self._folders(worker)
        for _ in range(_REMOVALS):
            for run in folders[-1].glob("*/"):
                _kill(run)
            if all(_is_removed(one) for folder in folders for one in (*folder.glob("*/"), folder)):
                return
            time.sleep(_REMOVAL_SECONDS)

    def close(self) -> None:
        """Remove the worker's group; no run is left."""
        self._remove(self._worker)
        os.close(self._lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the lock of a group; None: somebody else has it, or the group is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _kill(folder: Path) -> None:
    """Send SIGKILL to every process of a group, in one step where the kernel can."""
    if (folder / _KILL).exists():
        with contextlib.suppress(OSError):
            (folder / _KILL).write_text("1")
            return
    for pid in _words(folder / "cgroup.procs"):
        with contextlib.suppress(OSError):
            os.kill(int(pid), signal.SIGKILL)


def _is_removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _delegate(folder: Path) -> None:
    """Let groups below this one have caps."""
    if not set(_CONTROLLERS) <= set(_words(folder / "cgroup.subtree_control")):
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in _CONTROLLERS))
