"""Runs, flows, logs and the server itself, asked over gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from headrace.core.ids import new_id
from headrace.v1 import (
    admin_service_pb2,
    flow_service_pb2,
    run_pb2,
    run_service_pb2,
    span_service_pb2,
    state_pb2,
)
from headrace.v1.run_pb2 import RunFilter
from tests.rpc.servers import Client
from tests.rpc.test_edge import info_of
from tests.support.recording import flow_run_entry, state, state_entry, task_run_entry

RUNNING, COMPLETED = state_pb2.STATE_TYPE_RUNNING, state_pb2.STATE_TYPE_COMPLETED


def new_run(**fields: Any) -> run_pb2.Run:
    return run_pb2.Run(id=new_id(), kind=run_pb2.RUN_KIND_FLOW, flow_name="etl", **fields)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_run_from_create_to_delete(client: Client) -> None:
    request = run_service_pb2.CreateRunRequest(run=new_run(tags=["nightly"]))
    made = await client.runs.CreateRun(request)
    assert not made.existed
    assert made.run.state.type == state_pb2.STATE_TYPE_SCHEDULED
    assert (await client.runs.CreateRun(request)).existed
    run_id = made.run.id

    verdict = await client.runs.ProposeState(
        run_service_pb2.ProposeStateRequest(run_id=run_id, state=state(state_pb2.STATE_TYPE_PENDING))
    )
    assert verdict.accepted.state.type == state_pb2.STATE_TYPE_PENDING
    change = run_pb2.Run(id=run_id, name="renamed", tags=["ignored"])
    update = run_service_pb2.UpdateRunRequest(run=change)
    update.update_mask.paths.append("name")
    assert (await client.runs.UpdateRun(update)).run.name == "renamed"
    got = (await client.runs.GetRun(run_service_pb2.GetRunRequest(run_id=run_id))).run
    assert (got.name, list(got.tags)) == ("renamed", ["nightly"])

    states = await client.runs.ListStates(run_service_pb2.ListStatesRequest(run_id=run_id))
    assert [s.type for s in states.states] == [1, 2]
    deleted = await client.runs.DeleteRun(run_service_pb2.DeleteRunRequest(run_id=run_id, force=True))
    assert deleted.deleted_runs == 1
    again = await refused(client.runs.DeleteRun(run_service_pb2.DeleteRunRequest(run_id=run_id)))
    assert again.code() is grpc.StatusCode.NOT_FOUND


async def test_a_key_makes_one_run_of_two_requests(client: Client) -> None:
    first = await client.runs.CreateRun(
        run_service_pb2.CreateRunRequest(run=new_run(), idempotency_key="2026-11-20")
    )
    second = await client.runs.CreateRun(
        run_service_pb2.CreateRunRequest(run=new_run(), idempotency_key="2026-11-20")
    )
    assert (second.existed, second.run.id) == (True, first.run.id)
    error = await refused(
        client.runs.CreateRun(
            run_service_pb2.CreateRunRequest(
                run=new_run(),
                idempotency_key="2026-11-20",
                on_conflict=run_service_pb2.CONFLICT_POLICY_FAIL,
            )
        )
    )
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS


def a_page(**filter: Any) -> run_service_pb2.ListRunsRequest:
    return run_service_pb2.ListRunsRequest(filter=RunFilter(**filter))


def create(**run: Any) -> run_service_pb2.CreateRunRequest:
    return run_service_pb2.CreateRunRequest(run=run_pb2.Run(**run))


# Method, request, words of the message, reason.
BAD_REQUESTS: list[tuple[str, Any, str, str]] = [
    ("CreateRun", run_service_pb2.CreateRunRequest(), "run", "FIELD_INVALID"),
    ("CreateRun", create(id=new_id()), "run.kind", "FIELD_INVALID"),
    ("CreateRun", create(id="1", kind=1), "run.id", "FIELD_INVALID"),
    ("CreateRun", create(id=new_id(), kind=9), "run.kind", "FIELD_INVALID"),
    ("CreateRun", create(id=new_id(), kind=1, parent_run_id="x"), "run.parent_run_id", "FIELD_INVALID"),
    ("GetRun", run_service_pb2.GetRunRequest(run_id="x"), "run_id", "FIELD_INVALID"),
    ("GetRun", run_service_pb2.GetRunRequest(run_id=new_id()), "There is no run", "NOT_FOUND"),
    ("ListRuns", run_service_pb2.ListRunsRequest(page_size=-1), "page_size", "FIELD_INVALID"),
    ("ListRuns", run_service_pb2.ListRunsRequest(page_token="nonsense"), "page", "PAGE_TOKEN_INVALID"),
    ("ListRuns", a_page(ids=["x"]), "filter.ids[0]", "FIELD_INVALID"),
    ("ListRuns", a_page(id_prefix="%"), "filter.id_prefix", "FIELD_INVALID"),
    ("AggregateRuns", run_service_pb2.AggregateRunsRequest(), "from", "FIELD_INVALID"),
    ("UpdateRun", run_service_pb2.UpdateRunRequest(run=new_run()), "update_mask", "FIELD_INVALID"),
    ("ProposeState", run_service_pb2.ProposeStateRequest(run_id=new_id()), "state", "FIELD_INVALID"),
    ("ListStates", run_service_pb2.ListStatesRequest(run_id=new_id()), "There is no run", "NOT_FOUND"),
    ("GetRunGraph", run_service_pb2.GetRunGraphRequest(run_id=new_id()), "There is no run", "NOT_FOUND"),
]


@pytest.mark.parametrize(("method", "request_", "words", "reason"), BAD_REQUESTS)
async def test_a_bad_request_is_told_what_is_wrong(
    client: Client, method: str, request_: Any, words: str, reason: str
) -> None:
    error = await refused(getattr(client.runs, method)(request_))
    assert words in str(error.details())
    assert info_of(error).reason == reason


async def test_pages_of_runs(client: Client) -> None:
    for _ in range(5):
        await client.runs.CreateRun(run_service_pb2.CreateRunRequest(run=new_run()))
    first = await client.runs.ListRuns(run_service_pb2.ListRunsRequest(page_size=3))
    assert len(first.runs) == 3
    rest = await client.runs.ListRuns(
        run_service_pb2.ListRunsRequest(page_size=3, page_token=first.next_page_token)
    )
    assert len({r.id for r in [*first.runs, *rest.runs]}) == 5
    assert not rest.next_page_token
    other = run_service_pb2.ListRunsRequest(page_token=first.next_page_token)
    other.filter.names.append("another filter")
    assert info_of(await refused(client.runs.ListRuns(other))).reason == "PAGE_TOKEN_INVALID"


async def test_counts_buckets_attempts_and_the_graph(client: Client) -> None:
    flow, task = new_id(), new_id()
    async with client.recorder() as recorder:
        await recorder.record(
            flow_run_entry(flow),
            task_run_entry(task, flow),
            state_entry(task, RUNNING),
            state_entry(task, COMPLETED),
        )
        graph = await client.runs.GetRunGraph(run_service_pb2.GetRunGraphRequest(run_id=flow))
        assert [(n.run_id, n.parent_run_id) for n in graph.nodes] == [(flow, ""), (task, flow)]
        attempts = await client.runs.ListAttempts(run_service_pb2.ListAttemptsRequest(run_id=task))
        assert [(a.number, a.end_state.type) for a in attempts.attempts] == [(1, COMPLETED)]
        counts = await client.runs.CountRuns(run_service_pb2.CountRunsRequest())
        assert {c.state_type: c.count for c in counts.counts} == {RUNNING: 1, COMPLETED: 1}
        run = (await client.runs.GetRun(run_service_pb2.GetRunRequest(run_id=flow))).run
        request = run_service_pb2.AggregateRunsRequest()
        getattr(request, "from").FromSeconds(run.create_time.seconds - 60)
        request.until.FromSeconds(run.create_time.seconds + 60)
        request.bucket_width.FromSeconds(120)
        buckets = (await client.runs.AggregateRuns(request)).buckets
        assert [sum(c.count for c in b.counts) for b in buckets] == [2]


async def test_flows(client: Client) -> None:
    await client.runs.CreateRun(run_service_pb2.CreateRunRequest(run=new_run()))
    flows = (await client.flows.ListFlows(flow_service_pb2.ListFlowsRequest())).flows
    assert [f.name for f in flows] == ["etl"]
    got = await client.flows.GetFlow(flow_service_pb2.GetFlowRequest(name="etl"))
    assert (got.flow.id, got.run_counts[0].count) == (flows[0].id, 1)
    missing = await refused(client.flows.GetFlow(flow_service_pb2.GetFlowRequest(name="nope")))
    assert missing.code() is grpc.StatusCode.NOT_FOUND
    await client.flows.DeleteFlow(flow_service_pb2.DeleteFlowRequest(name="etl", force=True))
    assert not (await client.flows.ListFlows(flow_service_pb2.ListFlowsRequest())).flows
    neither = await refused(client.flows.GetFlow(flow_service_pb2.GetFlowRequest()))
    assert info_of(neither).reason == "FIELD_INVALID"


async def test_spans_ask_for_a_filter(client: Client) -> None:
    error = await refused(client.spans.ListSpans(span_service_pb2.ListSpansRequest()))
    assert "filter" in str(error.details())
    request = span_service_pb2.ListSpansRequest()
    request.filter.run_ids.append(new_id())
    assert not (await client.spans.ListSpans(request)).spans


async def test_the_server_says_who_it_is(client: Client) -> None:
    info = await client.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest())
    assert info.replica_id == client.server.replica_id
    assert (info.protocol_min, info.protocol_max) == (1, 1)
    assert info.database in ("sqlite", "postgresql")
    assert info.database_version
    assert info.schema_revision
    assert info.time_zone_version
    assert info.limits.recorder_lease_ttl.seconds == 30
    assert not info.draining
