"""Pauses while the server goes away, and where there is none."""

from __future__ import annotations

import asyncio
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from headrace import flow, pause_flow_run, resume_flow_run
from headrace.client import get_client
from headrace.core.errors import ServerUnavailable
from headrace.core.ids import new_id
from headrace.input import receive_input
from headrace.settings import temporary_settings
from headrace.v1.run_pb2 import RunFilter
from headrace.v1.state_pb2 import STATE_TYPE_PAUSED
from tests.support.kinds import KINDS, call, of_kind
from tests.support.scripts import Script
from tests.support.servers import ServerProcess

PROGRAM = """
from headrace import flow, pause_flow_run

@flow(name="waits")
def waits():
    print(pause_flow_run(wait_for_input=int, timeout=120, poll_interval=0.2), flush=True)

waits()
"""


@pytest.fixture
def server_on(tmp_path: pathlib.Path, database_url: str) -> Iterator[ServerProcess]:
    """A server that can be started again at the same address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    settings = {"HEADRACE_SERVER_API_PORT": port}
    with ServerProcess(tmp_path / "server", database_url, settings) as running:
        yield running


@pytest.fixture
def paused(server_on: ServerProcess, tmp_path: pathlib.Path) -> Iterator[tuple[Script, str]]:
    """A program whose flow is paused, and the id of its run."""
    impatient = {
        **server_on.environment,
        "HEADRACE_API_URL": server_on.address,
        "HEADRACE_API_REQUEST_TIMEOUT_SECONDS": "1",
    }
    with Script(tmp_path / "waits.py", PROGRAM, impatient) as script:
        with temporary_settings({"api_url": server_on.address}), get_client(sync_client=True) as client:
            run_id = ""
            for event in client.watch_runs(RunFilter(flow_names=["waits"])):
                if event.upsert.state.type == STATE_TYPE_PAUSED:
                    run_id = event.upsert.id
                    break
        yield script, run_id


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_pause_outlives_its_server(end: str, paused: tuple[Script, str], server_on: ServerProcess) -> None:
    script, run_id = paused
    getattr(server_on, end)()
    server_on.start()
    with temporary_settings({"api_url": server_on.address}):
        resume_flow_run(run_id, 7)
        script.reached("7")
        script.process.communicate(timeout=60)
        assert script.process.returncode == 0
        with get_client(sync_client=True) as client:
            assert client.get_run(run_id).state.name == "Completed"


def test_a_process_that_dies_in_a_pause_leaves_a_crashed_run(
    paused: tuple[Script, str], server_on: ServerProcess
) -> None:
    script, run_id = paused
    script.process.kill()
    script.process.communicate()
    with temporary_settings({"api_url": server_on.address}), get_client(sync_client=True) as client:
        for event in client.watch_runs(RunFilter(ids=[run_id])):
            if event.upsert.state.name == "Crashed":
                break


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_server_a_pause_says_what_it_needs(kind: str) -> None:
    def pauses() -> Any:
        return pause_flow_run()

    with temporary_settings({"api_url": "off"}):
        with pytest.raises(ServerUnavailable, match="Pausing a flow run needs a server"):
            call(flow(of_kind(kind, pauses)))
        with pytest.raises(ServerUnavailable, match="Resuming a flow run needs a server"):
            resume_flow_run(new_id())
        with pytest.raises(ServerUnavailable, match="Receiving input needs a server"):
            receive_input(int, timeout=None, poll_interval=0, flow_run_id=new_id()).next()


def test_a_server_that_does_not_answer_ends_the_wait_in_time() -> None:
    async def receives() -> list[int]:
        return [n async for n in receive_input(int, timeout=0.3, poll_interval=0.01, flow_run_id=new_id())]

    with temporary_settings({"api_url": "127.0.0.1:1"}):
        assert asyncio.run(receives()) == []
