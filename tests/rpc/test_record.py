"""The record stream: acknowledgements, order, refusals, take-over, seal, drain."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from headrace.core.ids import new_id
from headrace.v1 import log_pb2, log_service_pb2, run_service_pb2, state_pb2
from headrace.v1 import record_service_pb2 as pb
from headrace.v1.run_pb2 import RunFilter
from tests.rpc.servers import Client
from tests.rpc.test_edge import info_of
from tests.support.recording import (
    RecordingClient,
    attempt_of,
    flow_run_entry,
    log_entry,
    opening,
    state_entry,
    task_run_entry,
)

RUNNING, COMPLETED = state_pb2.STATE_TYPE_RUNNING, state_pb2.STATE_TYPE_COMPLETED


async def test_what_is_acknowledged_can_be_read(client: Client) -> None:
    flow, tasks = new_id(), [new_id() for _ in range(20)]
    async with client.recorder() as recorder:
        assert recorder.opened.lease_ttl.seconds == 30
        await recorder.send(flow_run_entry(flow))
        for task in tasks:  # pipelined: nobody waits for the batch before
            await recorder.send(
                task_run_entry(task, flow), state_entry(task, RUNNING), state_entry(task, COMPLETED)
            )
        await recorder.acknowledged(await recorder.send(state_entry(flow, COMPLETED)))
        assert recorder.durable_seq == 62
        counts = await client.runs.CountRuns(
            run_service_pb2.CountRunsRequest(filter=RunFilter(root_run_ids=[flow]))
        )
        assert [(c.state_type, c.count) for c in counts.counts] == [(COMPLETED, 21)]
        await recorder.seal()


async def test_a_batch_sent_twice_is_applied_once(client: Client) -> None:
    flow = new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(flow), log_entry(flow, "one"), log_entry(flow, "two"))
        recorder_id = recorder.recorder_id
    async with client.recorder(recorder_id) as again:
        assert again.opened.durable_seq == 3
        again.next_seq = 2
        await again.record(log_entry(flow, "one"), log_entry(flow, "two"), log_entry(flow, "three"))
        assert again.durable_seq == 4
    logs = await client.logs.ListLogs(
        log_service_pb2.ListLogsRequest(filter=log_pb2.LogFilter(run_ids=[flow]))
    )
    assert sorted(line.message for line in logs.logs) == ["one", "three", "two"]


async def test_a_gap_names_where_to_go_on(client: Client) -> None:
    flow = new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(flow))
        recorder.next_seq = 5
        await recorder.send(log_entry(flow, "too far"))
        error = await recorder.failure()
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    assert info_of(error).reason == "SEQUENCE_GAP"
    assert info_of(error).metadata["durable_seq"] == "1"


async def test_a_bad_entry_is_refused_and_the_stream_goes_on(client: Client) -> None:
    flow = new_id()
    bad = log_entry(flow, "x" * 40_000)
    worse = flow_run_entry(new_id(), tags=["ok", ""])
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(flow), bad, worse, log_entry(flow, "good"))
        assert [(r.seq, r.WhichOneof("outcome")) for r in recorder.results] == [(2, "error"), (3, "error")]
        assert recorder.results[0].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert "entries[1].log.message" in recorder.results[0].error.message
        assert "entries[2].run.tags[1]" in recorder.results[1].error.message
        await recorder.record(state_entry(flow, COMPLETED))
        assert recorder.durable_seq == 5
    run = await client.runs.GetRun(run_service_pb2.GetRunRequest(run_id=flow))
    assert run.run.state.type == COMPLETED


async def test_a_message_over_the_limit_costs_only_the_entry(client: Client) -> None:
    flow = new_id()
    huge = flow_run_entry(new_id())
    huge.run.parameters.encoding = "json"
    huge.run.parameters.inline = b"x" * (2 * 1024 * 1024)
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(flow), huge)
        assert [r.seq for r in recorder.results] == [2]
        assert recorder.results[0].error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        await recorder.record(state_entry(flow, COMPLETED))


async def test_a_verdict_that_was_asked_for_is_in_the_acknowledgement(client: Client) -> None:
    flow = new_id()
    run = flow_run_entry(flow)
    run.run.state.type = state_pb2.STATE_TYPE_PENDING
    async with client.recorder() as recorder:
        await recorder.record(run, state_entry(flow, RUNNING, want_verdict=True))
        assert [r.seq for r in recorder.results] == [2]
        assert recorder.results[0].verdict.accepted.state.type == RUNNING


async def test_a_stale_fence_is_refused_and_the_stream_goes_on(client: Client) -> None:
    flow = new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(flow), state_entry(flow, COMPLETED, fence=7))
        assert [(r.seq, r.WhichOneof("outcome")) for r in recorder.results] == [(2, "error")]
        assert "STALE_ATTEMPT" in str(recorder.results[0].error)


async def test_a_second_stream_takes_over(client: Client) -> None:
    flow = new_id()
    async with client.recorder() as older:
        await older.record(flow_run_entry(flow))
        async with client.recorder(older.recorder_id) as newer:
            notice = await older.read()
            assert notice.go_away.reason == "SESSION_SUPERSEDED"
            assert await asyncio.wait_for(older.call.read(), 60) is grpc.aio.EOF
            await newer.record(state_entry(flow, COMPLETED))
            assert newer.durable_seq == 2


async def test_entries_after_the_seal_are_refused(client: Client) -> None:
    flow = new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(flow), state_entry(flow, COMPLETED))
        await recorder.seal()
    async with client.recorder(recorder.recorder_id) as again:
        await again.send(log_entry(flow, "late"))
        error = await again.failure()
    assert info_of(error).reason == "RECORDER_SEALED"


async def test_renewing_tells_which_attempts_are_lost(client: Client) -> None:
    flow, deleted = new_id(), new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(flow), flow_run_entry(deleted))
        assert not (await recorder.renew(attempt_of(flow), attempt_of(deleted))).verdicts
        await client.runs.DeleteRun(run_service_pb2.DeleteRunRequest(run_id=deleted, force=True))
        renewed = await recorder.renew(attempt_of(flow), attempt_of(deleted))
        assert [(v.attempt.run_id, v.lost) for v in renewed.verdicts] == [(deleted, True)]


async def test_the_first_message_must_open(client: Client) -> None:
    recorder = RecordingClient(client.channel)
    await recorder.send(log_entry(new_id(), "too early"))
    error = await recorder.failure()
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "open" in str(error.details())


@pytest.mark.parametrize("protocol", [(2, 3), (7, 7)])
async def test_no_common_protocol_says_which_there_are(client: Client, protocol: tuple[int, int]) -> None:
    request = pb.RecordRequest(open=opening(new_id(), protocol=protocol))
    call = client.records.Record(iter([request]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert info_of(caught.value).reason == "PROTOCOL_VERSION_UNSUPPORTED"
    assert "Upgrade" in str(caught.value.details())


async def test_a_newer_client_is_answered_in_the_newest_common_protocol(client: Client) -> None:
    call = client.records.Record(iter([pb.RecordRequest(open=opening(new_id(), protocol=(1, 9)))]))
    answer = await call.read()
    assert answer.opened.protocol == 1


async def test_single_calls_mean_the_same(client: Client) -> None:
    flow, recorder_id = new_id(), new_id()
    ack = await client.records.RecordBatch(
        pb.RecordBatchRequest(
            open=opening(recorder_id),
            recorder_id=recorder_id,
            entries=pb.RecordEntries(
                first_seq=1, entries=[flow_run_entry(flow), log_entry(flow, "x" * 40_000)]
            ),
        )
    )
    assert ack.ack.durable_seq == 2
    assert [r.seq for r in ack.ack.results] == [2]
    ack = await client.records.RecordBatch(
        pb.RecordBatchRequest(
            recorder_id=recorder_id,
            entries=pb.RecordEntries(first_seq=3, entries=[state_entry(flow, COMPLETED)]),
            seal=True,
        )
    )
    assert ack.ack.durable_seq == 3
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.records.RecordBatch(
            pb.RecordBatchRequest(
                recorder_id=recorder_id,
                entries=pb.RecordEntries(first_seq=4, entries=[log_entry(flow, "late")]),
            )
        )
    assert info_of(caught.value).reason == "RECORDER_SEALED"


async def test_a_stopping_server_says_goodbye_and_acknowledges_what_comes_still(client: Client) -> None:
    flow = new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(flow))
        stopping = asyncio.ensure_future(client.server.stop(5))
        notice = await recorder.read()
        assert notice.go_away.reason == "SERVER_DRAINING"
        assert 0 < notice.go_away.reconnect_after.ToTimedelta().total_seconds() <= 2
        await recorder.record(state_entry(flow, COMPLETED))
        await recorder.call.done_writing()
        assert await asyncio.wait_for(recorder.call.read(), 60) is grpc.aio.EOF
        await stopping
