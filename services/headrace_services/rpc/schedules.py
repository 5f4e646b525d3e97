"""`headrace.v1.ScheduleService`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from headrace.core.clock import Clock, from_micros, to_micros
from headrace.core.errors import FieldsInvalid, ObjectNotFound
from headrace.core.schedules import next_fires
from headrace.core.schedules.messages import timing_of
from headrace.v1 import schedule_service_pb2 as pb
from headrace.v1.deployment_service_pb2 import DeploymentKey
from headrace.v1.schedule_pb2 import Schedule
from headrace_services.domain.deployment_checks import schedule_violations
from headrace_services.domain.run_parameters import invalid
from headrace_services.rpc.backfills import BackfillService
from headrace_services.rpc.call import Call
from headrace_services.storage.database import Database
from headrace_services.storage.deployment_codec import declared
from headrace_services.storage.schedule_changes import (
    CreateSchedule,
    DeleteSchedule,
    SetSchedulePaused,
    UpdateSchedule,
)
from headrace_services.storage.schedule_firing import TriggerSchedule
from headrace_services.storage.schedule_rows import checked_spec
from headrace_services.storage.schedule_skips import SkipFire, UnskipFire
from headrace_services.storage.scheduled_runs import run_id_of

__all__ = ["ScheduleService"]

_PREVIEWED = 10


class ScheduleService:
    """When runs of deployments are made.

    Args:
        database: where they are.
        clock: what the time is.
        changed: called when the scheduler may have something to do.
        backfills: makes up for ranges of the past.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        changed: Callable[[], None],
        backfills: BackfillService,
    ) -> None:
        self._writer = database.writer
        self._reader = database.reader.schedules
        self._deployments = database.reader.deployments
        self._clock = clock
        self._changed = changed
        self._backfills = backfills

    async def CreateSchedule(
        self, request: pb.CreateScheduleRequest, call: Call
    ) -> pb.CreateScheduleResponse:
        if not request.schedule.deployment_id:
            raise FieldsInvalid.of("schedule.deployment_id", "must be set")
        # Finding out that a rule never fires can take a while: not on the event loop, nor in a transaction.
        await asyncio.to_thread(checked_spec, request.schedule, self._clock.now())
        await self._check_parameters(request.schedule.deployment_id, request.schedule)
        schedule = await self._writer.do(CreateSchedule(request.schedule, request.request_id, call.principal))
        self._changed()
        return pb.CreateScheduleResponse(schedule=schedule)

    async def GetSchedule(self, request: pb.GetScheduleRequest, call: Call) -> pb.GetScheduleResponse:
        return pb.GetScheduleResponse(schedule=await self._reader.get(request.schedule_id))

    async def ListSchedules(self, request: pb.ListSchedulesRequest, call: Call) -> pb.ListSchedulesResponse:
        schedules, token = await self._reader.page(
            request.deployment_ids, request.active_only, request.page_size, request.page_token
        )
        return pb.ListSchedulesResponse(schedules=schedules, next_page_token=token)

    async def UpdateSchedule(
        self, request: pb.UpdateScheduleRequest, call: Call
    ) -> pb.UpdateScheduleResponse:
        if not request.schedule.id:
            raise FieldsInvalid.of("schedule.id", "must be set")
        paths = request.update_mask.paths
        if not paths:
            raise FieldsInvalid.of("update_mask", "must name the fields to change")
        if request.schedule.WhichOneof("timing") in paths:
            await asyncio.to_thread(checked_spec, request.schedule, self._clock.now())
        if "parameters" in paths:
            stored = await self._reader.get(request.schedule.id)
            await self._check_parameters(stored.deployment_id, request.schedule)
        schedule = await self._writer.do(UpdateSchedule(request.schedule, paths))
        self._changed()
        return pb.UpdateScheduleResponse(schedule=schedule)

    async def _check_parameters(self, deployment_id: str, schedule: Schedule) -> None:
        """See that the flow takes the parameters of a schedule.

        Raises:
            ParametersInvalid: it does not; every problem has its path.
            ObjectNotFound: there is no such deployment.
        """
        said = declared(await self._deployments.row(DeploymentKey(id=deployment_id)))
        wrong = list(schedule_violations(said, schedule.parameters, "schedule"))
        if wrong:
            raise invalid(wrong, parameters=True)

    async def DeleteSchedule(
        self, request: pb.DeleteScheduleRequest, call: Call
    ) -> pb.DeleteScheduleResponse:
        if not await self._writer.do(DeleteSchedule(request.schedule_id)):
            raise ObjectNotFound.of("schedule", request.schedule_id)
        return pb.DeleteScheduleResponse()

    async def PauseSchedule(self, request: pb.PauseScheduleRequest, call: Call) -> pb.PauseScheduleResponse:
        schedule = await self._writer.do(SetSchedulePaused(request.schedule_id, True))
        return pb.PauseScheduleResponse(schedule=schedule)

    async def ResumeSchedule(
        self, request: pb.ResumeScheduleRequest, call: Call
    ) -> pb.ResumeScheduleResponse:
        schedule = await self._writer.do(SetSchedulePaused(request.schedule_id, False))
        self._changed()
        return pb.ResumeScheduleResponse(schedule=schedule)

    async def PreviewSchedule(
        self, request: pb.PreviewScheduleRequest, call: Call
    ) -> pb.PreviewScheduleResponse:
        if request.WhichOneof("schedule") == "schedule_id":
            schedule = await self._reader.get(request.schedule_id)
        else:
            schedule = request.definition
        response = pb.PreviewScheduleResponse()
        skipped = {instant.ToMicroseconds() for instant in schedule.skipped_times}
        for fire in await asyncio.to_thread(self._fires, request, schedule):
            response.fire_times.add().FromDatetime(fire)
            told = response.fires.add()
            told.fire_time.FromDatetime(fire)
            if request.WhichOneof("schedule") == "schedule_id":
                told.run_id = run_id_of(schedule.id, to_micros(fire))
                told.skipped = to_micros(fire) in skipped
        return response

    async def SkipFire(self, request: pb.SkipFireRequest, call: Call) -> pb.SkipFireResponse:
        fire = request.fire_time.ToMicroseconds()
        schedule = await self._writer.do(SkipFire(request.schedule_id, fire))
        return pb.SkipFireResponse(schedule=schedule)

    async def UnskipFire(self, request: pb.UnskipFireRequest, call: Call) -> pb.UnskipFireResponse:
        fire = request.fire_time.ToMicroseconds()
        schedule = await self._writer.do(UnskipFire(request.schedule_id, fire))
        self._changed()
        return pb.UnskipFireResponse(schedule=schedule)

    def _fires(self, request: pb.PreviewScheduleRequest, schedule: Schedule) -> list[datetime]:
        now = self._clock.now()
        spec = Schedule.FromString(checked_spec(schedule, now, "definition"))
        begin = from_micros(now)
        if request.HasField("from"):
            begin = getattr(request, "from").ToDatetime(UTC)
        after = begin - timedelta(microseconds=1)
        fires = next_fires(timing_of(spec), after, request.count or _PREVIEWED)
        until = request.until.ToDatetime(UTC) if request.HasField("until") else None
        return [fire for fire in fires if until is None or fire < until]

    async def TriggerSchedule(
        self, request: pb.TriggerScheduleRequest, call: Call
    ) -> pb.TriggerScheduleResponse:
        run = await self._writer.do(TriggerSchedule(request.schedule_id, request.request_id, call.principal))
        return pb.TriggerScheduleResponse(run=run)

    async def BackfillSchedule(
        self, request: pb.BackfillScheduleRequest, call: Call
    ) -> pb.BackfillScheduleResponse:
        return await self._backfills.at_once(request, call)
