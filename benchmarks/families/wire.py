"""headrace's own calls: how soon one state is durable, and how many runs can be created."""

from __future__ import annotations

import pathlib
import statistics

from benchmarks.families.family import Family, Values
from benchmarks.processes import Program, scratch_folder
from benchmarks.products.product import Databases, Product, Server

__all__ = ["FAMILIES"]

_PROGRAMS = pathlib.Path(__file__).parents[1] / "programs"
_STATES = 300
_CREATES, _IN_FLIGHT = 3200, 32


def _acknowledgement(product: Product, databases: Databases, repeats: int) -> Values:
    with (
        scratch_folder() as home,
        databases() as database,
        product.server(home, database) as server,
        _program(product, server, "acknowledgements.py") as program,
    ):
        program.ask("states", count=20)
        medians = [
            statistics.median(program.ask("states", count=_STATES)["seconds"]) * 1e3 for _ in range(repeats)
        ]
    return {"acknowledgement": medians}


def _creates(product: Product, databases: Databases, repeats: int) -> Values:
    with (
        scratch_folder() as home,
        databases() as database,
        product.server(home, database) as server,
        _program(product, server, "creates.py", server.address) as program,
    ):
        rates = [_rate(program) for _ in range(repeats + 1)]
    return {"creates": rates[1:]}


def _rate(program: Program) -> float:
    return float(_CREATES / program.ask("creates", count=_CREATES, in_flight=_IN_FLIGHT)["seconds"])


def _program(product: Product, server: Server, name: str, *arguments: str) -> Program:
    command = [str(product.python), str(_PROGRAMS / name), *arguments]
    return Program(command, server.environment, server.folder / "client.log")


FAMILIES = (
    Family("acknowledgement", _acknowledgement, own_only=True),
    Family("creates", _creates, own_only=True),
)
