"""Log lines of one flow run."""

from __future__ import annotations

from benchmarks.families.family import Family, Values
from benchmarks.families.visible import time_until_visible
from benchmarks.processes import BenchmarkError, Program, scratch_folder
from benchmarks.products.product import Databases, Product, Server

__all__ = ["FAMILIES"]

_WARM_UP = 100


def _measure(product: Product, databases: Databases, repeats: int) -> Values:
    count = product.amounts.log_lines
    with (
        scratch_folder() as home,
        databases() as database,
        product.server(home, database) as server,
        product.program(server) as program,
    ):
        _once(product, server, program, _WARM_UP)
        return {"logs": [count / _once(product, server, program, count) for _ in range(repeats)]}


def _once(product: Product, server: Server, program: Program, count: int) -> float:
    last = f"line {count - 1} "
    seen: list[str] = []

    def visible(flow_run_id: str) -> bool:
        seen[:] = [flow_run_id]
        return any(line.startswith(last) for line in server.newest_log_lines(flow_run_id))

    cost = time_until_visible(
        program, server, visible, product.amounts.visible_within_seconds, "logged", count=count
    )
    if (shown := server.count_log_lines(seen[0])) < count:
        raise BenchmarkError(f"{product.name} shows the last log line, but only {shown} of {count}")
    return cost.seconds


FAMILIES = (Family("logs", _measure),)
