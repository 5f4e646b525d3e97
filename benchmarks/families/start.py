"""A server's start, its idle memory, and the command line against it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence

from benchmarks.families.family import Family, Values
from benchmarks.machine import resident_bytes
from benchmarks.processes import scratch_folder
from benchmarks.products.product import Databases, Product

__all__ = ["FAMILIES"]

_SETTLE_SECONDS = 1.0


def _server(product: Product, databases: Databases, repeats: int) -> Values:
    starts, memory = list[float](), list[float]()
    for _ in range(repeats):
        with scratch_folder() as home, databases() as database:
            begin = time.perf_counter()
            with product.server(home, database) as server:
                starts.append(time.perf_counter() - begin)
                time.sleep(_SETTLE_SECONDS)
                memory.append(resident_bytes(server.pid) / 1e6)
    return {"server.start": starts, "server.memory": memory}


def _cli(product: Product, databases: Databases, repeats: int) -> Values:
    with scratch_folder() as home, databases() as database, product.server(home, database) as server:
        with product.program(server) as program:
            program.ask("flows_sequential", count=1)
        return {
            "cli.help": [_run(product, server.environment, ["--help"]) for _ in range(repeats)],
            "cli.query": [_run(product, server.environment, product.query_command) for _ in range(repeats)],
        }


def _run(product: Product, environment: Mapping[str, str], arguments: Sequence[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(
        [product.command, *arguments],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return time.perf_counter() - begin


FAMILIES = (Family("server", _server), Family("cli", _cli, per_database=False))
