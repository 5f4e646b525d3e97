"""The work of a user's program, one source for every product: `workload.py PACKAGE`.

Reads commands and writes answers as `benchmarks.processes.Program` wants them. Needs nothing but the
standard library and the package, whose decorators all products name alike.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

sdk = importlib.import_module(sys.argv[1])
policies = importlib.import_module(f"{sys.argv[1]}.cache_policies")
runners = importlib.import_module(f"{sys.argv[1]}.task_runners")
runtime = importlib.import_module(f"{sys.argv[1]}.runtime")

_WORKERS = 2


@sdk.task
def step(number: int) -> int:
    return number


@sdk.task
async def async_step(number: int) -> int:
    return number


@sdk.flow
def sequential(count: int) -> str:
    for number in range(count):
        step(number)
    return str(runtime.flow_run.id)


@sdk.flow
async def gathered(count: int) -> str:
    await asyncio.gather(*(async_step(number) for number in range(count)))
    return str(runtime.flow_run.id)


@sdk.flow
def mapped(count: int) -> str:
    step.map(range(count)).result()
    return str(runtime.flow_run.id)


@functools.cache
def processes() -> Any:
    return runners.ProcessPoolTaskRunner(max_workers=_WORKERS)


@functools.cache
def dask() -> Any:
    # One cluster for all flow runs: what is measured is the work, not its start.
    distributed = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(
        n_workers=_WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    )
    return runners.DaskTaskRunner(cluster)


@functools.cache
def ray() -> Any:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    importlib.import_module("ray").init(
        num_cpus=_WORKERS, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20
    )
    return runners.RayTaskRunner()


def mapped_on(runner: Callable[[], Any]) -> Callable[..., str]:
    return lambda count: str(mapped.with_options(task_runner=runner())(count))


@sdk.task(cache_policy=policies.INPUTS)
def remembered(word: str) -> int:
    return 1


@sdk.task(persist_result=True, cache_policy=policies.NO_CACHE)
def kept(size: int) -> bytes:
    return bytes(size)


@sdk.flow
def cache_hits(count: int) -> str:
    for _ in range(count):
        remembered("the same")
    return str(runtime.flow_run.id)


@sdk.flow
def shared_hits(count: int) -> str:
    shared = remembered.with_options(cache_policy=policies.INPUTS.configure(cache_scope="global"))
    for _ in range(count):
        shared("the same")
    return str(runtime.flow_run.id)


_held: list[Any] = []


@sdk.flow
def futures_held(count: int) -> str:
    """The futures stay until the next time."""
    futures = step.map(range(count))
    futures.wait()
    _held[:] = futures
    return str(runtime.flow_run.id)


@sdk.flow
def kept_1kb(count: int) -> str:
    for _ in range(count):
        kept(1_000)
    return str(runtime.flow_run.id)


@sdk.flow
def kept_1mb(count: int) -> str:
    for _ in range(count):
        kept(1_000_000)
    return str(runtime.flow_run.id)


@sdk.flow
def logged(count: int) -> str:
    logger = sdk.get_run_logger()
    for number in range(count):
        logger.info("line %d of the benchmark, about as long as lines usually are", number)
    return str(runtime.flow_run.id)


@sdk.flow
def empty() -> None:
    pass


@sdk.flow
async def async_empty() -> None:
    pass


def gathered_from_outside(count: int) -> str:
    return asyncio.run(gathered(count))


def flows_sequential(count: int) -> str:
    for _ in range(count):
        empty()
    return "empty"


def flows_concurrent(count: int, at_once: int) -> str:
    async def some(share: int) -> None:
        for _ in range(share):
            await async_empty()

    async def all_of_them() -> None:
        await asyncio.gather(*(some(count // at_once) for _ in range(at_once)))

    asyncio.run(all_of_them())
    return "async-empty"


WORK: dict[str, Callable[..., str]] = {
    "sequential": sequential,
    "gathered": gathered_from_outside,
    "mapped": mapped,
    "mapped_processes": mapped_on(processes),
    "mapped_dask": mapped_on(dask),
    "mapped_ray": mapped_on(ray),
    "cache_hits": cache_hits,
    "shared_hits": shared_hits,
    "futures_held": futures_held,
    "kept_1kb": kept_1kb,
    "kept_1mb": kept_1mb,
    "logged": logged,
    "flows_sequential": flows_sequential,
    "flows_concurrent": flows_concurrent,
}


def main() -> None:
    for line in sys.stdin:
        arguments: dict[str, Any] = json.loads(line)
        work = WORK[arguments.pop("work")]
        start = time.perf_counter()
        subject = work(**arguments)
        print(json.dumps({"subject": subject, "seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
