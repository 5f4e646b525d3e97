"""Control groups of runs: caps on memory and processes for a run with everything it starts.

Both kinds that Linux has are spoken: the one hierarchy of version 2, and the hierarchies of version 1, one
for each controller. A run's group is `PARENT/WORKER/RUN`. Groups need a parent that this process may write
to, and whose processes are all in groups below it; which one is for whoever runs the machine to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.core.errors import ConfigurationError

__all__ = ["ControlGroup", "ControlGroups", "Hierarchies", "find_hierarchies"]

_CONTROLLERS: Final = ("memory", "pids")
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
            return Hierarchies(2, Path(folder), Path(folder))
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
        self._files = _VERSION_2 if hierarchies.version == 2 else _VERSION_1
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

    Args:
        parent: below the top of every hierarchy, such as `headrace` or `system.slice/headrace.service`; made
            if it is not there.
        worker: name of the worker's own group in it.

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
        self._name = f"{self._parent}/{worker}"
        try:
            for top in found.tops:
                (top / self._name).mkdir(parents=True, exist_ok=True)
                if found.version == 2:
                    _delegate(top / self._parent)
                    _delegate(top / self._name)
        except OSError as error:
            raise ConfigurationError(
                f"HEADRACE_WORKER_CGROUP is {parent}, and no groups can be made there: {error.strerror} "
                f"({error.filename}). With version 2 a group whose processes are all in groups below it "
                "is needed, with the controllers memory and pids, that the worker's user may write to."
            ) from None

    def make(self, name: str, memory_bytes: int | None, processes: int | None) -> ControlGroup:
        """The group of a run.

        Raises:
            OSError: it cannot be made.
        """
        group = ControlGroup(self._hierarchies, f"{self._name}/{name}")
        group.limit(memory_bytes, processes)
        return group

    def sweep(self, worker: str) -> None:
        """End and remove what a worker that is gone has left; it may take a moment."""
        folders = [top / self._parent / worker for top in self._hierarchies.tops]
        for _ in range(_REMOVALS):
            for run in (self._hierarchies.pids / self._parent / worker).glob("*/"):
                _kill(run)
            if all(_is_removed(one) for folder in folders for one in (*folder.glob("*/"), folder)):
                return
            time.sleep(_REMOVAL_SECONDS)

    def close(self) -> None:
        """Remove the worker's group; no run is left."""
        self.sweep(self._name.rpartition("/")[2])


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
