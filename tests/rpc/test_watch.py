"""Watching runs and tailing logs: the current set, a bookmark, changes, and going on from a token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from headrace.core.clock import SystemClock
from headrace.core.ids import new_id
from headrace.v1 import log_service_pb2, run_pb2, run_service_pb2, state_pb2
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import RunFilter
from headrace_services.rpc.drain import Drain
from headrace_services.rpc.watch import LogTail, RunWatch, WatchSettings
from tests.rpc.servers import Client
from tests.rpc.test_edge import info_of
from tests.support.recording import flow_run_entry, log_entry, state_entry, task_run_entry

RUNNING, COMPLETED = state_pb2.STATE_TYPE_RUNNING, state_pb2.STATE_TYPE_COMPLETED


async def read(call: Any) -> Any:
    """The next message of a stream; fails the test when there is none."""
    message = await asyncio.wait_for(call.read(), 60)
    assert message is not grpc.aio.EOF
    return message


async def until(call: Any, wanted: Callable[[Any], bool]) -> Any:
    """Reads until a message is what is wanted."""
    while not wanted(message := await read(call)):
        pass
    return message


def synced(message: run_service_pb2.WatchRunsResponse) -> bool:
    return message.bookmark.initial_sync_done


def watch(client: Client, **request: Any) -> Any:
    return client.runs.WatchRuns(run_service_pb2.WatchRunsRequest(**request))


async def test_the_current_set_then_a_bookmark_then_changes(client: Client) -> None:
    first, second = new_id(), new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(first))
        call = watch(client, filter=RunFilter(top_level_only=True))
        assert (await read(call)).upsert.id == first
        bookmark = await read(call)
        assert synced(bookmark)
        assert bookmark.resume_token
        await recorder.record(flow_run_entry(second))
        change = await read(call)
        assert (change.upsert.id, change.upsert.state.type) == (second, RUNNING)
        await recorder.record(state_entry(first, COMPLETED))
        change = await read(call)
        assert (change.upsert.id, change.upsert.state.type) == (first, COMPLETED)
        call.cancel()


async def test_a_run_that_leaves_the_filter_is_removed(client: Client) -> None:
    mine, other = new_id(), new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(mine))
        call = watch(client, filter=RunFilter(state_types=[RUNNING]))
        await until(call, synced)
        # A run that was never in the filter is none of this watcher's business.
        await recorder.record(flow_run_entry(other, flow_name="other"), state_entry(other, COMPLETED))
        await recorder.record(state_entry(mine, COMPLETED))
        removed = await until(call, lambda m: m.WhichOneof("event") != "upsert")
        assert removed.removed_run_id in (mine, other)
        if removed.removed_run_id == other:  # seen while it was still running
            assert (await read(call)).removed_run_id == mine
        call.cancel()


async def test_a_deleted_run_is_removed(client: Client) -> None:
    run_id = new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(run_id), state_entry(run_id, COMPLETED))
        call = watch(client, filter=RunFilter(ids=[run_id]))
        await until(call, synced)
        await client.runs.DeleteRun(run_service_pb2.DeleteRunRequest(run_id=run_id))
        assert (await read(call)).removed_run_id == run_id
        call.cancel()


async def test_a_resumed_watch_misses_nothing(client: Client) -> None:
    run_id, later = new_id(), new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(run_id))
        call = watch(client)
        token = (await until(call, synced)).resume_token
        call.cancel()
        await recorder.record(state_entry(run_id, COMPLETED), flow_run_entry(later))
        resumed = watch(client, resume_token=token)
        seen = {m.upsert.id: m.upsert.state.type for m in [await read(resumed), await read(resumed)]}
        assert seen == {run_id: COMPLETED, later: RUNNING}
        resumed.cancel()


async def test_changes_of_one_run_become_one(client: Client) -> None:
    flow, task = new_id(), new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(flow))
        call = watch(client, filter=RunFilter(kinds=[run_pb2.RUN_KIND_TASK]))
        await until(call, synced)
        await recorder.record(
            task_run_entry(task, flow), state_entry(task, RUNNING), state_entry(task, COMPLETED)
        )
        assert (await read(call)).upsert.state.type == COMPLETED
        call.cancel()


async def test_a_token_of_another_kind_is_refused(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch(client, resume_token="not one of ours").read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info_of(caught.value).reason == "RESUME_TOKEN_INVALID"


async def test_a_stopping_server_sends_watchers_elsewhere(client: Client) -> None:
    call = watch(client)
    await until(call, synced)
    stopping = asyncio.ensure_future(client.server.stop(5))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await until(call, lambda m: False)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert info_of(caught.value).reason == "SERVER_DRAINING"
    await stopping


def tail(client: Client, **request: Any) -> Any:
    return client.logs.TailLogs(log_service_pb2.TailLogsRequest(**request))


async def test_a_tail_begins_with_the_last_lines_and_goes_on(client: Client) -> None:
    run_id = new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(run_id), *(log_entry(run_id, f"old {i}") for i in range(5)))
        call = tail(client, filter=LogFilter(run_ids=[run_id]), backfill=2)
        first = await until(call, lambda m: bool(m.logs))
        assert [line.message for line in first.logs] == ["old 3", "old 4"]
        token = (await until(call, lambda m: m.bookmark.initial_sync_done)).resume_token
        await recorder.record(log_entry(run_id, "new"), log_entry(run_id, "newer"))
        assert [line.message for line in (await read(call)).logs] == ["new", "newer"]
        call.cancel()
        resumed = tail(client, filter=LogFilter(run_ids=[run_id]), backfill=100, resume_token=token)
        lines = (await until(resumed, lambda m: bool(m.logs))).logs
        assert [line.message for line in lines] == ["new", "newer"]
        resumed.cancel()


async def test_a_tail_of_large_lines_comes_in_messages_that_can_travel(client: Client) -> None:
    run_id = new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(run_id))
        for _ in range(4):
            await recorder.record(*(log_entry(run_id, "x" * 32_000) for _ in range(15)))
        call = tail(client, filter=LogFilter(run_ids=[run_id]), backfill=1000)
        lines = 0
        while lines < 60:
            message = await read(call)
            assert message.ByteSize() < 1_200_000
            lines += len(message.logs)
        call.cancel()


async def test_a_quiet_watch_gives_signs_of_life(client: Client) -> None:
    database = client.server.database
    settings = WatchSettings(SystemClock(), Drain(), bookmark_seconds=0.05, poll_seconds=0.02)
    seen: list[Any] = []
    async for response in RunWatch(database, settings, run_service_pb2.WatchRunsRequest()).responses():
        seen.append(response)
        if len(seen) == 4:
            break
    assert [r.WhichOneof("event") for r in seen] == ["bookmark"] * 4
    assert all(r.resume_token == seen[0].resume_token for r in seen)
    times = [r.bookmark.server_time.ToMicroseconds() for r in seen]
    assert times == sorted(times)
    lines = LogTail(database, settings, log_service_pb2.TailLogsRequest())
    quiet = [r async for r in _first(lines.responses(), 3)]
    assert all(r.bookmark.initial_sync_done and not r.logs for r in quiet)


async def _first(responses: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    async for response in responses:
        yield response
        count -= 1
        if not count:
            return


async def test_a_watch_that_lost_every_notice_still_learns(client: Client) -> None:
    """Waking is only a hint: with nobody to wake it, the slow poll finds the change."""
    database, run_id = client.server.database, new_id()
    settings = WatchSettings(SystemClock(), Drain(), poll_seconds=0.05)
    responses = RunWatch(database, settings, run_service_pb2.WatchRunsRequest()).responses()
    assert synced(await anext(responses))
    waiting = asyncio.ensure_future(anext(responses))
    database.signals.bump = lambda: None  # type: ignore[method-assign]
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(run_id))
        assert (await asyncio.wait_for(waiting, 60)).upsert.id == run_id


async def test_a_watcher_that_does_not_read_is_told_the_newest_state_only(client: Client) -> None:
    """64 runs with 60 kB of parameters fill what the transport takes ahead; then the watch stands still."""
    runs = [new_id() for _ in range(150)]
    async with client.recorder() as recorder:
        for run_id in runs:
            entry = flow_run_entry(run_id)
            entry.run.parameters.encoding = "json"
            entry.run.parameters.inline = b'"' + b"x" * 60_000 + b'"'
            await recorder.record(entry)
        call = watch(client, view=run_pb2.RUN_VIEW_FULL)
        first = (await read(call)).upsert
        assert len(first.parameters.inline) > 60_000
        for run_id in runs:
            await recorder.record(
                state_entry(run_id, state_pb2.STATE_TYPE_PAUSED),
                state_entry(run_id, RUNNING),
                state_entry(run_id, COMPLETED),
            )
        states: dict[str, list[int]] = {first.id: [first.state.type]}
        while sum(s[-1] == COMPLETED for s in states.values()) < len(runs):
            message = await read(call)
            if message.HasField("upsert"):
                states.setdefault(message.upsert.id, []).append(message.upsert.state.type)
        # Each run in the set at the start and once when it had ended, not once per change.
        assert max(len(s) for s in states.values()) <= 3
        assert sum(len(s) for s in states.values()) <= 2 * len(runs) + 20
        call.cancel()
