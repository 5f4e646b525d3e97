"""What a server tells the processes that execute runs, over their record streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.core.ids import new_id
from headrace.v1 import record_service_pb2, run_service_pb2, state_pb2
from headrace_services.settings import ServerSettings
from tests.rpc.servers import Client, serving, settings_for
from tests.server.test_deaths import until_state
from tests.support.recording import (
    RecordingClient,
    attempt_of,
    flow_run_entry,
    state_entry,
    task_run_entry,
)

RUNNING, CANCELLED = state_pb2.STATE_TYPE_RUNNING, state_pb2.STATE_TYPE_CANCELLED
pytestmark = pytest.mark.usefixtures("one_event_loop")


async def begun(recorder: RecordingClient) -> str:
    """A flow run that the recorder executes."""
    flow = new_id()
    await recorder.record(flow_run_entry(flow), state_entry(flow, RUNNING))
    return flow


async def told(recorder: RecordingClient) -> record_service_pb2.RunDirective:
    """The one directive of the next message."""
    message = await recorder.read()
    assert message.HasField("directives"), message
    (directive,) = message.directives.directives
    return directive


async def cancel(client: Client, run_id: str, grace_seconds: float = 30) -> Any:
    request = run_service_pb2.CancelRunRequest(run_id=run_id, state_id=new_id(), reason="Enough.")
    request.grace.FromMicroseconds(int(grace_seconds * 1e6))
    return (await client.runs.CancelRun(request)).verdict


async def last_state(client: Client, run_id: str) -> state_pb2.State:
    run = (await client.runs.GetRun(run_service_pb2.GetRunRequest(run_id=run_id))).run
    state: state_pb2.State = run.state
    return state


async def test_a_process_is_told_at_once(client: Client) -> None:
    async with client.recorder() as recorder:
        flow = await begun(recorder)
        verdict = await cancel(client, flow)
        directive = await told(recorder)
        assert (directive.run_id, directive.WhichOneof("directive")) == (flow, "cancel")
        assert directive.state.id == verdict.accepted.state.id
        assert directive.state.message == "Enough."
        await recorder.record(state_entry(flow, CANCELLED))
        assert (await last_state(client, flow)).type == CANCELLED
        await recorder.seal()


async def test_a_stream_that_opens_later_is_told(client: Client) -> None:
    async with client.recorder() as recorder:
        flow = await begun(recorder)
    assert (await cancel(client, flow)).HasField("accepted")
    async with client.recorder(recorder.recorder_id) as again:
        assert (await told(again)).run_id == flow


async def test_what_is_not_obeyed_is_told_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_services.loops.directives._REPEAT_SECONDS", 0.0)
    async with client.recorder() as recorder:
        flow = await begun(recorder)
        await cancel(client, flow)
        assert [(await told(recorder)).run_id for _ in range(3)] == [flow] * 3


async def test_a_process_that_stays_silent_loses_the_run_in_time(client: Client) -> None:
    async with client.recorder() as recorder:
        flow, task = await begun(recorder), new_id()
        await recorder.record(task_run_entry(task, flow), state_entry(task, RUNNING))
        await cancel(client, flow, 0.1)
        await told(recorder)
        await until_state(client, task, CANCELLED)
        states = (await client.runs.ListStates(run_service_pb2.ListStatesRequest(run_id=flow))).states
        asked, done = (state.record_time.ToMicroseconds() for state in states[-2:])
        assert 0.1 <= (done - asked) / 1e6 < 0.1 + 5
        assert "did not end it within 0.1 s" in (await last_state(client, flow)).message
        (verdict,) = (await recorder.renew(attempt_of(flow))).verdicts
        assert (verdict.lost, verdict.reason) == (True, "The run has ended: it is Cancelled.")


async def test_a_server_that_has_not_the_stream_is_asked(tmp_path: Path, postgresql_url: str) -> None:
    settings: list[ServerSettings] = [settings_for(tmp_path / name, postgresql_url) for name in "ab"]
    async with serving(settings[0]) as one, serving(settings[1]) as other, one.recorder() as recorder:
        flow = await begun(recorder)
        assert (await cancel(other, flow)).HasField("accepted")
        assert (await told(recorder)).run_id == flow


async def test_pausing_from_outside(client: Client) -> None:
    async with client.recorder() as recorder:
        flow = await begun(recorder)
        request = run_service_pb2.PauseRunRequest(run_id=flow, state_id=new_id())
        verdict = (await client.runs.PauseRun(request)).verdict
        assert verdict.accepted.state.name == "Paused"
        assert not verdict.accepted.state.paused.HasField("timeout_time")
        directive = await told(recorder)
        assert (directive.run_id, directive.WhichOneof("directive")) == (flow, "pause")
        assert directive.state.id == request.state_id


async def test_bad_requests(client: Client) -> None:
    request = run_service_pb2.CancelRunRequest(run_id=new_id(), state_id=new_id())
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await client.runs.CancelRun(request)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    request.grace.seconds = 100_000
    with pytest.raises(grpc.aio.AioRpcError) as too_long:
        await client.runs.CancelRun(request)
    assert too_long.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "grace" in (too_long.value.details() or "")
