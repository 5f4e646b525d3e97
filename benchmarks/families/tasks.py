"""Tasks in one flow: one after the other, at once, mapped over threads and processes; cached, kept."""

from __future__ import annotations

from benchmarks.families.family import Family, Values
from benchmarks.families.visible import time_until_visible
from benchmarks.processes import Program, scratch_folder
from benchmarks.products.product import Databases, Product, Server

__all__ = ["FAMILIES"]

_WARM_UP = 50
_SHARES = {"kept_1mb": 0.05, "mapped_dask": 0.5, "mapped_ray": 0.5}
"""Works that are done on a part of the amount of tasks only."""


def _family(work: str, *, is_elsewhere: bool = False, own_only: bool = False) -> Family:
    def measure(product: Product, databases: Databases, repeats: int) -> Values:
        with (
            scratch_folder() as home,
            databases() as database,
            product.server(home, database) as server,
            product.program(server) as program,
        ):
            _once(product, server, program, work, _WARM_UP)
            return _repeat(product, server, program, work, repeats)

    # The database hardly matters where most of the time goes to other processes.
    return Family(f"tasks.{work}", measure, per_database=not is_elsewhere, own_only=is_elsewhere or own_only)


def _repeat(product: Product, server: Server, program: Program, work: str, repeats: int) -> Values:
    values: dict[str, list[float]] = {}
    count = round(product.amounts.tasks * _SHARES.get(work, 1))
    for _ in range(repeats):
        for name, value in _once(product, server, program, work, count).items():
            values.setdefault(f"tasks.{work}{name}", []).append(value)
    return values


def _once(product: Product, server: Server, program: Program, work: str, count: int) -> dict[str, float]:
    cost = time_until_visible(
        program,
        server,
        lambda flow_run_id: server.completed_tasks(flow_run_id) == count,
        product.amounts.visible_within_seconds,
        work,
        count=count,
    )
    return {
        "": count / cost.seconds,
        ".server_cpu": cost.server_cpu_seconds / count * 1e6,
        ".client_cpu": cost.client_cpu_seconds / count * 1e6,
    }


FAMILIES = (
    *(_family(work) for work in ("sequential", "gathered", "mapped", "cache_hits", "kept_1kb", "kept_1mb")),
    _family("shared_hits", own_only=True),
    *(_family(work, is_elsewhere=True) for work in ("mapped_processes", "mapped_dask", "mapped_ray")),
)
