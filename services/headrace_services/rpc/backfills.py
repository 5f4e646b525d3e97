"""`headrace.v1.BackfillService`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from headrace.core.ids import new_id
from headrace.v1 import backfill_service_pb2 as pb
from headrace.v1.backfill_pb2 import (
    BACKFILL_ACTION_LEAVE,
    BACKFILL_ORDER_NEWEST,
    BACKFILL_STATE_CANCELLING,
    BACKFILL_STATE_PAUSED,
    BACKFILL_STATE_RUNNING,
    Backfill,
    BackfillState,
)
from headrace.v1.deployment_service_pb2 import DeploymentKey
from headrace.v1.schedule_service_pb2 import BackfillScheduleRequest, BackfillScheduleResponse
from headrace_services.domain.backfills import count_fires, filled
from headrace_services.domain.deployment_checks import schedule_violations
from headrace_services.domain.run_parameters import invalid
from headrace_services.rpc.call import Call
from headrace_services.storage.backfill_commands import (
    FORESEEN,
    BackfillMade,
    CreateBackfill,
    SetBackfillState,
    range_of,
)
from headrace_services.storage.database import Database
from headrace_services.storage.deployment_codec import declared
from headrace_services.storage.schedule_rows import ScheduleRow, json_object, plan_of

__all__ = ["BackfillService"]


class BackfillService:
    """Ranges of the past of schedules.

    Args:
        database: where they are.
        changed: called when a backfill may have something to do.
    """

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self._writer = database.writer
        self._reader = database.reader.backfills
        self._schedules = database.reader.schedules
        self._deployments = database.reader.deployments
        self._changed = changed

    async def CreateBackfill(
        self, request: pb.CreateBackfillRequest, call: Call
    ) -> pb.CreateBackfillResponse:
        made = await self._create(request.backfill, call, dry_run=request.dry_run)
        return pb.CreateBackfillResponse(backfill=made.backfill, runs=made.foreseen)

    async def at_once(self, request: BackfillScheduleRequest, call: Call) -> BackfillScheduleResponse:
        """A backfill of at most `FORESEEN` instants whose runs are there when it is answered."""
        asked = Backfill(
            id=new_id(), schedule_id=request.schedule_id, limit=FORESEEN, parameters=request.parameters
        )
        getattr(asked, "from").CopyFrom(getattr(request, "from"))
        asked.until.CopyFrom(request.until)
        if request.newest_first:
            asked.order = BACKFILL_ORDER_NEWEST
        if request.HasField("priority"):
            asked.priority = request.priority
        made = await self._create(asked, call, dry_run=request.dry_run, at_once=True)
        answer = BackfillScheduleResponse(backfill_id="" if request.dry_run else made.backfill.id)
        for run in made.foreseen:
            existed = run.action == BACKFILL_ACTION_LEAVE
            answer.fires.add(fire_time=run.fire_time, run_id=run.run_id, existed=existed)
        return answer

    async def _create(
        self, asked: Backfill, call: Call, *, dry_run: bool, at_once: bool = False
    ) -> BackfillMade:
        rest = range_of(asked)
        schedule = await self._schedules.row(asked.schedule_id)
        await self._check_parameters(asked, schedule)
        # Long ranges take a while to count: not on the event loop, nor in a transaction.
        total = await asyncio.to_thread(count_fires, plan_of(schedule.spec).timing, rest)
        made = await self._writer.do(
            CreateBackfill(asked, schedule.spec, total, call.principal, dry_run=dry_run, at_once=at_once)
        )
        self._changed()
        return made

    async def _check_parameters(self, asked: Backfill, schedule: ScheduleRow) -> None:
        """See that the flow takes the parameters, as they are for the beginning of the range.

        Raises:
            ParametersInvalid: it does not; every problem has its path.
        """
        given = filled(json_object(asked.parameters, "backfill.parameters"), range_of(asked).begin)
        said = declared(await self._deployments.row(DeploymentKey(id=schedule.deployment_id)))
        wrong = list(schedule_violations(said, json.dumps(given), "backfill"))
        if wrong:
            raise invalid(wrong, parameters=True)

    async def GetBackfill(self, request: pb.GetBackfillRequest, call: Call) -> pb.GetBackfillResponse:
        return pb.GetBackfillResponse(backfill=await self._reader.get(request.backfill_id))

    async def ListBackfills(self, request: pb.ListBackfillsRequest, call: Call) -> pb.ListBackfillsResponse:
        backfills, token = await self._reader.page(
            request.deployment_ids, request.states, request.page_size, request.page_token
        )
        return pb.ListBackfillsResponse(backfills=backfills, next_page_token=token)

    async def ListBackfillRuns(
        self, request: pb.ListBackfillRunsRequest, call: Call
    ) -> pb.ListBackfillRunsResponse:
        runs, token = await self._reader.runs(request.backfill_id, request.page_size, request.page_token)
        return pb.ListBackfillRunsResponse(runs=runs, next_page_token=token)

    async def PauseBackfill(self, request: pb.PauseBackfillRequest, call: Call) -> pb.PauseBackfillResponse:
        return pb.PauseBackfillResponse(backfill=await self._set(request.backfill_id, BACKFILL_STATE_PAUSED))

    async def ResumeBackfill(
        self, request: pb.ResumeBackfillRequest, call: Call
    ) -> pb.ResumeBackfillResponse:
        return pb.ResumeBackfillResponse(
            backfill=await self._set(request.backfill_id, BACKFILL_STATE_RUNNING)
        )

    async def CancelBackfill(
        self, request: pb.CancelBackfillRequest, call: Call
    ) -> pb.CancelBackfillResponse:
        return pb.CancelBackfillResponse(
            backfill=await self._set(request.backfill_id, BACKFILL_STATE_CANCELLING)
        )

    async def _set(self, backfill_id: str, state: BackfillState.ValueType) -> Backfill:
        backfill = await self._writer.do(SetBackfillState(backfill_id, state))
        self._changed()
        return backfill
