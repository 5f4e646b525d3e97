"""Facts about the machine and its processes, read from the kernel."""

from __future__ import annotations

import os
import pathlib
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator

__all__ = ["cpu_seconds", "describe", "fsync_micros", "fsync_seconds", "process_tree", "resident_bytes"]

_PROC = pathlib.Path("/proc")
_SCHEDULER_CLOCK = 2


def process_tree(pid: int) -> Iterator[int]:
    """`pid` and every process below it."""
    yield pid
    for listing in (_PROC / str(pid) / "task").glob("*/children"):
        for child in listing.read_text().split():
            yield from process_tree(int(child))


def cpu_seconds(pid: int) -> float:
    """CPU time that a process and those below it have used so far, user and system, all threads.

    Reads the processes' CPU clocks, which count nanoseconds; /proc/PID/stat counts hundredths.
    """
    return sum(time.clock_gettime((~each << 3) | _SCHEDULER_CLOCK) for each in process_tree(pid))


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and those below it."""
    pages = sum(int((_PROC / str(each) / "statm").read_text().split()[1]) for each in process_tree(pid))
    return pages * os.sysconf("SC_PAGESIZE")


def fsync_micros(folder: pathlib.Path, tries: int = 200) -> float:
    """Median time of an 4 kB append and fdatasync to a file in `folder`."""
    return statistics.median(fsync_seconds(folder, tries)) * 1e6


def fsync_seconds(folder: pathlib.Path, tries: int = 200) -> list[float]:
    """The time of each of so many 4 kB appends, with an fdatasync, to a file in `folder`."""
    block, times = b"\0" * 4096, list[float]()
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(tries):
            start = time.perf_counter()
            os.write(file.fileno(), block)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return times


def describe(folder: pathlib.Path) -> dict[str, str]:
    """What figures depend on: cores, versions, the disk under `folder`, what else is running."""
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "kernel": platform.release(),
        "fsync": f"{fsync_micros(folder):.0f} us (median, {folder})",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _processor() -> str:
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
