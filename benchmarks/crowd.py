"""A crowd of workers that loses its server and comes back: how long until all are there again.

    python -m benchmarks.crowd [--workers 500] [--database sqlite|postgresql] [--repeats 3]

Each worker is the real session on a stream over a connection of its own, all in one process; half of them
hold a run. The server is killed (SIGKILL) and started again on the same database, with the settings that it
has by default. The clock runs from the moment when the new server answers until the last worker has its
welcome, and until every run that was held has been completed, by the worker that held it, once.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks.processes import scratch_folder
from tests.faults.ground import Ground
from tests.support.postgres import provide_cluster
from tests.support.robots import Robot, robots
from tests.support.servers import ServerProcess

__all__ = ["main"]

GATE_SECONDS: Final = 15.0
_PATIENCE_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.01
_DURABLE: Final = {"fsync": "on", "full_page_writes": "on"}


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - the sessions tell nobody
            await asyncio.sleep(_LOOK_SECONDS)


def _connected(workers: Sequence[Robot]) -> bool:
    return all(worker.session.is_connected for worker in workers)


async def _measure(server: ServerProcess, count: int) -> tuple[float, float]:
    """Seconds until all workers are back, and until all runs that were held are done."""
    ground = Ground(lambda: [server.address], pool=f"crowd-{time.monotonic_ns()}")
    await ground.make_pool()
    async with robots(count, lambda: [server.address], pool=ground.pool, limit=1) as workers:
        await _until(lambda: _connected(workers))
        for worker in workers:
            worker.may_end.clear()
        ids = await ground.ask(count // 2)
        await _until(lambda: sum(len(worker.executions) for worker in workers) == len(ids))
        server.kill()
        await _until(lambda: not any(worker.session.is_connected for worker in workers))
        await asyncio.to_thread(server.start)
        begin = time.perf_counter()
        await _until(lambda: _connected(workers))
        back = time.perf_counter() - begin
        for worker in workers:
            worker.may_end.set()
        await ground.until_done(ids)
        done = time.perf_counter() - begin
        executions = [one for worker in workers for one in worker.executions]
        if sorted(one.run_id for one in executions) != sorted(ids):
            raise SystemExit(f"{len(executions)} executions of {len(ids)} runs")
    return back, done


def main() -> int:
    """Measure and print; 1 when the gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--database", choices=["sqlite", "postgresql"])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    slowest = 0.0
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        for kind in [options.database] if options.database else ["sqlite", "postgresql"]:
            url = None
            if kind == "postgresql":
                url = stack.enter_context(stack.enter_context(provide_cluster(_DURABLE)).database())
            with ServerProcess(folder / kind, database_url=url) as server:
                seen = [asyncio.run(_measure(server, options.workers)) for _ in range(options.repeats)]
            back, done = ([pair[which] for pair in seen] for which in (0, 1))
            print(
                f"{kind:<12} {options.workers} workers back: median {statistics.median(back):.2f} s, "
                f"longest {max(back):.2f} s; their runs done: {statistics.median(done):.2f} s"
            )
            slowest = max(slowest, *back)
    print(f"gate {GATE_SECONDS:g} s")
    return 0 if slowest <= GATE_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
