"""Runs that reach a worker: how soon one does, and how many of them."""

from __future__ import annotations

import pathlib
import statistics

from benchmarks.families.family import Family, Values
from benchmarks.processes import Program, scratch_folder
from benchmarks.products.product import Databases, Product

__all__ = ["FAMILIES"]

_PROGRAM = pathlib.Path(__file__).parents[1] / "programs" / "dispatch.py"
_ONE_BY_ONE = 200
_AT_ONCE = 3200


def _dispatch(product: Product, databases: Databases, repeats: int) -> Values:
    with (
        scratch_folder() as home,
        databases() as database,
        product.server(home, database) as server,
        Program(
            [str(product.python), str(_PROGRAM), server.address],
            server.environment,
            server.folder / "client.log",
        ) as program,
    ):
        program.ask("latency", count=20)
        waits = [program.ask("latency", count=_ONE_BY_ONE)["seconds"] for _ in range(repeats)]
        rates = [_AT_ONCE / program.ask("rate", count=_AT_ONCE)["seconds"] for _ in range(repeats)]
    return {
        "dispatch.p50": [statistics.median(seconds) * 1e3 for seconds in waits],
        "dispatch.p95": [statistics.quantiles(seconds, n=20)[-1] * 1e3 for seconds in waits],
        "dispatch.rate": rates,
    }


FAMILIES = (Family("dispatch", _dispatch, own_only=True),)
