"""Deployments and schedules for the storage tests."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.core.clock import from_micros
from headrace.core.ids import new_id
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.schedule_pb2 import Schedule
from headrace_services.storage.command import Command
from headrace_services.storage.database import Database
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.rows import flow_id_of
from headrace_services.storage.schedule_changes import CreateSchedule, recompute_schedules
from headrace_services.storage.schedule_firing import FireSchedules, ReleaseOverlaps
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work
from tests.storage.build import START

MINUTE = 60


class Do(Command[Any]):
    """One piece of logic as a command."""

    def __init__(self, logic: Any) -> None:
        super().__init__()
        self.apply = logic  # type: ignore[method-assign]


async def a_deployment(database: Database, flow: str = "etl", **fields: Any) -> DeploymentRow:
    """A deployment in the database."""
    said = Deployment(flow_name=flow, name=fields.pop("name", "nightly"), **fields)
    row = DeploymentRow(
        id=new_id(),
        flow_id=flow_id_of(flow),
        flow_name=flow,
        name=said.name,
        is_paused=said.paused,
        work_pool=said.work_pool or None,
        work_queue=said.work_queue or None,
        concurrency_limit=None,
        tags=None,
        version_id=new_id(),
        version_number=1,
        create_time=START,
        update_time=START,
        created_by="",
        updated_by="",
        spec=said.SerializeToString(deterministic=True),
    )

    def logic(work: Work) -> Steps[None]:
        work.rows.put(row)
        yield from ()

    await database.writer.do(Do(logic))
    return row


async def pause_deployment(database: Database, deployment: DeploymentRow, paused: bool) -> None:
    """Pause the deployment, or let it go on, with its schedules."""

    def logic(work: Work) -> Steps[None]:
        yield from work.rows.load(DeploymentRow, [deployment.key])
        row = work.rows.get(DeploymentRow, deployment.id)
        assert row is not None
        row.is_paused = paused
        work.rows.put(row)
        yield from recompute_schedules(work, row)

    await database.writer.do(Do(logic))


async def a_schedule(
    database: Database, deployment: DeploymentRow, cron: str = "* * * * *", **fields: Any
) -> Schedule:
    """A schedule of the deployment in the database."""
    schedule = Schedule(deployment_id=deployment.id, **fields)
    if schedule.WhichOneof("timing") is None:
        schedule.cron.cron = cron
    return await database.writer.do(CreateSchedule(schedule, "", "tester"))


async def tick(database: Database) -> int:
    """What the scheduler does in one round; how many runs it makes."""
    made = 0
    while (fired := await database.writer.do(FireSchedules())).schedules:
        made += fired.runs
    await database.writer.do(ReleaseOverlaps())
    return made


async def runs_of(database: Database, *, flow: str = "etl", full: bool = False) -> list[Run]:
    """The runs, by the time they are scheduled for."""
    runs, _ = await database.reader.list_runs(RunFilter(flow_names=[flow]), page_size=1000, full=full)
    return sorted(runs, key=lambda run: (run.expected_start_time.ToMicroseconds(), run.id))


async def times_of(database: Database, **how: Any) -> list[str]:
    """When the runs are scheduled for, as hours and minutes."""
    runs = await runs_of(database, **how)
    return [f"{from_micros(run.expected_start_time.ToMicroseconds()):%H:%M}" for run in runs]


async def both(*jobs: Any) -> list[Any]:
    """All at once."""
    return list(await asyncio.gather(*jobs))
