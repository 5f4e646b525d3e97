"""Calls of `ScheduleService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from google.protobuf.field_mask_pb2 import FieldMask

from headrace.client.service_calls import ServiceCalls
from headrace.core.ids import new_id
from headrace.core.limits import PAGE_SIZE_DEFAULT
from headrace.v1 import schedule_service_pb2 as schedules
from headrace.v1.run_pb2 import Run
from headrace.v1.schedule_pb2 import Schedule

__all__ = ["ScheduleCalls"]


class ScheduleCalls(ServiceCalls):
    """Schedules of deployments."""

    async def create_schedule(
        self, schedule: Schedule, *, request_id: str = "", timeout: float | None = None
    ) -> Schedule:
        """Make a schedule.

        Args:
            schedule: `deployment_id` and one of `cron`, `interval` and `rrule` must be set.
            request_id: repeating the call with it makes no second one; empty: one is made up.
            timeout: seconds for this call.

        Raises:
            ObjectNotFound: there is no such deployment.
            ObjectAlreadyExists: the deployment has another schedule of the slug.
            FieldsInvalid: it cannot be kept; the violation names the field.
        """
        request = schedules.CreateScheduleRequest(schedule=schedule, request_id=request_id or new_id())
        answer = schedules.CreateScheduleResponse.FromString
        return (await self._call("ScheduleService/CreateSchedule", request, answer, timeout)).schedule

    async def get_schedule(self, schedule_id: str, *, timeout: float | None = None) -> Schedule:
        """The schedule with that id."""
        request = schedules.GetScheduleRequest(schedule_id=schedule_id)
        answer = schedules.GetScheduleResponse.FromString
        return (await self._call("ScheduleService/GetSchedule", request, answer, timeout)).schedule

    async def list_schedules(
        self, request: schedules.ListSchedulesRequest, *, timeout: float | None = None
    ) -> schedules.ListSchedulesResponse:
        """One page of schedules, oldest first."""
        answer = schedules.ListSchedulesResponse.FromString
        return await self._call("ScheduleService/ListSchedules", request, answer, timeout)

    async def iter_schedules(
        self,
        deployment_ids: Sequence[str] = (),
        *,
        active_only: bool = False,
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> AsyncIterator[Schedule]:
        """Every schedule of the deployments, or of all, oldest first."""
        request = schedules.ListSchedulesRequest(
            deployment_ids=deployment_ids, active_only=active_only, page_size=page_size
        )
        while True:
            page = await self.list_schedules(request)
            for schedule in page.schedules:
                yield schedule
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def update_schedule(
        self, schedule: Schedule, paths: Sequence[str], *, timeout: float | None = None
    ) -> Schedule:
        """Change the fields in `paths`, such as `cron`, `parameters` or `overlap`.

        Raises:
            EtagMismatch: `schedule.etag` is set, and the schedule has changed.
        """
        request = schedules.UpdateScheduleRequest(schedule=schedule, update_mask=FieldMask(paths=paths))
        answer = schedules.UpdateScheduleResponse.FromString
        return (await self._call("ScheduleService/UpdateSchedule", request, answer, timeout)).schedule

    async def delete_schedule(self, schedule_id: str, *, timeout: float | None = None) -> None:
        """Delete a schedule, and the runs that it made for later."""
        request = schedules.DeleteScheduleRequest(schedule_id=schedule_id)
        answer = schedules.DeleteScheduleResponse.FromString
        await self._call("ScheduleService/DeleteSchedule", request, answer, timeout)

    async def pause_schedule(self, schedule_id: str, *, timeout: float | None = None) -> Schedule:
        """Make no more runs; those that it made and nobody has begun with go."""
        request = schedules.PauseScheduleRequest(schedule_id=schedule_id)
        answer = schedules.PauseScheduleResponse.FromString
        return (await self._call("ScheduleService/PauseSchedule", request, answer, timeout)).schedule

    async def resume_schedule(self, schedule_id: str, *, timeout: float | None = None) -> Schedule:
        """Make runs again, from now on."""
        request = schedules.ResumeScheduleRequest(schedule_id=schedule_id)
        answer = schedules.ResumeScheduleResponse.FromString
        return (await self._call("ScheduleService/ResumeSchedule", request, answer, timeout)).schedule

    async def preview_schedule(
        self,
        schedule: Schedule | str,
        count: int = 10,
        *,
        start: datetime | None = None,
        until: datetime | None = None,
        timeout: float | None = None,
    ) -> list[datetime]:
        """The next fires of a schedule, those that are skipped too: see `preview_fires`.

        Args:
            schedule: the id of one that exists, or one that is only thought of.
            count: how many, at most 1000.
            start: from this instant on, itself included; None: from now on.
            until: only before this instant.
            timeout: seconds for this call.

        Returns:
            Aware datetimes in UTC.
        """
        fires = await self.preview_fires(schedule, count, start=start, until=until, timeout=timeout)
        return [fire.fire_time.ToDatetime(UTC) for fire in fires]

    async def preview_fires(
        self,
        schedule: Schedule | str,
        count: int = 10,
        *,
        start: datetime | None = None,
        until: datetime | None = None,
        timeout: float | None = None,
    ) -> list[schedules.ScheduleFire]:
        """The next fires of a schedule, each with the id of its run, to be or not, and whether it is skipped.

        Args:
            schedule: the id of one that exists, or one that is only thought of; that has no runs.
            count: how many, at most 1000.
            start: from this instant on, itself included; None: from now on.
            until: only before this instant.
            timeout: seconds for this call.
        """
        request = schedules.PreviewScheduleRequest(count=count)
        if isinstance(schedule, str):
            request.schedule_id = schedule
        else:
            request.definition.CopyFrom(schedule)
        if start is not None:
            getattr(request, "from").FromDatetime(start)
        if until is not None:
            request.until.FromDatetime(until)
        answer = schedules.PreviewScheduleResponse.FromString
        return list((await self._call("ScheduleService/PreviewSchedule", request, answer, timeout)).fires)

    async def skip_fire(
        self, schedule_id: str, fire_time: datetime, *, timeout: float | None = None
    ) -> Schedule:
        """Have no run made for one instant to come. Skipping it again changes nothing.

        A run that was made a moment before the instant goes, unless somebody has begun with it.

        Args:
            schedule_id: of the schedule.
            fire_time: an instant at which it fires, aware.
            timeout: seconds for this call.

        Returns:
            The schedule; `skipped_times` has all that are skipped.

        Raises:
            ObjectNotFound: there is no such schedule.
            FieldsInvalid: it does not fire then, the instant is past, or a hundred are skipped already.
            PreconditionFailed: the run of the instant has begun.
        """
        request = schedules.SkipFireRequest(schedule_id=schedule_id)
        request.fire_time.FromDatetime(fire_time)
        answer = schedules.SkipFireResponse.FromString
        return (await self._call("ScheduleService/SkipFire", request, answer, timeout)).schedule

    async def unskip_fire(
        self, schedule_id: str, fire_time: datetime, *, timeout: float | None = None
    ) -> Schedule:
        """Have a run made for an instant after all, if it is still to come; one that is not skipped stays so.

        Args:
            schedule_id: of the schedule.
            fire_time: the instant, aware.
            timeout: seconds for this call.

        Raises:
            ObjectNotFound: there is no such schedule.
        """
        request = schedules.UnskipFireRequest(schedule_id=schedule_id)
        request.fire_time.FromDatetime(fire_time)
        answer = schedules.UnskipFireResponse.FromString
        return (await self._call("ScheduleService/UnskipFire", request, answer, timeout)).schedule

    async def trigger_schedule(
        self, schedule_id: str, *, request_id: str = "", timeout: float | None = None
    ) -> Run:
        """Make one run now, with the schedule's parameters.

        Args:
            schedule_id: of the schedule, which may be paused.
            request_id: repeating the call with it makes no second run; empty: one is made up.
            timeout: seconds for this call.
        """
        request = schedules.TriggerScheduleRequest(schedule_id=schedule_id, request_id=request_id or new_id())
        answer = schedules.TriggerScheduleResponse.FromString
        return (await self._call("ScheduleService/TriggerSchedule", request, answer, timeout)).run

    async def backfill_schedule(
        self, request: schedules.BackfillScheduleRequest, *, timeout: float | None = None
    ) -> list[schedules.BackfillFire]:
        """Make the runs of a range of time, those that exist already excepted; at most 1000 at once.

        Returns:
            Every fire of the range, with its run.
        """
        answer = schedules.BackfillScheduleResponse.FromString
        found = await self._call("ScheduleService/BackfillSchedule", request, answer, timeout)
        return list(found.fires)
