"""`ScheduleService` over a real socket."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import grpc
import pytest

from headrace.client.errors import from_rpc_error
from headrace.core.ids import new_id
from headrace.schedules import Cron, Interval
from headrace.v1 import schedule_service_pb2 as pb
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.deployment_service_pb2 import ApplyDeploymentRequest
from headrace.v1.run_pb2 import RunFilter
from headrace.v1.schedule_pb2 import Schedule
from headrace_services.storage.declared_rows import DeploymentRow
from tests.rpc.servers import Client
from tests.storage.schedule_build import a_deployment

pytestmark = pytest.mark.usefixtures("one_event_loop")


@pytest.fixture
async def deployment(client: Client) -> DeploymentRow:
    """A deployment on the server."""
    return await a_deployment(client.server.database)


def cron(text: str, **fields: Any) -> Schedule:
    schedule = Schedule(**fields)
    schedule.cron.cron = text
    return schedule


async def create(client: Client, schedule: Schedule) -> Schedule:
    made: Schedule = (
        await client.schedules.CreateSchedule(pb.CreateScheduleRequest(schedule=schedule))
    ).schedule
    return made


async def refused(call: Any) -> tuple[str, list[str]]:
    """The code of a call's error, and the fields it blames."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = from_rpc_error(caught.value, "here")
    return caught.value.code().name, [violation.field for violation in getattr(error, "violations", ())]


async def test_the_life_of_a_schedule(client: Client, deployment: DeploymentRow) -> None:
    made = await create(client, cron("0 9 * * *", deployment_id=deployment.id, slug="nightly"))
    calls = client.schedules
    assert (await calls.GetSchedule(pb.GetScheduleRequest(schedule_id=made.id))).schedule == made
    listed = await calls.ListSchedules(pb.ListSchedulesRequest(deployment_ids=[deployment.id]))
    assert list(listed.schedules) == [made]
    changed = pb.UpdateScheduleRequest(schedule=cron("0 10 * * *", id=made.id, etag=made.etag))
    changed.update_mask.paths.append("cron")
    assert (await calls.UpdateSchedule(changed)).schedule.cron.cron == "0 10 * * *"
    paused = (await calls.PauseSchedule(pb.PauseScheduleRequest(schedule_id=made.id))).schedule
    assert paused.paused and not paused.HasField("next_fire_time")
    listed = await calls.ListSchedules(pb.ListSchedulesRequest(active_only=True))
    assert list(listed.schedules) == []
    resumed = (await calls.ResumeSchedule(pb.ResumeScheduleRequest(schedule_id=made.id))).schedule
    assert not resumed.paused and resumed.HasField("next_fire_time")
    run = (await calls.TriggerSchedule(pb.TriggerScheduleRequest(schedule_id=made.id))).run
    assert run.schedule_id == made.id and run.state.name == "Scheduled"
    await calls.DeleteSchedule(pb.DeleteScheduleRequest(schedule_id=made.id))
    assert await refused(calls.GetSchedule(pb.GetScheduleRequest(schedule_id=made.id))) == ("NOT_FOUND", [])


async def test_parameters_of_a_schedule_fit_the_flow(client: Client) -> None:
    schema = {"type": "object", "properties": {"day": {"type": "string"}, "n": {"type": "integer"}}}
    wanted = Deployment(
        flow_name="etl",
        name="d",
        parameter_schema=json.dumps(schema | {"required": ["day"]}),
        parameters=json.dumps({"day": "monday"}),
    )
    apply = ApplyDeploymentRequest(deployment=wanted)
    deployment = (await client.deployments.ApplyDeployment(apply)).deployment

    def creating(parameters: str) -> Any:
        schedule = cron("0 9 * * *", deployment_id=deployment.id, parameters=parameters)
        return client.schedules.CreateSchedule(pb.CreateScheduleRequest(schedule=schedule))

    async def wrong(call: Any) -> list[str]:
        code, fields = await refused(call)
        assert code == "INVALID_ARGUMENT"
        return fields

    assert await wrong(creating('{"n": "three"}')) == ["schedule.parameters.n"]
    assert await wrong(creating('{"dya": "friday"}')) == ["schedule.parameters.dya"]
    assert await wrong(creating("[1]")) == ["schedule.parameters"]
    made = (await creating('{"n": 3}')).schedule
    changed = pb.UpdateScheduleRequest(schedule=cron("0 9 * * *", id=made.id, parameters='{"n": null}'))
    changed.update_mask.paths.append("parameters")
    assert await wrong(client.schedules.UpdateSchedule(changed)) == ["schedule.parameters.n"]
    changed.schedule.parameters = '{"n": 4}'
    assert (await client.schedules.UpdateSchedule(changed)).schedule.parameters == '{"n": 4}'
    apply.deployment.schedules.append(cron("0 9 * * *", parameters='{"n": "three"}'))
    assert await wrong(client.deployments.ApplyDeployment(apply)) == ["deployment.schedules[0].parameters.n"]
    apply.deployment.skip_parameter_check = True
    await client.deployments.ApplyDeployment(apply)
    await creating('{"n": "three"}')


