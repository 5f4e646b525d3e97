"""The client against the real server, and its two faces against each other."""

from __future__ import annotations

import asyncio
import inspect
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headrace.client import get_client
from headrace.client.api import HeadraceClient
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.errors import (
    FieldsInvalid,
    ObjectNotFound,
    PageTokenInvalid,
    ProtocolUnsupported,
    RunActive,
    ServerUnavailable,
    Unauthenticated,
)
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1 import run_service_pb2 as runs
from headrace.v1.flow_service_pb2 import ListFlowsRequest
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run, RunFilter
from headrace.v1.state_pb2 import STATE_TYPE_PENDING, STATE_TYPE_RUNNING, State
from tests.support.proxy import Proxy
from tests.support.record_server import RecordServer
from tests.support.servers import ServerProcess

ROOT = pathlib.Path(__file__).parent.parent.parent
TIMEOUT = 30.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests that only ask."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


def new_run(name: str = "a run", flow_name: str = "flow", **fields: object) -> runs.CreateRunRequest:
    run_id = new_id()
    run = Run(id=run_id, kind=RUN_KIND_FLOW, name=name, flow_name=flow_name, **fields)  # type: ignore[arg-type]
    run.state.id, run.state.type = new_id(), STATE_TYPE_PENDING
    run.state.event_time.GetCurrentTime()
    return runs.CreateRunRequest(run=run)


def running() -> State:
    state = State(id=new_id(), type=STATE_TYPE_RUNNING)
    state.event_time.GetCurrentTime()
    return state


async def test_every_call_of_a_runs_life(shared: ServerProcess) -> None:
    with temporary_settings({"api_url": shared.address}):
        async with get_client() as client:
            assert client.address == shared.address
            created = await client.create_run(new_run(flow_name="life"))
            run_id = created.run.id
            assert not created.existed
            assert (await client.get_run(run_id)).name == "a run"
            verdict = await client.propose_state(runs.ProposeStateRequest(run_id=run_id, state=running()))
            assert verdict.WhichOneof("verdict") == "accepted"
            change = runs.UpdateRunRequest(run=Run(id=run_id, name="renamed"))
            change.update_mask.paths.append("name")
            assert (await client.update_run(change)).name == "renamed"
            assert [
                state.type
                for state in (await client.list_states(runs.ListStatesRequest(run_id=run_id))).states
            ] == [
                STATE_TYPE_PENDING,
                STATE_TYPE_RUNNING,
            ]
            assert len([state async for state in client.iter_states(run_id, page_size=1)]) == 2
            assert [attempt.number for attempt in (await client.list_attempts(run_id)).attempts] == [1]
            assert [node.run_id for node in (await client.get_run_graph(run_id)).nodes] == [run_id]
            flow = await client.get_flow(name="life")
            assert (await client.get_flow(id=flow.flow.id)).flow.name == "life"
            assert "life" in [flow.name async for flow in client.iter_flows(page_size=1)]
            assert len((await client.list_flows(ListFlowsRequest(name_contains="life"))).flows) == 1
            with pytest.raises(RunActive):
                await client.delete_run(run_id)
            assert (await client.delete_run(run_id, force=True)).deleted_runs == 1
            with pytest.raises(ObjectNotFound):
                await client.get_run(run_id)
            assert (await client.delete_flow(name="life")).deleted_runs == 0
            assert (await client.get_server_info()).database == "sqlite"


async def test_pages_follow_each_other(shared: ServerProcess) -> None:
    with temporary_settings({"api_url": shared.address}):
        async with get_client() as client:
            for number in range(7):
                await client.create_run(new_run(str(number), "paged"))
            wanted = RunFilter(flow_names=["paged"])
            order = runs.RunOrder.RUN_ORDER_CREATE_TIME_ASC
            names = [run.name async for run in client.iter_runs(wanted, order=order, page_size=3)]
            assert names == [str(number) for number in range(7)]
            counts = await client.count_runs(wanted)
            assert [(c.state_type, c.count) for c in counts.counts] == [(STATE_TYPE_PENDING, 7)]


async def test_errors_are_the_classes_that_the_server_raised(shared: ServerProcess) -> None:
    with temporary_settings({"api_url": shared.address}):
        async with get_client() as client:
            with pytest.raises(FieldsInvalid) as invalid:
                await client.get_run("no id")
            assert [violation.field for violation in invalid.value.violations] == ["run_id"]
            missing = new_id()
            with pytest.raises(ObjectNotFound) as not_found:
                await client.get_run(missing)
            assert not_found.value.facts["key"] == missing
            with pytest.raises(PageTokenInvalid):
                await client.list_runs(runs.ListRunsRequest(page_token="x"))


