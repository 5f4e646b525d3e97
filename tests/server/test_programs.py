"""Real programs, with the real recorder, that are killed in the middle."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.v1 import run_service_pb2, run_service_pb2_grpc, state_pb2
from headrace.v1.run_pb2 import RunFilter
from tests.support.servers import ServerProcess

PROGRAM = Path(__file__).with_name("endless_flow.py")
COMPLETED, CRASHED = state_pb2.STATE_TYPE_COMPLETED, state_pb2.STATE_TYPE_CRASHED
pytestmark = pytest.mark.usefixtures("one_event_loop")


@contextmanager
def running(environment: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program, and the id of its flow run, once it is in its endless task."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM)], env=dict(environment), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        flow_run_id = process.stdout.readline().strip()
        assert flow_run_id
        yield process, flow_run_id
    finally:
        process.kill()
        process.communicate()


async def states_when_crashed(address: str, flow_run_id: str) -> dict[int, int]:
    """How many runs of the tree are in which state, once its flow run is CRASHED."""
    async with grpc.aio.insecure_channel(address) as channel:
        runs: Any = run_service_pb2_grpc.RunServiceStub(channel)
        request = run_service_pb2.WatchRunsRequest(filter=RunFilter(ids=[flow_run_id]))
        call = runs.WatchRuns(request, timeout=60)
        async for message in call:
            if message.upsert.state.type == CRASHED:
                break
        call.cancel()
        tree = run_service_pb2.CountRunsRequest(filter=RunFilter(root_run_ids=[flow_run_id]))
        return {c.state_type: c.count for c in (await runs.CountRuns(tree)).counts}


async def test_a_killed_program_is_crashed_within_two_seconds(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "home") as server:
        with running(server.environment) as (process, flow_run_id):
            process.kill()
            killed_at = time.monotonic()
            states = await states_when_crashed(server.address, flow_run_id)
            assert time.monotonic() - killed_at < 2
        assert states == {COMPLETED: 20, CRASHED: 2}


async def test_what_a_killed_program_recorded_without_a_server_is_all_there(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "home")
    server.home.mkdir()
    with running(server.environment) as (process, flow_run_id):
        process.kill()
    with server:
        assert await states_when_crashed(server.address, flow_run_id) == {COMPLETED: 20, CRASHED: 2}
        await asyncio.to_thread(server.stop)
    assert not list((server.home / "spool").iterdir())
