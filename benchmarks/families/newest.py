"""Lists over many stored runs, as a client gets them."""

from __future__ import annotations

import asyncio
import statistics
import time

import grpc

from benchmarks.families.family import Family, Values
from benchmarks.list_runs import QUERIES, Query, fill
from benchmarks.processes import scratch_folder
from benchmarks.products.product import Database, Databases, Product
from headrace.v1.run_service_pb2 import ListRunsRequest
from headrace.v1.run_service_pb2_grpc import RunServiceStub

__all__ = ["FAMILIES"]

_RUNS = 1_000_000
_PAGE = 50
_CALLS = 20


def _measure(product: Product, databases: Databases, repeats: int) -> Values:
    """Of each repeat, the median time of the filter that took longest."""
    with scratch_folder() as home, databases() as database:
        url = database.url or f"sqlite+aiosqlite:///{home}/runs.db"
        asyncio.run(fill(url, _RUNS))
        with (
            product.server(home, Database(database.kind, url)) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            stub = RunServiceStub(channel)
            slowest = [max(_median_of(stub, query) for query in QUERIES) for _ in range(repeats + 1)]
    return {"newest": slowest[1:]}


def _median_of(stub: RunServiceStub, query: Query) -> float:
    request = ListRunsRequest(filter=query.filter, page_size=_PAGE)
    times = list[float]()
    for _ in range(_CALLS):
        begin = time.perf_counter()
        stub.ListRuns(request)
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


FAMILIES = (Family("newest", _measure, own_only=True, full_only=True),)
