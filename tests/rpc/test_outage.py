"""The database goes away under a running server, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import grpc
import pytest

from headrace.core.ids import new_id
from headrace.v1 import run_service_pb2, state_pb2
from tests.rpc.servers import Client, serving, settings_for
from tests.rpc.test_edge import info_of
from tests.support.recording import flow_run_entry, state_entry

COMPLETED = state_pb2.STATE_TYPE_COMPLETED


@asynccontextmanager
async def away(url: str) -> AsyncIterator[None]:
    """Throws everybody out of the database and lets nobody in."""
    base, _, name = url.replace("postgresql+asyncpg", "postgresql").rpartition("/")
    connection = await asyncpg.connect(f"{base}/postgres")
    try:
        await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        yield
    finally:
        await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await connection.close()


async def refused(call: Callable[[], Awaitable[object]]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    return caught.value


async def test_a_database_that_goes_away_and_comes_back(
    tmp_path: Path, postgresql_url: str, one_event_loop: None
) -> None:
    flow = new_id()
    async with (
        serving(settings_for(tmp_path / "home", postgresql_url)) as client,
        client.recorder() as recorder,
    ):
        await recorder.record(flow_run_entry(flow))
        request = run_service_pb2.GetRunRequest(run_id=flow)
        async with away(postgresql_url):
            error = await refused(lambda: client.runs.GetRun(request))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert info_of(error).reason == "DATABASE_UNAVAILABLE"
            await recorder.send(state_entry(flow, COMPLETED))
            error = await recorder.failure()
            assert info_of(error).reason == "DATABASE_UNAVAILABLE"
            await client.server.watch.loop.finished(1)
        assert client.server.watch.deaths == 0
        await recovered(client, request)
        async with client.recorder(recorder.recorder_id) as again:
            assert again.opened.durable_seq == 1
            await again.record(state_entry(flow, COMPLETED))
        assert (await client.runs.GetRun(request)).run.state.type == COMPLETED


async def recovered(client: Client, request: run_service_pb2.GetRunRequest) -> None:
    """Asks until the server answers again."""
    async with asyncio.timeout(60):
        while True:
            try:
                await client.runs.GetRun(request)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                continue
            return
