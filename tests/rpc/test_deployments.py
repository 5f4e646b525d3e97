"""Deployments, their versions and runs of them, asked over gRPC on both databases."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headrace.core.ids import new_id
from headrace.v1 import deployment_service_pb2 as pb
from headrace.v1 import work_pool_service_pb2 as pools
from headrace.v1.deployment_pb2 import Deployment, PullSteps
from headrace.v1.flow_service_pb2 import DeleteFlowRequest, ListFlowsRequest
from headrace.v1.run_pb2 import RunFilter, RunInputEdge
from headrace.v1.run_service_pb2 import CreateRunRequest, GetRunRequest, ListRunsRequest, ProposeStateRequest
from headrace.v1.schedule_pb2 import IntervalTiming, Schedule
from headrace.v1.state_pb2 import STATE_TYPE_PENDING, STATE_TYPE_RUNNING, STATE_TYPE_SCHEDULED
from headrace.v1.work_pool_pb2 import WorkPool, WorkQueue
from tests.rpc.servers import Client
from tests.rpc.test_edge import info_of
from tests.rpc.test_services import new_run, refused
from tests.support.recording import state

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "limit": {"type": "integer", "minimum": 1},
            "region": {"$ref": "#/definitions/Region"},
            "options": {"type": "object", "properties": {"deep": {"type": "boolean"}}},
        },
        "required": ["limit"],
        "definitions": {"Region": {"enum": ["eu", "us"]}},
    }
)


def struct(value: Any) -> Struct:
    return ParseDict(value, Struct())


def deployment(**fields: Any) -> Deployment:
    return Deployment(**({"flow_name": "etl", "name": "nightly"} | fields))


def apply(*paths: str, dry_run: bool = False, **fields: Any) -> pb.ApplyDeploymentRequest:
    mask = FieldMask(paths=paths)
    return pb.ApplyDeploymentRequest(deployment=deployment(**fields), update_mask=mask, dry_run=dry_run)


KEY = pb.DeploymentKey(name="etl/nightly")


def run_request(**fields: Any) -> pb.CreateDeploymentRunRequest:
    return pb.CreateDeploymentRunRequest(**({"deployment": KEY} | fields))


@pytest.fixture
async def pooled(client: Client) -> Client:
    """A server with a work pool of processes."""
    pool = WorkPool(name="pool", type="process")
    await client.work_pools.CreateWorkPool(pools.CreateWorkPoolRequest(work_pool=pool))
    return client


async def versions(client: Client) -> list[Any]:
    request = pb.ListDeploymentVersionsRequest(deployment=KEY)
    return list((await client.deployments.ListDeploymentVersions(request)).versions)


def changed(response: Any) -> dict[str, tuple[str, str]]:
    return {change.path: (change.old_value, change.new_value) for change in response.changes}


# Declaring


async def test_what_is_applied_is_kept_and_applying_it_again_changes_nothing(pooled: Client) -> None:
    full = apply(
        description="d",
        version="abc",
        version_info={"type": "git"},
        tags=["b", "a"],
        labels={"team": "x"},
        parameters='{"limit": 3}',
        parameter_schema=SCHEMA,
        job_variables=struct({"env": {"A": "1"}, "stream_output": False}),
        pull_steps=PullSteps(steps=[struct({"git_clone": {"repository": "r"}, "id": "c"})]),
        path="/srv",
        entrypoint="flows/etl.py:main",
        work_pool="pool",
        work_queue="fast",
        on_lost=2,
        fairness_key="{{ parameters.region }}",
        priority=3,
        environment={"LEVEL": "debug"},
        required_labels={"gpu": "yes"},
    )
    full.deployment.concurrency.limit = 2
    made = await pooled.deployments.ApplyDeployment(full)
    assert made.created
    kept = made.deployment
    assert (kept.version_number, kept.flow_id != "", kept.etag) == (1, True, "1")
    again = await pooled.deployments.ApplyDeployment(full)
    assert (again.created, list(again.changes)) == (False, [])
    assert again.deployment == kept
    assert len(await versions(pooled)) == 1
    for field in ("parameters", "tags", "job_variables", "pull_steps", "concurrency", "work_queue"):
        assert getattr(kept, field) == getattr(full.deployment, field)
    got = await pooled.deployments.GetDeployment(pb.GetDeploymentRequest(deployment=KEY))
    assert got.deployment == kept
    by_id = pb.GetDeploymentRequest(deployment=pb.DeploymentKey(id=kept.id))
    assert (await pooled.deployments.GetDeployment(by_id)).deployment == kept
    # The queue was made, and the flow is known.
    queue = pools.GetWorkQueueRequest(work_pool="pool", name="fast")
    assert (await pooled.work_pools.GetWorkQueue(queue)).work_queue.priority == 2
    assert [flow.name for flow in (await pooled.flows.ListFlows(ListFlowsRequest())).flows] == ["etl"]


async def test_what_says_the_same_in_another_way_is_no_change(client: Client) -> None:
    calls = client.deployments
    await calls.ApplyDeployment(
        apply(parameters='{"a": 1, "b": [2]}', tags=["x", "y"], parameter_schema="{}")
    )
    same = apply(parameters='{ "b":[2],"a":1 }', tags=["y", "x"], parameter_schema=" {}")
    assert not (await calls.ApplyDeployment(same)).changes
    other = await calls.ApplyDeployment(apply("parameters", parameters='{"a": true, "b": [2]}'))
    assert changed(other) == {"parameters.a": ("1", "true")}


async def test_only_the_fields_in_the_mask_change(pooled: Client) -> None:
    calls = pooled.deployments
    await calls.ApplyDeployment(apply(description="d", tags=["a"], labels={"k": "v"}, work_pool="pool"))
    changes = await calls.ApplyDeployment(apply("tags", "labels", "version", tags=["b"], description="x"))
    assert changed(changes) == {"tags": ('["a"]', '["b"]'), "labels.k": ('"v"', "")}
    assert changes.deployment.description == "d"
    assert changes.deployment.version_number == 2
    everything = await calls.ApplyDeployment(apply())
    assert changed(everything) == {
        "description": ('"d"', ""),
        "tags": ('["b"]', ""),
        "work_pool": ('"pool"', ""),
    }


async def test_a_dry_run_says_what_would_change_and_changes_nothing(pooled: Client) -> None:
    calls = pooled.deployments
    schedule = Schedule(slug="often", interval=IntervalTiming(timezone="UTC"))
    schedule.interval.interval.seconds = 60
    tried = await calls.ApplyDeployment(
        apply(dry_run=True, work_pool="pool", work_queue="new", schedules=[schedule])
    )
    assert tried.created
    assert set(changed(tried)) == {"work_pool", "work_queue", "schedules[often]"}
    missing = await refused(calls.GetDeployment(pb.GetDeploymentRequest(deployment=KEY)))
    assert info_of(missing).reason == "NOT_FOUND"
    assert not (await pooled.flows.ListFlows(ListFlowsRequest())).flows
    await calls.ApplyDeployment(apply(description="before"))
    tried = await calls.ApplyDeployment(apply("description", dry_run=True, description="after"))
    assert changed(tried) == {"description": ('"before"', '"after"')}
    assert tried.deployment.description == "after"
    kept = (await calls.GetDeployment(pb.GetDeploymentRequest(deployment=KEY))).deployment
    assert (kept.description, kept.version_number) == ("before", 1)
    assert len(await versions(pooled)) == 1


async def test_an_etag_guards_what_was_read(client: Client) -> None:
    calls = client.deployments
    first = (await calls.ApplyDeployment(apply(description="1"))).deployment
    await calls.ApplyDeployment(apply(description="2"))
    stale = await refused(calls.ApplyDeployment(apply(description="3", etag=first.etag)))
    assert info_of(stale).reason == "ETAG_MISMATCH"
    new = await refused(calls.ApplyDeployment(apply(name="other", etag="1")))
    assert info_of(new).reason == "ETAG_MISMATCH"


async def test_many_at_once_make_one_version_each(client: Client) -> None:
    made = await asyncio.gather(
        *(client.deployments.ApplyDeployment(apply(description=str(n))) for n in range(8))
    )
    assert sorted(answer.deployment.version_number for answer in made)[-1] == 8
    assert [version.number for version in await versions(client)] == list(range(8, 0, -1))
    assert sum(answer.created for answer in made) == 1


# Versions


async def test_versions_are_kept_and_one_can_go_back(pooled: Client) -> None:
    calls = pooled.deployments
    await calls.ApplyDeployment(apply(path="/one", description="first"))
    await calls.ApplyDeployment(apply(path="/two", description="first"))
    await calls.ApplyDeployment(apply(path="/two", description="second"))
    newest, middle, oldest = await versions(pooled)
    assert [v.number for v in (newest, middle, oldest)] == [3, 2, 1]
    assert newest.digest == middle.digest != oldest.digest
    assert [change.path for change in newest.changes] == ["description"]
    assert oldest.deployment.path == "/one"
    await calls.PauseDeployment(pb.PauseDeploymentRequest(deployment=KEY))
    request = pb.RollbackDeploymentRequest(deployment=KEY, number=1, request_id="again")
    back = await calls.RollbackDeployment(request)
    assert changed(back) == {"path": ('"/two"', '"/one"'), "description": ('"second"', '"first"')}
    assert (back.deployment.version_number, back.deployment.paused) == (4, True)
    repeated = await calls.RollbackDeployment(request)
    assert (repeated.deployment.version_number, changed(repeated)) == (4, changed(back))
    other = pb.RollbackDeploymentRequest(deployment=KEY, number=2, request_id="again")
    assert info_of(await refused(calls.RollbackDeployment(other))).reason == "REQUEST_ID_REUSED"
    forth = await calls.RollbackDeployment(pb.RollbackDeploymentRequest(deployment=KEY))
    assert (forth.deployment.version_number, forth.deployment.path) == (5, "/two")
    same = await calls.RollbackDeployment(pb.RollbackDeploymentRequest(deployment=KEY, number=3))
    assert (same.deployment.version_number, list(same.changes)) == (5, [])


async def test_pages_of_versions(client: Client) -> None:
    for number in range(5):
        await client.deployments.ApplyDeployment(apply(description=str(number)))
    first = await client.deployments.ListDeploymentVersions(
        pb.ListDeploymentVersionsRequest(deployment=KEY, page_size=3)
    )
    rest = await client.deployments.ListDeploymentVersions(
        pb.ListDeploymentVersionsRequest(deployment=KEY, page_size=3, page_token=first.next_page_token)
    )
    assert [v.number for v in [*first.versions, *rest.versions]] == [5, 4, 3, 2, 1]
    assert not rest.next_page_token


def a_schedule(slug: str, seconds: int) -> Schedule:
    schedule = Schedule(slug=slug, interval=IntervalTiming(timezone="UTC", anchor="2026-01-01T00:00:00"))
    schedule.interval.interval.seconds = seconds
    return schedule


async def test_schedules_go_back_with_their_version(client: Client) -> None:
    calls = client.deployments
    await calls.ApplyDeployment(apply(schedules=[a_schedule("one", 3600)]))
    applied = await calls.ApplyDeployment(apply(schedules=[a_schedule("one", 7200), a_schedule("two", 60)]))
    assert set(changed(applied)) == {"schedules[one]", "schedules[two]"}
    assert not (await calls.ApplyDeployment(apply(schedules=[a_schedule("one", 7200)]))).changes
    before = {s.slug: s.id for s in applied.deployment.schedules}
    unspoken = await calls.ApplyDeployment(apply("description", description="d"))
    assert {s.slug: s.id for s in unspoken.deployment.schedules} == before
    back = await calls.RollbackDeployment(pb.RollbackDeploymentRequest(deployment=KEY, number=1))
    [left] = back.deployment.schedules
    assert (left.slug, left.id, left.interval.interval.seconds) == ("one", before["one"], 3600)
    assert (await versions(client))[0].deployment.schedules[0].slug == "one"


# Pausing, deleting, listing


async def test_pausing_is_no_version(client: Client) -> None:
    calls = client.deployments
    await calls.ApplyDeployment(apply(schedules=[a_schedule("often", 60)]))
    paused = (await calls.PauseDeployment(pb.PauseDeploymentRequest(deployment=KEY))).deployment
    assert (paused.paused, paused.version_number) == (True, 1)
    assert not paused.schedules[0].HasField("next_fire_time")
    once_more = (await calls.PauseDeployment(pb.PauseDeploymentRequest(deployment=KEY))).deployment
    assert once_more == paused
    resumed = (await calls.ResumeDeployment(pb.ResumeDeploymentRequest(deployment=KEY))).deployment
    assert resumed.schedules[0].HasField("next_fire_time")
    by_apply = await calls.ApplyDeployment(apply("paused", paused=True))
    assert changed(by_apply) == {"paused": ("", "true")}
    assert by_apply.deployment.version_number == 1
    assert not by_apply.deployment.schedules[0].HasField("next_fire_time")


async def test_a_deleted_deployment_takes_what_never_started(pooled: Client) -> None:
    calls = pooled.deployments
    await calls.ApplyDeployment(apply(work_pool="pool", schedules=[a_schedule("often", 60)]))
    made = [(await calls.CreateDeploymentRun(run_request())).run for _ in range(4)]
    for run, states in ((made[2], [2]), (made[3], [2, 3, 7])):
        for kind in states:
            proposal = ProposeStateRequest(run_id=run.id, state=state(kind))
            assert (await pooled.runs.ProposeState(proposal)).HasField("accepted")
    deleted = await calls.DeleteDeployment(pb.DeleteDeploymentRequest(deployment=KEY))
    assert deleted.deleted_runs == 2
    left = (await pooled.runs.ListRuns(ListRunsRequest(filter=RunFilter(flow_names=["etl"])))).runs
    assert {run.id for run in left} == {made[2].id, made[3].id}
    assert {run.deployment_id for run in left} == {made[0].deployment_id}
    gone = await refused(calls.DeleteDeployment(pb.DeleteDeploymentRequest(deployment=KEY)))
    assert info_of(gone).reason == "NOT_FOUND"
    anew = await calls.ApplyDeployment(apply())
    assert (anew.deployment.version_number, list(anew.deployment.schedules)) == (1, [])


async def test_a_deleted_flow_takes_its_deployments(client: Client) -> None:
    await client.deployments.ApplyDeployment(apply())
    await client.deployments.ApplyDeployment(apply(flow_name="other"))
    await client.flows.DeleteFlow(DeleteFlowRequest(name="etl"))
    left = (await client.deployments.ListDeployments(pb.ListDeploymentsRequest())).deployments
    assert [kept.flow_name for kept in left] == ["other"]


async def test_lists_filter_and_page(pooled: Client) -> None:
    calls = pooled.deployments
    for flow_name, name, fields in (
        ("b", "one", {"tags": ["x", 'say "y"']}),
        ("a", "two", {"tags": ["y"], "work_pool": "pool", "work_queue": "fast"}),
        ("a", "One", {"paused": True, "tags": ["x"]}),
        ("a", "z%", {}),
    ):
        if "%" not in name:
            await calls.ApplyDeployment(apply(flow_name=flow_name, name=name, **fields))

    async def listed(page_size: int = 0, page_token: str = "", **filter: Any) -> list[str]:
        request = pb.ListDeploymentsRequest(
            filter=pb.DeploymentFilter(**filter), page_size=page_size, page_token=page_token
        )
        answer = await calls.ListDeployments(request)
        tokens.append(answer.next_page_token)
        return [f"{d.flow_name}/{d.name}" for d in answer.deployments]

    tokens: list[str] = []
    everything = await listed()
    assert sorted(everything) == ["a/One", "a/two", "b/one"]
    first = await listed(page_size=2)
    assert first + await listed(page_size=2, page_token=tokens[-1]) == everything
    assert tokens[-1] == ""
    assert await listed(flow_names=["b"]) == ["b/one"]
    assert sorted(await listed(names=["two", "one"])) == ["a/two", "b/one"]
    assert await listed(work_pools=["pool"], work_queues=["fast"]) == ["a/two"]
    assert sorted(await listed(tags_all=["x"])) == ["a/One", "b/one"]
    assert await listed(tags_all=["x", 'say "y"']) == ["b/one"]
    assert await listed(tags_all=["y"]) == ["a/two"]
    assert sorted(await listed(name_contains="ONE")) == ["a/One", "b/one"]
    assert await listed(paused=True) == ["a/One"]
    assert await listed(ids=[new_id()]) == []


# Runs


async def test_a_run_has_what_deployment_and_request_say(pooled: Client) -> None:
    calls = pooled.deployments
    applied = await calls.ApplyDeployment(
        apply(
            version="abc",
            tags=["a"],
            labels={"team": "x", "k": "d"},
            parameters='{"limit": 3, "region": "eu", "options": {"deep": true}}',
            parameter_schema=SCHEMA,
            work_pool="pool",
            work_queue="fast",
            job_variables=struct({"env": {"A": "1"}}),
            fairness_key="t-{{ parameters.region }}-{{ tags[0] }}-{{ labels.team }}{{ parameters.none }}",
            priority=2,
            on_lost=2,
            max_lost_attempts=5,
        )
    )
    parent = await pooled.runs.CreateRun(CreateRunRequest(run=new_run()))
    request = run_request(
        name="mine",
        parameters='{"limit": 4, "options": {"__prefect_kind": "json", "value": "{\\"deep\\": false}"}}',
        tags=["b", "a"],
        labels={"k": "r"},
        job_variables=struct({"env.B": 2}),
        priority=7,
        work_queue="slow",
        parent_run_id=parent.run.id,
        inputs=[RunInputEdge(parameter="limit", run_ids=[parent.run.id])],
    )
    request.scheduled_time.FromJsonString("2033-01-01T00:00:00Z")
    run = (await calls.CreateDeploymentRun(request)).run
    assert json.loads(run.parameters.inline) == {"limit": 4, "region": "eu", "options": {"deep": False}}
    assert (run.name, run.flow_name, run.flow_version) == ("mine", "etl", "abc")
    assert (run.deployment_id, run.deployment_version_id) == (
        applied.deployment.id,
        applied.deployment.version_id,
    )
    assert (list(run.tags), dict(run.labels)) == (["a", "b"], {"team": "x", "k": "r"})
    assert (run.work_pool, run.work_queue, run.priority) == ("pool", "slow", 7)
    assert (run.retry_policy.on_lost, run.retry_policy.max_lost_attempts) == (2, 5)
    assert run.fairness_key == "t-eu-a-x"
    assert dict(run.job_variables) == {"env.B": 2}
    assert (run.parent_run_id, run.root_run_id, run.owner_run_id) == (parent.run.id, parent.run.id, run.id)
    assert run.inputs == request.inputs
    assert run.state.type == STATE_TYPE_SCHEDULED
    assert run.state.scheduled.scheduled_time == request.scheduled_time
    assert run.next_scheduled_start_time == request.scheduled_time
    slow = pools.GetWorkQueueRequest(work_pool="pool", name="slow")
    assert (await pooled.work_pools.GetWorkQueue(slow)).work_queue.load.upcoming_runs == 1


async def test_a_run_is_made_once_per_id_and_per_key(pooled: Client) -> None:
    calls = pooled.deployments
    await calls.ApplyDeployment(apply(work_pool="pool"))
    request = run_request(run_id=new_id())
    first = await calls.CreateDeploymentRun(request)
    again = await calls.CreateDeploymentRun(request)
    assert (first.existed, again.existed, again.run.name) == (False, True, first.run.name)
    other = run_request(run_id=request.run_id, name="other")
    assert info_of(await refused(calls.CreateDeploymentRun(other))).reason == "REQUEST_ID_REUSED"
    keyed = [await calls.CreateDeploymentRun(run_request(idempotency_key="k")) for _ in range(2)]
    assert keyed[0].run.id == keyed[1].run.id
    assert [answer.existed for answer in keyed] == [False, True]
    assert len((await pooled.runs.ListRuns(ListRunsRequest())).runs) == 2


async def test_runs_keep_the_version_they_were_made_with(client: Client) -> None:
    calls = client.deployments
    await calls.ApplyDeployment(apply(parameters='{"a": 1}'))
    old = (await calls.CreateDeploymentRun(run_request())).run
    applied = await calls.ApplyDeployment(apply(parameters='{"a": 2}'))
    new = (await calls.CreateDeploymentRun(run_request())).run
    kept = (await client.runs.GetRun(GetRunRequest(run_id=old.id))).run
    assert json.loads(kept.parameters.inline) == {"a": 1}
    assert kept.deployment_version_id == old.deployment_version_id != applied.deployment.version_id
    assert new.deployment_version_id == applied.deployment.version_id


async def test_a_paused_deployment_runs_by_hand(pooled: Client) -> None:
    await pooled.deployments.ApplyDeployment(apply(paused=True, work_pool="pool"))
    run = (await pooled.deployments.CreateDeploymentRun(run_request())).run
    for kind in (STATE_TYPE_PENDING, STATE_TYPE_RUNNING):
        verdict = await pooled.runs.ProposeState(ProposeStateRequest(run_id=run.id, state=state(kind)))
        assert verdict.HasField("accepted")


async def test_runs_asked_for_while_the_deployment_changes(client: Client) -> None:
    calls = client.deployments
    await calls.ApplyDeployment(apply(description="0"))
    asked = [calls.CreateDeploymentRun(run_request()) for _ in range(10)]
    changes = [calls.ApplyDeployment(apply(description=str(n))) for n in range(1, 5)]
    answers = await asyncio.gather(*asked, *changes)
    known = {version.id for version in await versions(client)}
    assert {answer.run.deployment_version_id for answer in answers[:10]} <= known
    assert len({answer.run.id for answer in answers[:10]}) == 10


async def test_a_pool_that_is_gone_is_waited_for(pooled: Client) -> None:
    await pooled.deployments.ApplyDeployment(apply(work_pool="pool"))
    await pooled.work_pools.DeleteWorkPool(pools.DeleteWorkPoolRequest(name="pool"))
    run = (await pooled.deployments.CreateDeploymentRun(run_request())).run
    assert run.work_pool == "pool"
    asked = run_request(work_queue="other")
    assert "no work pool 'pool'" in str(
        (await refused(pooled.deployments.CreateDeploymentRun(asked))).details()
    )


async def test_deployments_follow_their_queue(pooled: Client) -> None:
    calls = pooled.deployments
    await calls.ApplyDeployment(apply(work_pool="pool", work_queue="fast"))
    rename = pools.UpdateWorkQueueRequest(
        work_queue=WorkQueue(work_pool="pool", name="fast"), update_mask=FieldMask(), new_name="faster"
    )
    await pooled.work_pools.UpdateWorkQueue(rename)

    async def queue() -> str:
        got = await calls.GetDeployment(pb.GetDeploymentRequest(deployment=KEY))
        return str(got.deployment.work_queue)

    assert await queue() == "faster"
    await pooled.work_pools.DeleteWorkQueue(pools.DeleteWorkQueueRequest(work_pool="pool", name="faster"))
    assert await queue() == ""


# What is refused

CIRCULAR = json.dumps({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}})
A_REFERENCE = "deployment.parameter_schema.properties.a.$ref"
REMOTE = json.dumps({"properties": {"a": {"$ref": "http://169.254.169.254/schema"}}})

# Request, words of the message, reason, fields that are named.
BAD_DECLARATIONS: list[tuple[pb.ApplyDeploymentRequest, str, str, str]] = [
    (apply(flow_name=""), "deployment.flow_name", "FIELD_INVALID", "deployment.flow_name"),
    (apply(flow_name="a/b"), "must not contain", "FIELD_INVALID", "deployment.flow_name"),
    (apply(name="a/b"), "deployment.name", "FIELD_INVALID", "deployment.name"),
    (apply("nonsense"), "names 'nonsense'", "FIELD_INVALID", "update_mask"),
    (apply("id"), "names 'id'", "FIELD_INVALID", "update_mask"),
    (apply(work_pool="none"), "no work pool 'none'", "NOT_FOUND", ""),
    (apply(work_queue="q"), "without a work pool", "FIELD_INVALID", "deployment.work_queue"),
    (apply(parameters="["), "must be JSON", "FIELD_INVALID", "deployment.parameters"),
    (apply(parameters="[1]"), "must be a JSON object", "FIELD_INVALID", "deployment.parameters"),
    (
        apply(parameters='{"limit": "3"}', parameter_schema=SCHEMA),
        "deployment.parameters.limit: must be a whole number",
        "FIELD_INVALID",
        "deployment.parameters.limit",
    ),
    (
        apply(parameters='{"limits": 3}', parameter_schema=SCHEMA),
        "is no parameter of the flow; did you mean 'limit'?",
        "FIELD_INVALID",
        "deployment.parameters.limits",
    ),
    (
        apply(parameters='{"options": {"deep": 1}}', parameter_schema=SCHEMA),
        "must be true or false",
        "FIELD_INVALID",
        "deployment.parameters.options.deep",
    ),
    (apply(parameter_schema="nonsense"), "must be JSON", "FIELD_INVALID", "deployment.parameter_schema"),
    (
        apply(parameter_schema='{"properties": []}'),
        "must be an object of schemas",
        "FIELD_INVALID",
        "deployment.parameter_schema.properties",
    ),
    (
        apply(parameter_schema=CIRCULAR),
        "circular",
        "FIELD_INVALID",
        A_REFERENCE,
    ),
    (
        apply(parameter_schema=REMOTE),
        "outside of the schema",
        "FIELD_INVALID",
        A_REFERENCE,
    ),
    (
        apply(work_pool="pool", job_variables=struct({"imagee": "x", "stream_output": "yes"})),
        "is no variable of the work pool",
        "FIELD_INVALID",
        "deployment.job_variables.imagee",
    ),
    (
        apply(work_pool="pool", job_variables=struct({"stream_output": "yes"})),
        "must be true or false",
        "FIELD_INVALID",
        "deployment.job_variables.stream_output",
    ),
    (
        apply(job_variables=struct({"env": {}})),
        "without a work pool",
        "FIELD_INVALID",
        "deployment.job_variables",
    ),
    (
        apply(pull_steps=PullSteps(steps=[struct({"a": {}, "b": {}})])),
        "must have one key, the name of the step; it has a, b",
        "FIELD_INVALID",
        "deployment.pull_steps.steps[0]",
    ),
    (apply(entrypoint="etl"), "must be like", "FIELD_INVALID", "deployment.entrypoint"),
    (apply(environment={"A=B": "x"}), "no name of an", "FIELD_INVALID", 'deployment.environment["A=B"]'),
    (apply(fairness_key="{{ secrets.x }}"), "uses 'secrets.x'", "FIELD_INVALID", "deployment.fairness_key"),
    (apply(priority=10), "deployment.priority", "FIELD_INVALID", "deployment.priority"),
    (apply(tags=["a", "a"]), "deployment.tags", "FIELD_INVALID", "deployment.tags"),
    (
        apply(schedules=[a_schedule("a", 60), a_schedule("a", 70)]),
        "given twice",
        "FIELD_INVALID",
        "schedules[0].slug",
    ),
]


def fields_of(error: Any) -> list[str]:
    status = rpc_status.from_call(error)
    found: list[str] = []
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            found.extend(violation.field for violation in bad.field_violations)
    return found


async def test_a_bad_declaration_is_told_what_is_wrong(pooled: Client) -> None:
    for request, words, reason, field in BAD_DECLARATIONS:
        error = await refused(pooled.deployments.ApplyDeployment(request))
        assert words in str(error.details()), request
        assert info_of(error).reason == reason, request
        assert field == "" or field in fields_of(error), (request, fields_of(error))
    assert not (await pooled.deployments.ListDeployments(pb.ListDeploymentsRequest())).deployments


NONE = pb.DeploymentKey(name="etl/none")
BAD_REQUESTS: list[tuple[str, Any, str, str]] = [
    ("GetDeployment", pb.GetDeploymentRequest(), "deployment", "FIELD_INVALID"),
    ("GetDeployment", pb.GetDeploymentRequest(deployment=NONE), "no deployment 'etl/none'", "NOT_FOUND"),
    (
        "GetDeployment",
        pb.GetDeploymentRequest(deployment=pb.DeploymentKey(name="nightly")),
        "must be like 'flow-name/deployment-name'",
        "FIELD_INVALID",
    ),
    ("ListDeployments", pb.ListDeploymentsRequest(page_token="x"), "page", "PAGE_TOKEN_INVALID"),
    (
        "ListDeploymentVersions",
        pb.ListDeploymentVersionsRequest(deployment=NONE),
        "no deployment",
        "NOT_FOUND",
    ),
    ("RollbackDeployment", pb.RollbackDeploymentRequest(deployment=NONE), "no deployment", "NOT_FOUND"),
    (
        "RollbackDeployment",
        pb.RollbackDeploymentRequest(deployment=KEY),
        "one version",
        "PRECONDITION_FAILED",
    ),
    (
        "RollbackDeployment",
        pb.RollbackDeploymentRequest(deployment=KEY, number=9),
        "no deployment version '9'",
        "NOT_FOUND",
    ),
    ("PauseDeployment", pb.PauseDeploymentRequest(deployment=NONE), "no deployment", "NOT_FOUND"),
    ("DeleteDeployment", pb.DeleteDeploymentRequest(deployment=NONE), "no deployment", "NOT_FOUND"),
    ("CreateDeploymentRun", run_request(deployment=NONE), "no deployment", "NOT_FOUND"),
    ("CreateDeploymentRun", run_request(), "parameters.limit: is required", "PARAMETERS_INVALID"),
    (
        "CreateDeploymentRun",
        run_request(parameters='{"limit": 0, "region": "mars"}'),
        "parameters.limit: must be at least 1; parameters.region: must be one of 'eu', 'us'",
        "PARAMETERS_INVALID",
    ),
    (
        "CreateDeploymentRun",
        run_request(parameters='{"limit": 1, "regon": "eu"}'),
        "did you mean 'region'?",
        "PARAMETERS_INVALID",
    ),
    ("CreateDeploymentRun", run_request(parameters="nonsense"), "must be JSON", "PARAMETERS_INVALID"),
    (
        "CreateDeploymentRun",
        run_request(parameters='{"limit": {"__headrace_kind": "json", "value": "{"}}'),
        "parameters.limit: is of kind 'json', and its 'value' is not JSON",
        "PARAMETERS_INVALID",
    ),
    (
        "CreateDeploymentRun",
        run_request(
            parameters='{"limit": 1, "options": {"a": [{"__prefect_kind": "workspace_variable",'
            ' "variable_name": "v"}]}}'
        ),
        "parameters.options.a[0]: names the variable 'v'",
        "PARAMETERS_INVALID",
    ),
    (
        "CreateDeploymentRun",
        run_request(parameters='{"limit": 1}', job_variables=struct({"working_dirs": "/"})),
        "job_variables.working_dirs: is no variable of the work pool; did you mean 'working_dir'?",
        "FIELD_INVALID",
    ),
    (
        "CreateDeploymentRun",
        run_request(parameters='{"limit": 1}', job_variables=struct({"env": {"A": []}})),
        "job_variables.env.A",
        "FIELD_INVALID",
    ),
    (
        "CreateDeploymentRun",
        run_request(parameters='{"limit": 1}', work_queue="a/b"),
        "work_queue",
        "FIELD_INVALID",
    ),
    (
        "CreateDeploymentRun",
        run_request(parameters='{"limit": 1}', parent_run_id=new_id()),
        "There is no run",
        "NOT_FOUND",
    ),
]


async def test_a_bad_request_is_told_what_is_wrong(pooled: Client) -> None:
    await pooled.deployments.ApplyDeployment(apply(work_pool="pool", parameter_schema=SCHEMA))
    for method, request, words, reason in BAD_REQUESTS:
        error = await refused(getattr(pooled.deployments, method)(request))
        assert words in str(error.details()), (method, request, error.details())
        assert info_of(error).reason == reason, (method, request)
    assert not (await pooled.runs.ListRuns(ListRunsRequest())).runs
    unchecked = run_request(parameters='{"anything": 1}', skip_parameter_check=True)
    assert (await pooled.deployments.CreateDeploymentRun(unchecked)).run.id
