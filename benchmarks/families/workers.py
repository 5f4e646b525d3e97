"""Runs on a process worker: how soon one runs, and how many end per second."""

from __future__ import annotations

import itertools
import pathlib
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.families.family import Family, Values
from benchmarks.processes import running, scratch_folder, wait_until
from benchmarks.products.product import OWN_PYTHON, Databases, Product, Server
from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.run_pb2 import Run, RunFilter, RunKind
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import StateType

__all__ = ["FAMILIES"]

CREATES: Final = 40
QUEUED: Final = 200
_POOL: Final = "bench"
_PATIENCE_SECONDS: Final = 120.0
_FLOW: Final = "from headrace import flow\n\n\n@flow\ndef noop() -> None:\n    pass\n"


def _workers(product: Product, databases: Databases, repeats: int) -> Values:
    values: dict[str, list[float]] = {"workers.p50": [], "workers.p95": [], "workers.queued": []}
    for _ in range(repeats):
        with (
            scratch_folder() as home,
            databases() as database,
            product.server(home, database) as server,
            _worker(server, home) as entrypoint,
        ):
            starts = _starts(server, entrypoint)
            values["workers.p50"].append(statistics.median(starts))
            values["workers.p95"].append(statistics.quantiles(starts, n=20)[18])
            values["workers.queued"].append(_queued(server, entrypoint))
    return values


@contextmanager
def _worker(server: Server, home: pathlib.Path) -> Iterator[str]:
    """A worker that is connected; gives the entrypoint of a flow for it."""
    flows = home / "flows.py"
    flows.write_text(_FLOW)
    command = [str(OWN_PYTHON), "-m", "headrace", "worker", "start", "--pool", _POOL]
    with running(command, server.environment, home / "worker.log"):
        yield f"{flows}:noop"


def _starts(server: Server, entrypoint: str) -> list[float]:
    """Milliseconds from the call that makes a run until it is RUNNING, one run after the other."""
    with _client(server) as client:
        wait_until(lambda: list(client.iter_workers(_POOL)) or None, _PATIENCE_SECONDS, "the worker")
        found: list[float] = []
        for _ in range(CREATES + 1):
            begin = time.time()
            run_id = _create(client, entrypoint)

            def ended(run_id: str = run_id) -> float | None:
                [run] = list(client.iter_runs(RunFilter(ids=[run_id])))
                if run.state.type != StateType.STATE_TYPE_COMPLETED:
                    return None
                return float(run.start_time.ToMicroseconds()) / 1e6

            found.append((wait_until(ended, _PATIENCE_SECONDS, "the end of a run", 0.02) - begin) * 1000)
    # The first one finds nothing of the server's in its caches.
    return found[1:]


def _queued(server: Server, entrypoint: str) -> float:
    """Runs per second, from the moment when 200 queued ones may begin until all have completed."""
    with _client(server) as client:
        client.pause_work_pool(_POOL)
        for _ in range(QUEUED):
            _create(client, entrypoint)
        before = server.completed_flows("noop")
        begin = time.perf_counter()
        client.resume_work_pool(_POOL)

        def completed() -> float | None:
            return time.perf_counter() if server.completed_flows("noop") - before >= QUEUED else None

        return QUEUED / (wait_until(completed, _PATIENCE_SECONDS, "the queue to be empty", 0.05) - begin)


_numbers = itertools.count(1)


def _create(client: SyncHeadraceClient, entrypoint: str) -> str:
    name = f"noop {next(_numbers)}"
    run = Run(id=new_id(), kind=RunKind.RUN_KIND_FLOW, name=name, flow_name="noop", work_pool=_POOL)
    run.state.id, run.state.type = new_id(), StateType.STATE_TYPE_SCHEDULED
    run.state.event_time.GetCurrentTime()
    run.job_variables.update({"env": {"HEADRACE__ENTRYPOINT": entrypoint}, "stream_output": False})
    client.create_run(CreateRunRequest(run=run))
    return run.id


@contextmanager
def _client(server: Server) -> Iterator[SyncHeadraceClient]:
    named = server.environment
    where = {"home": named["HEADRACE_HOME"], "api_url": named["HEADRACE_API_URL"]}
    with temporary_settings(where), get_client(sync_client=True) as client:
        yield client


FAMILIES = (Family("workers", _workers, own_only=True),)
