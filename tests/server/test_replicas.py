"""Whole server processes: killed in the middle, and two of them on one database."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.core.ids import new_id
from headrace.v1 import run_service_pb2, run_service_pb2_grpc, state_pb2
from headrace.v1.run_pb2 import RunFilter
from tests.support.recording import RecordingClient, flow_run_entry, state_entry, task_run_entry
from tests.support.servers import ServerProcess

RUNNING, COMPLETED = state_pb2.STATE_TYPE_RUNNING, state_pb2.STATE_TYPE_COMPLETED
pytestmark = pytest.mark.usefixtures("one_event_loop")


def runs(channel: grpc.aio.Channel) -> Any:
    return run_service_pb2_grpc.RunServiceStub(channel)


async def completed(channel: grpc.aio.Channel, flow: str) -> int:
    request = run_service_pb2.CountRunsRequest(filter=RunFilter(root_run_ids=[flow], state_types=[COMPLETED]))
    return sum(c.count for c in (await runs(channel).CountRuns(request)).counts)


async def record_until_killed(server: ServerProcess, flow: str, kill_after: int) -> RecordingClient:
    """Streams task runs as fast as it can; the server is killed after so many acknowledged entries."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        recorder = await RecordingClient(channel).open()
        await recorder.send(flow_run_entry(flow))

        async def sending() -> None:
            while True:
                task = new_id()
                await recorder.send(
                    task_run_entry(task, flow), state_entry(task, RUNNING), state_entry(task, COMPLETED)
                )

        writer = asyncio.ensure_future(sending())
        await recorder.acknowledged(kill_after)
        await asyncio.to_thread(server.kill)
        with pytest.raises((grpc.aio.AioRpcError, AssertionError)):
            await recorder.acknowledged(10**9)
        await asyncio.gather(writer, return_exceptions=True)
        return recorder


@pytest.mark.parametrize("kill_after", [1, 100, 700])
async def test_a_killed_server_has_everything_that_it_acknowledged(
    tmp_path: Path, database_url: str, kill_after: int
) -> None:
    server, flow = ServerProcess(tmp_path / "home", database_url), new_id()
    server.start()
    told = await record_until_killed(server, flow, kill_after)
    with server:
        async with (
            grpc.aio.insecure_channel(server.address) as channel,
            RecordingClient(channel, told.recorder_id) as again,
        ):
            assert again.opened.durable_seq >= told.durable_seq
            assert await completed(channel, flow) == (again.opened.durable_seq - 1) // 3
            # It goes on where the database is, and nothing is applied twice.
            await again.record(state_entry(flow, COMPLETED))
            assert again.durable_seq == again.opened.durable_seq + 1


async def test_a_watch_on_one_server_sees_what_another_writes(tmp_path: Path, postgresql_url: str) -> None:
    flow, task = new_id(), new_id()
    with (
        ServerProcess(tmp_path / "one", postgresql_url) as one,
        ServerProcess(tmp_path / "two", postgresql_url) as two,
    ):
        async with (
            grpc.aio.insecure_channel(one.address) as here,
            grpc.aio.insecure_channel(two.address) as there,
            RecordingClient(there) as recorder,
        ):
            call = runs(here).WatchRuns(run_service_pb2.WatchRunsRequest(), timeout=60)
            await recorder.record(flow_run_entry(flow), task_run_entry(task, flow))
            await recorder.record(state_entry(task, COMPLETED), state_entry(flow, COMPLETED))
            seen: dict[str, int] = {}
            while seen != {flow: COMPLETED, task: COMPLETED}:
                message = await call.read()
                seen[message.upsert.id] = message.upsert.state.type
                seen.pop("", None)
            call.cancel()
            # The recorder may go on at the other server.
            async with RecordingClient(here, recorder.recorder_id) as moved:
                assert moved.opened.durable_seq == 4


async def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path, sqlite_url: str) -> None:
    """A limit on the size of files stands for the disk."""
    journal = Path(sqlite_url.partition(":///")[2] + "-wal")
    server, flow = ServerProcess(tmp_path / "home", sqlite_url), new_id()
    with server:
        assert server.process is not None
        async with (
            grpc.aio.insecure_channel(server.address) as channel,
            RecordingClient(channel) as recorder,
        ):
            await recorder.record(flow_run_entry(flow))
            limit_file_size(server.process.pid, size_of(journal) + 65536)
            with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
                while True:
                    await recorder.record(*(task_run_entry(new_id(), flow) for _ in range(20)))
            assert await recorder.call.code() in (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.UNAVAILABLE,
            )
            limit_file_size(server.process.pid, None)
            async with RecordingClient(channel, recorder.recorder_id) as again:
                assert again.opened.durable_seq == recorder.durable_seq
                await again.record(state_entry(flow, COMPLETED))


def size_of(path: Path) -> int:
    return path.stat().st_size


def limit_file_size(pid: int, size: int | None) -> None:
    """Lets no file of the process grow beyond `size` bytes."""
    unlimited = resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (unlimited if size is None else size, unlimited))
