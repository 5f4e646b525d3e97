"""Every call that the server offers has its method, in both clients, wherever they are used from."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import pytest

import headrace.v1
from headrace import flow, get_client
from headrace.client.api import HeadraceClient
from headrace.client.sync_client import SyncHeadraceClient
from headrace.testing import headrace_test_harness
from headrace.v1.run_pb2 import RunFilter

# The recorder and workers speak these, on streams of their own.
NOT_FOR_CLIENTS = {"RecordService.Record", "WorkerService.Connect"}


def _calls() -> Iterator[tuple[str, str]]:
    """Every call as (service, method), of every service in the schema."""
    for module in pkgutil.iter_modules(headrace.v1.__path__):
        if module.name.endswith("_service_pb2"):
            file = importlib.import_module(f"headrace.v1.{module.name}").DESCRIPTOR
            for service in file.services_by_name.values():
                yield from ((service.name, method.name) for method in service.methods)


CALLS = sorted(_calls())


@pytest.mark.parametrize(("service", "method"), CALLS, ids=".".join)
def test_a_call_has_its_method_in_both_clients(service: str, method: str) -> None:
    if f"{service}.{method}" in NOT_FOR_CLIENTS:
        return
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", method).lower()
    assert f'"{service}/{method}"' in _source(name)
    assert f"self._client.{name}(" in inspect.getsource(getattr(SyncHeadraceClient, name))


def _source(name: str) -> str:
    """The text of a method of the client, and of those that it calls itself."""
    source = inspect.getsource(getattr(HeadraceClient, name))
    others = (getattr(HeadraceClient, other) for other in re.findall(r"await self\.([a-z]\w*)\(", source))
    return source + "".join(map(inspect.getsource, others))


def test_there_are_calls() -> None:
    assert ("RunService", "GetRun") in CALLS
    assert {".".join(call) for call in CALLS} > NOT_FOR_CLIENTS


@flow
def small() -> int:
    return 3


async def test_the_blocking_client_and_flows_work_where_a_loop_runs_already() -> None:
    # As a cell of a notebook does: plain calls, on a thread whose loop is busy with the cell.
    with headrace_test_harness():
        assert asyncio.get_running_loop().is_running()
        assert small() == 3
        with get_client(sync_client=True) as client:
            [run] = client.iter_runs(RunFilter(flow_names=["small"]))
            assert client.get_run(run.id).name == run.name
        async with get_client() as client:
            assert (await client.get_run(run.id)).id == run.id