async def test_a_preview_of_what_is_only_thought_of(client: Client) -> None:
    request = pb.PreviewScheduleRequest(definition=cron("30 2 * * *"), count=3)
    request.definition.cron.timezone = "America/New_York"
    getattr(request, "from").FromDatetime(datetime(2026, 3, 7, 7, 30, tzinfo=UTC))
    fires = (await client.schedules.PreviewSchedule(request)).fire_times
    assert [f"{fire.ToDatetime():%d %H:%M}" for fire in fires] == ["07 07:30", "08 07:00", "09 06:30"]
    request.until.FromDatetime(datetime(2026, 3, 8, 7, tzinfo=UTC))
    assert len((await client.schedules.PreviewSchedule(request)).fire_times) == 1


async def test_an_instant_is_skipped_and_shown_so(client: Client, deployment: DeploymentRow) -> None:
    made, calls = await create(client, cron("0 9 * * *", deployment_id=deployment.id)), client.schedules
    fires = (await calls.PreviewSchedule(pb.PreviewScheduleRequest(schedule_id=made.id, count=3))).fires
    assert len({fire.run_id for fire in fires}) == 3 and not any(fire.skipped for fire in fires)
    second = fires[1].fire_time
    asked = pb.SkipFireRequest(schedule_id=made.id, fire_time=second)
    for _ in range(2):
        assert list((await calls.SkipFire(asked)).schedule.skipped_times) == [second]
    seen = (await calls.PreviewSchedule(pb.PreviewScheduleRequest(schedule_id=made.id, count=3))).fires
    assert [fire.skipped for fire in seen] == [False, True, False]
    assert [fire.run_id for fire in seen] == [fire.run_id for fire in fires]
    undone = await calls.UnskipFire(pb.UnskipFireRequest(schedule_id=made.id, fire_time=second))
    assert not undone.schedule.skipped_times
    asked.fire_time.seconds += 1
    assert await refused(calls.SkipFire(asked)) == ("INVALID_ARGUMENT", ["fire_time"])
    asked.ClearField("fire_time")
    assert await refused(calls.SkipFire(asked)) == ("INVALID_ARGUMENT", ["fire_time"])
    thought = pb.PreviewScheduleRequest(definition=cron("0 9 * * *"), count=1)
    assert (await calls.PreviewSchedule(thought)).fires[0].run_id == ""


async def test_mistakes_name_their_field(client: Client, deployment: DeploymentRow) -> None:
    calls = client.schedules

    def creating(schedule: Schedule) -> Any:
        return calls.CreateSchedule(pb.CreateScheduleRequest(schedule=schedule))

    invalid = "INVALID_ARGUMENT"
    assert await refused(creating(cron("H 9 * * *", deployment_id=deployment.id))) == (
        invalid,
        ["schedule.cron.cron"],
    )
    assert await refused(creating(cron("0 9 * * *"))) == (invalid, ["schedule.deployment_id"])
    assert await refused(creating(Schedule(deployment_id=deployment.id))) == (invalid, ["schedule.timing"])
    assert await refused(creating(cron("0 9 * * *", deployment_id=new_id()))) == ("NOT_FOUND", [])
    bad = pb.PreviewScheduleRequest(definition=cron("0 0 31 2 *"))
    assert await refused(calls.PreviewSchedule(bad)) == (invalid, ["definition.cron.cron"])
    made = await create(client, cron("0 9 * * *", deployment_id=deployment.id, slug="a"))
    assert (await refused(creating(cron("0 9 * * *", deployment_id=deployment.id, slug="a"))))[
        0
    ] == "ALREADY_EXISTS"
    unmasked = pb.UpdateScheduleRequest(schedule=made)
    unmasked.update_mask.SetInParent()
    assert await refused(calls.UpdateSchedule(unmasked)) == (invalid, ["update_mask"])


async def test_runs_appear_by_themselves(client: Client, deployment: DeploymentRow) -> None:
    schedule = Schedule(deployment_id=deployment.id)
    schedule.interval.interval.FromSeconds(1)
    made = await create(client, schedule)
    database, seen = client.server.database, 0
    runs: list[Any] = []
    while len(runs) < 3:
        seen = await database.signals.wait(seen, 5)
        runs, _ = await database.reader.list_runs(RunFilter(deployment_ids=[deployment.id]))
    instants = sorted(run.expected_start_time.ToMicroseconds() for run in runs)
    anchor = int(datetime.fromisoformat(made.interval.anchor).replace(tzinfo=UTC).timestamp())
    assert all(instant % 1_000_000 == 0 for instant in instants)
    assert all(later - earlier == 1_000_000 for earlier, later in pairwise(instants))
    assert instants[0] > anchor * 1_000_000


async def test_declared_with_its_deployment(client: Client) -> None:
    schedules = [
        Interval(1, slug="secondly", parameters={"b": 2}).to_message(),
        Cron("@yearly", slug="y").to_message(),
    ]
    declared = Deployment(flow_name="etl", name="n", parameters='{"a": 1}', schedules=schedules)
    applied = await client.deployments.ApplyDeployment(ApplyDeploymentRequest(deployment=declared))
    database, seen = client.server.database, 0
    runs: list[Any] = []
    while not runs:
        seen = await database.signals.wait(seen, 5)
        runs, _ = await database.reader.list_runs(
            RunFilter(deployment_ids=[applied.deployment.id]), full=True
        )
        again = await client.deployments.ApplyDeployment(ApplyDeploymentRequest(deployment=declared))
        assert not again.changes
    assert json.loads(runs[0].parameters.inline) == {"a": 1, "b": 2}
    assert runs[0].deployment_version_id == applied.deployment.version_id
