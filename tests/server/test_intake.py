"""Spools left behind are taken in, whatever shape they are in."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.core.ids import new_id
from headrace.v1 import log_pb2, log_service_pb2, run_service_pb2, state_pb2
from headrace_services.loops.intake import Spool
from headrace_services.settings import ServerSettings
from tests.rpc.servers import Client, serving
from tests.support.recording import flow_run_entry, log_entry, state, state_entry, task_run_entry
from tests.support.spools import held, write_spool

RUNNING, COMPLETED = state_pb2.STATE_TYPE_RUNNING, state_pb2.STATE_TYPE_COMPLETED
CRASHED = state_pb2.STATE_TYPE_CRASHED
pytestmark = pytest.mark.usefixtures("one_event_loop")


async def state_of(client: Client, run_id: str) -> state_pb2.State:
    got = await client.runs.GetRun(run_service_pb2.GetRunRequest(run_id=run_id))
    found = got.run.state
    assert isinstance(found, state_pb2.State)
    return found


async def messages(client: Client, run_id: str) -> list[str]:
    request = log_service_pb2.ListLogsRequest(filter=log_pb2.LogFilter(run_ids=[run_id]), page_size=1000)
    return [line.message for line in (await client.logs.ListLogs(request)).logs]


@pytest.fixture
def spools(settings: ServerSettings) -> Path:
    folder = settings.home / "spool"
    folder.mkdir(parents=True)
    return folder


async def test_a_sealed_spool_is_taken_in_and_removed(client: Client, spools: Path) -> None:
    flow = new_id()
    folder = write_spool(spools, new_id(), [flow_run_entry(flow), state_entry(flow, COMPLETED)], sealed=True)
    await client.server.intake.loop.finished(1)
    assert (await state_of(client, flow)).type == COMPLETED
    assert not folder.exists()


async def test_runs_of_a_process_that_ended_without_finishing_are_crashed(
    client: Client, spools: Path
) -> None:
    flow, task = new_id(), new_id()
    entries = [flow_run_entry(flow), task_run_entry(task, flow), state_entry(task, RUNNING)]
    folder = write_spool(spools, new_id(), entries, torn=b"\x30\x00\x00\x00half an entry", pid=2**22 - 5)
    await client.server.intake.loop.finished(1)
    for run_id in (flow, task):
        found = await state_of(client, run_id)
        assert found.type == CRASHED
        assert found.crashed.cause == state_pb2.CrashedDetails.CAUSE_PROCESS_EXIT
        assert f"pid {2**22 - 5}" in found.message
    assert not folder.exists()


async def test_what_was_proposed_without_a_server_has_happened(client: Client, spools: Path) -> None:
    """A living process would be told to wait for the scheduled time."""
    flow = new_id()
    first = flow_run_entry(flow)
    first.run.state.CopyFrom(state(state_pb2.STATE_TYPE_SCHEDULED))
    due = first.run.state.event_time.ToMicroseconds() + 3600 * 1_000_000
    first.run.state.scheduled.scheduled_time.FromMicroseconds(due)
    proposed = state_entry(flow, RUNNING)
    proposed.state.want_verdict = True
    write_spool(spools, new_id(), [first, proposed], sealed=False)
    await client.server.intake.loop.finished(1)
    got = await client.runs.ListStates(run_service_pb2.ListStatesRequest(run_id=flow))
    assert RUNNING in [state.type for state in got.states]


async def test_a_spool_that_was_taken_in_by_halves_goes_on_where_the_database_is(
    client: Client, spools: Path
) -> None:
    flow, recorder_id = new_id(), new_id()
    run, first, second = flow_run_entry(flow), log_entry(flow, "first"), log_entry(flow, "second")
    async with client.recorder(recorder_id, host="elsewhere") as recorder:
        await recorder.record(run, first)
    write_spool(spools, recorder_id, [run, first, second, state_entry(flow, COMPLETED)], sealed=True)
    await client.server.intake.loop.finished(1)
    assert await messages(client, flow) == ["first", "second"]
    assert (await state_of(client, flow)).type == COMPLETED


async def test_a_large_spool_is_taken_in_whole(client: Client, spools: Path) -> None:
    flow = new_id()
    lines = [log_entry(flow, f"{i:05d} " + "x" * 500) for i in range(2500)]
    write_spool(spools, new_id(), [flow_run_entry(flow), *lines, state_entry(flow, COMPLETED)], sealed=True)
    await client.server.intake.loop.finished(1)
    request = log_service_pb2.ListLogsRequest(
        filter=log_pb2.LogFilter(run_ids=[flow]), page_size=1, order=log_service_pb2.LOG_ORDER_NEWEST_FIRST
    )
    newest = (await client.logs.ListLogs(request)).logs[0]
    assert newest.message.startswith("02499 ")
    assert (await state_of(client, flow)).type == COMPLETED


async def test_a_living_process_keeps_its_spool(client: Client, spools: Path, tmp_path: Path) -> None:
    made = write_spool(tmp_path / "elsewhere", new_id(), [flow_run_entry(new_id())])
    with held(made):
        folder = made.rename(spools / made.name)
        await client.server.intake.loop.finished(1)
        assert client.server.intake.alive == 1
        assert folder.exists()
        assert client.server.idle_seconds == 0


async def test_a_spool_for_another_server_is_left_alone(client: Client, spools: Path) -> None:
    folder = write_spool(spools, new_id(), [flow_run_entry(new_id())], address="elsewhere:4200")
    await client.server.intake.loop.finished(1)
    assert folder.exists()


async def test_damaged_spools_are_moved_aside_and_block_nobody(
    client: Client, spools: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flow = new_id()
    no_meta = write_spool(spools, "0-no-meta", [flow_run_entry(new_id())], meta_text="{")
    not_an_id = write_spool(spools, "0-not-an-id", [flow_run_entry(new_id())])
    cut = write_spool(spools, new_id(), [flow_run_entry(new_id()), log_entry(new_id(), "x")], sealed=9)
    write_spool(spools, new_id(), [flow_run_entry(flow), state_entry(flow, COMPLETED)], sealed=True)
    await client.server.intake.loop.finished(1)
    aside = {p.name for p in (spools / "damaged").iterdir()}
    assert aside == {no_meta.name, not_an_id.name, cut.name}
    assert no_meta.name in caplog.text
    assert (await state_of(client, flow)).type == COMPLETED


async def test_a_folder_that_is_just_being_made_is_no_damage(client: Client, spools: Path) -> None:
    folder = spools / new_id()
    folder.mkdir(parents=True)
    assert await client.server.intake.take_in(folder.name) is Spool.ALIVE
    assert folder.exists()


async def test_an_entry_that_is_no_message_costs_only_itself(client: Client, spools: Path) -> None:
    flow = new_id()
    entries = [flow_run_entry(flow), b"\xff\xff\xff", log_entry(flow, "x" * 40_000), log_entry(flow, "kept")]
    write_spool(spools, new_id(), [*entries, state_entry(flow, COMPLETED)], sealed=True)
    await client.server.intake.loop.finished(1)
    assert await messages(client, flow) == ["kept"]
    assert (await state_of(client, flow)).type == COMPLETED


async def test_a_server_that_starts_takes_in_what_it_finds(settings: ServerSettings, spools: Path) -> None:
    flow = new_id()
    write_spool(spools, new_id(), [flow_run_entry(flow), state_entry(flow, COMPLETED)], sealed=True)
    async with serving(settings) as client:
        call = client.runs.WatchRuns(run_service_pb2.WatchRunsRequest())
        async for message in call:
            if message.upsert.id == flow and message.upsert.state.type == COMPLETED:
                break
        call.cancel()