async def test_a_watch_goes_on_over_restarts_of_the_server(server: ServerProcess) -> None:
    with temporary_settings({"home": server.home}):
        async with get_client() as client:
            seen: list[str] = []
            is_synced = asyncio.Event()
            has_both = asyncio.Event()

            async def watch() -> None:
                async for event in client.watch_runs(RunFilter(flow_names=["watched"])):
                    if event.WhichOneof("event") == "upsert":
                        seen.append(event.upsert.name)
                    elif event.bookmark.initial_sync_done:
                        is_synced.set()
                    if {"first", "second"} <= set(seen):
                        has_both.set()

            watching = asyncio.create_task(watch())
            async with asyncio.timeout(TIMEOUT):
                await is_synced.wait()
                await client.create_run(new_run("first", "watched"))
                address = server.address
                await asyncio.to_thread(server.kill)
                server.settings = {"HEADRACE_SERVER_API_PORT": address.rpartition(":")[2]}
                await asyncio.to_thread(server.start)
                await client.create_run(new_run("second", "watched"))
                await has_both.wait()
            watching.cancel()
            assert seen.count("second") == 1


async def test_a_call_is_repeated_while_the_server_is_away(server: ServerProcess) -> None:
    with temporary_settings({"home": server.home}):
        async with get_client() as client:
            await client.get_server_info()
            address = server.address
            await asyncio.to_thread(server.kill)
            asked = asyncio.create_task(client.get_server_info(timeout=TIMEOUT))
            server.settings = {"HEADRACE_SERVER_API_PORT": address.rpartition(":")[2]}
            await asyncio.to_thread(server.start)
            assert (await asked).version


async def test_nobody_at_an_address_is_said_soon() -> None:
    with RecordServer() as gone:
        address = gone.address
    with temporary_settings({"api_url": address}):
        async with get_client() as client:
            began = asyncio.get_running_loop().time()
            with pytest.raises(ServerUnavailable, match=address):
                await client.get_server_info()
            with pytest.raises(ServerUnavailable, match=address):
                async for _ in client.watch_runs():
                    pass
            assert asyncio.get_running_loop().time() - began < 5


async def test_a_server_that_says_nothing_is_a_time_limit(shared: ServerProcess) -> None:
    with Proxy(shared.address) as proxy, temporary_settings({"api_url": proxy.address}):
        async with get_client() as client:
            await client.get_server_info()
            proxy.swallows = True
            with pytest.raises(ServerUnavailable, match="in time"):
                await client.get_server_info(timeout=0.3)


async def test_a_server_that_does_not_know_the_call_is_older() -> None:
    with RecordServer() as server, temporary_settings({"api_url": server.address}):
        async with get_client() as client:
            with pytest.raises(ProtocolUnsupported, match="older than this client"):
                await client.get_server_info()


async def test_credentials_are_sent(tmp_path: pathlib.Path) -> None:
    with ServerProcess(
        tmp_path / "home", settings={"HEADRACE_SERVER_API_AUTH_STRING": "me:päss:word"}
    ) as server:
        with temporary_settings({"api_url": server.address}):
            async with get_client() as client:
                with pytest.raises(Unauthenticated):
                    await client.get_server_info()
        with temporary_settings({"api_url": server.address, "api_auth_string": "me:päss:word"}):
            async with get_client() as client:
                assert (await client.get_server_info()).version


def test_the_blocking_client_does_the_same(shared: ServerProcess) -> None:
    with temporary_settings({"api_url": shared.address}), get_client(sync_client=True) as client:
        run_id = client.create_run(new_run(flow_name="blocking")).run.id
        assert client.get_run(run_id).flow_name == "blocking"
        assert [run.id for run in client.iter_runs(RunFilter(flow_names=["blocking"]))] == [run_id]
        first = next(iter(client.watch_runs(RunFilter(flow_names=["blocking"]))))
        assert first.upsert.id == run_id
        with pytest.raises(ObjectNotFound):
            client.get_run(new_id())


def test_the_blocking_client_agrees_with_the_other() -> None:
    """It is generated; this says so of what was committed."""
    written = subprocess.run(
        [sys.executable, "-c", "from tools import clientgen; print(clientgen.generate(), end='')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert written.stdout == (ROOT / "sdk/headrace/client/sync_client.py").read_text()
    for name, method in inspect.getmembers(HeadraceClient, inspect.isfunction):
        if not name.startswith("_"):
            twin = getattr(SyncHeadraceClient, name)
            assert inspect.signature(twin).parameters == inspect.signature(method).parameters, name


def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        _ = get_client().address
    with pytest.raises(RuntimeError, match="with get_client"):
        get_client(sync_client=True).get_server_info()


async def test_an_address_that_is_off_is_no_server() -> None:
    with (
        temporary_settings({"api_url": "off"}),
        pytest.raises(ServerUnavailable, match="HEADRACE_API_URL is off"),
    ):
        async with get_client():
            pass
