"""Silence and death: leases with amnesty, and local processes that are noticed at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.core.errors import DatabaseUnavailable
from headrace.core.ids import new_id
from headrace.v1 import run_service_pb2, state_pb2
from headrace_services.loops.reaper import LeaseReaper
from headrace_services.settings import ServerSettings
from headrace_services.storage.database import open_database
from tests.rpc.servers import Client, serving
from tests.support.processes import dead_process
from tests.support.recording import attempt_of, flow_run_entry, opening, state_entry, task_run_entry

RUNNING, COMPLETED = state_pb2.STATE_TYPE_RUNNING, state_pb2.STATE_TYPE_COMPLETED
CRASHED = state_pb2.STATE_TYPE_CRASHED
PROGRAM = Path(__file__).with_name("recording_process.py")
pytestmark = pytest.mark.usefixtures("one_event_loop")


async def until_state(client: Client, run_id: str, wanted: int) -> state_pb2.State:
    """Watches the run until it is in a state of that type."""
    request = run_service_pb2.WatchRunsRequest()
    request.filter.ids.append(run_id)
    call = client.runs.WatchRuns(request, timeout=60)
    try:
        async for message in call:
            if message.upsert.state.type == wanted:
                found = message.upsert.state
                assert isinstance(found, state_pb2.State)
                return found
    finally:
        call.cancel()
    raise AssertionError("the watch has ended")


class MovedByHand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def now(self) -> int:
        return int(self.seconds * 1e6)

    def monotonic(self) -> float:
        return self.seconds


async def test_silence_is_no_death_before_the_server_has_listened_for_a_whole_lease(sqlite_url: str) -> None:
    clock, recorder_id, flow = MovedByHand(), new_id(), new_id()
    database = await open_database(sqlite_url, clock=clock)
    await database.writer.open_recorder(opening(recorder_id, host="elsewhere"), "r1", 30)
    await database.writer.record(recorder_id, 1, [flow_run_entry(flow)])
    clock.seconds += 1000  # nobody was there

    async def crashed() -> bool:
        return (await database.reader.get_run(flow)).state.type == CRASHED

    reaper = LeaseReaper(database, lease_seconds=30, renew_seconds=10, clock=clock)

    async def look_for(seconds: int) -> None:
        for _ in range(seconds):
            clock.seconds += 1
            await reaper.reap()

    await look_for(40)
    assert not await crashed()

    # A failure of the database begins the amnesty anew.
    now, database.now = database.now, away  # type: ignore[method-assign]
    with pytest.raises(DatabaseUnavailable):
        await reaper.reap()
    database.now = now  # type: ignore[method-assign]
    await look_for(40)
    assert not await crashed()

    # So does time that passes without a look: the server was frozen, or its database kept it waiting.
    clock.seconds += 60
    await look_for(40)
    assert not await crashed()

    await look_for(1)
    assert await crashed()
    assert reaper.reaped == 1
    await database.close()


async def away() -> int:
    raise DatabaseUnavailable


async def test_a_silent_recorder_loses_its_lease_and_one_that_renews_keeps_it(
    settings: ServerSettings,
) -> None:
    short = replace(settings, server_recorder_lease_seconds=1.0, server_recorder_renew_seconds=0.25)
    silent, steady = new_id(), new_id()
    async with (
        serving(short) as client,
        client.recorder(host="elsewhere") as quiet,
        client.recorder(host="elsewhere") as keen,
    ):
        await quiet.record(flow_run_entry(silent))
        await keen.record(flow_run_entry(steady))

        async def renewing() -> None:
            while True:
                await keen.renew(attempt_of(steady))

        beating = asyncio.ensure_future(renewing())
        state = await until_state(client, silent, CRASHED)
        assert state.crashed.cause == state_pb2.CrashedDetails.CAUSE_LEASE_EXPIRED
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        run = await client.runs.GetRun(run_service_pb2.GetRunRequest(run_id=steady))
        assert run.run.state.type == RUNNING
        # It lived after all: its own word counts.
        await quiet.record(state_entry(silent, COMPLETED))
        await until_state(client, silent, COMPLETED)


@pytest.fixture
def process(client: Client, settings: ServerSettings) -> Iterator[subprocess.Popen[str]]:
    """A process that records a flow run and a task run into the server, and then only waits."""
    environment = {**os.environ, "HEADRACE_HOME": str(settings.home)}
    started = subprocess.Popen(
        [sys.executable, str(PROGRAM), client.server.address, str(settings.home / "spool")],
        env=environment,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield started
    started.kill()
    started.communicate()


@pytest.mark.parametrize("spool", ["with a spool", "without one"])
async def test_a_killed_process_is_noticed_within_two_seconds(
    client: Client, process: subprocess.Popen[str], spool: str
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(spool + "\n")
    process.stdin.flush()
    flow, task = (await asyncio.to_thread(process.stdout.readline)).split()
    await until_state(client, task, RUNNING)
    process.kill()
    killed_at = time.monotonic()
    state = await until_state(client, flow, CRASHED)
    await until_state(client, task, CRASHED)
    assert time.monotonic() - killed_at < 2
    assert state.crashed.cause == state_pb2.CrashedDetails.CAUSE_PROCESS_EXIT
    assert f"pid {process.pid}" in state.message
    assert client.server.watch.suspects == 0


async def until_suspected(client: Client) -> None:
    """Waits until the server has seen a stream end without a word."""
    async with asyncio.timeout(60):
        while not client.server.watch.suspects:
            await client.server.watch.loop.finished(1)


async def test_a_process_that_only_lost_its_stream_is_let_be(client: Client) -> None:
    flow, task = new_id(), new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(flow), task_run_entry(task, flow))
    await until_suspected(client)
    await client.server.watch.loop.finished(3)
    async with client.recorder(recorder.recorder_id) as again:
        await client.server.watch.loop.finished(1)
        assert client.server.watch.suspects == 0
        await again.record(state_entry(flow, COMPLETED))
    assert client.server.watch.deaths == 0


async def test_a_process_of_another_machine_is_left_to_its_lease(client: Client) -> None:
    flow = new_id()
    async with client.recorder(host="elsewhere", pid=2**22 - 3) as recorder:
        await recorder.record(flow_run_entry(flow))
    await client.server.watch.loop.finished(3)
    run = await client.runs.GetRun(run_service_pb2.GetRunRequest(run_id=flow))
    assert run.run.state.type == RUNNING


async def test_a_process_that_died_while_no_server_was_there_is_found_at_start(
    settings: ServerSettings,
) -> None:
    flow = new_id()
    async with serving(settings) as client, client.recorder(pid=dead_process()) as recorder:
        await recorder.record(flow_run_entry(flow))
    async with serving(settings) as client:
        state = await until_state(client, flow, CRASHED)
        assert state.crashed.cause == state_pb2.CrashedDetails.CAUSE_PROCESS_EXIT
