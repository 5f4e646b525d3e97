"""Work that is timed until an independent client sees all of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.machine import cpu_seconds
from benchmarks.processes import Program, wait_until
from benchmarks.products.product import Server

__all__ = ["Cost", "time_until_visible"]


@dataclass(frozen=True)
class Cost:
    """What a piece of work took, from the command to the first query that shows all of it."""

    seconds: float
    server_cpu_seconds: float
    client_cpu_seconds: float


def time_until_visible(
    program: Program,
    server: Server,
    visible: Callable[[str], bool],
    within_seconds: float,
    work: str,
    **arguments: object,
) -> Cost:
    """Have `program` do `work`, then ask until `visible` says yes to what it answered.

    Raises:
        BenchmarkError: not all of it was visible `within_seconds` after the program was done.
    """
    client_before, server_before = cpu_seconds(program.pid), cpu_seconds(server.pid)
    start = time.perf_counter()
    subject = program.ask(work, **arguments)["subject"]
    wait_until(lambda: visible(subject) or None, within_seconds, f"all of {work} to be visible", pause=0.005)
    seconds = time.perf_counter() - start
    return Cost(seconds, cpu_seconds(server.pid) - server_before, cpu_seconds(program.pid) - client_before)
