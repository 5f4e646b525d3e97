"""Empty flow runs from one process."""

from __future__ import annotations

from benchmarks.families.family import Family, Values
from benchmarks.families.visible import time_until_visible
from benchmarks.processes import Program, scratch_folder
from benchmarks.products.product import Databases, Product, Server

__all__ = ["FAMILIES"]

_AT_ONCE = 50


def _measure(product: Product, databases: Databases, repeats: int) -> Values:
    count = product.amounts.flows
    at_once = min(_AT_ONCE, count)
    with (
        scratch_folder() as home,
        databases() as database,
        product.server(home, database) as server,
        product.program(server) as program,
    ):
        program.ask("flows_sequential", count=2)
        return {
            "flows.sequential": [
                count / _once(product, server, program, "flows_sequential", count) for _ in range(repeats)
            ],
            "flows.concurrent": [
                count / _once(product, server, program, "flows_concurrent", count, at_once=at_once)
                for _ in range(repeats)
            ],
        }


def _once(product: Product, server: Server, program: Program, work: str, count: int, **more: object) -> float:
    flow_name = {"flows_sequential": "empty", "flows_concurrent": "async-empty"}[work]
    wanted = server.completed_flows(flow_name) + count
    cost = time_until_visible(
        program,
        server,
        lambda name: server.completed_flows(name) == wanted,
        product.amounts.visible_within_seconds,
        work,
        count=count,
        **more,
    )
    return cost.seconds


FAMILIES = (Family("flows", _measure),)
