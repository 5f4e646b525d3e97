"""`headrace.v1.RunService`: each method asks storage once and hands the answer back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

from headrace.core.errors import FieldsInvalid, ObjectNotFound
from headrace.v1 import run_service_pb2 as pb
from headrace.v1.run_pb2 import RUN_KIND_UNSPECIFIED, RUN_VIEW_BASIC, RUN_VIEW_FULL
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLING, STATE_TYPE_PAUSED, State
from headrace_services.rpc.call import Call
from headrace_services.rpc.inputs import InputWatch
from headrace_services.rpc.watch import RunWatch, WatchSettings
from headrace_services.storage.database import Database

__all__ = ["RunService"]


class RunService:
    """Runs: what was asked for, what happened, what is happening."""

    def __init__(
        self,
        database: Database,
        watch: WatchSettings,
        directed: Callable[[], None],
        credits: Callable[[], Mapping[str, int]],
    ) -> None:
        self._database = database
        self._reader = database.reader
        self._writer = database.writer
        self._watch = watch
        self._directed = directed
        self._credits = credits

    async def CreateRun(self, request: pb.CreateRunRequest, call: Call) -> pb.CreateRunResponse:
        if request.run.kind == RUN_KIND_UNSPECIFIED:
            raise FieldsInvalid.of("run.kind", "must be set: RUN_KIND_FLOW or RUN_KIND_TASK")
        if call.principal and not request.run.created_by:
            request.run.created_by = call.principal
        run, existed = await self._writer.create_run(
            request.run, request.idempotency_key, request.on_conflict
        )
        return pb.CreateRunResponse(run=run, existed=existed)

    async def GetRun(self, request: pb.GetRunRequest, call: Call) -> pb.GetRunResponse:
        run = await self._reader.get_run(request.run_id, full=request.view != RUN_VIEW_BASIC)
        return pb.GetRunResponse(run=run)

    async def ListRuns(self, request: pb.ListRunsRequest, call: Call) -> pb.ListRunsResponse:
        runs, token = await self._reader.list_runs(
            request.filter,
            request.order,
            request.page_size,
            request.page_token,
            full=request.view == RUN_VIEW_FULL,
        )
        return pb.ListRunsResponse(runs=runs, next_page_token=token)

    async def CountRuns(self, request: pb.CountRunsRequest, call: Call) -> pb.CountRunsResponse:
        return pb.CountRunsResponse(counts=await self._reader.count_runs(request.filter))

    async def AggregateRuns(self, request: pb.AggregateRunsRequest, call: Call) -> pb.AggregateRunsResponse:
        start: int = getattr(request, "from").ToMicroseconds()
        width = request.bucket_width.ToMicroseconds()
        if width <= 0:
            raise FieldsInvalid.of("bucket_width", "must be longer than zero")
        buckets = await self._reader.aggregate_runs(
            request.filter, start, request.until.ToMicroseconds(), width
        )
        return pb.AggregateRunsResponse(buckets=buckets)

    async def UpdateRun(self, request: pb.UpdateRunRequest, call: Call) -> pb.UpdateRunResponse:
        if not request.update_mask.paths:
            raise FieldsInvalid.of("update_mask", "must name the fields to change")
        run = await self._writer.update_run(request.run, request.update_mask.paths, request.request_id)
        return pb.UpdateRunResponse(run=run)

    async def DeleteRun(self, request: pb.DeleteRunRequest, call: Call) -> pb.DeleteRunResponse:
        deleted = await self._writer.delete_run(request.run_id, request.force)
        if not deleted:
            raise ObjectNotFound.of("run", request.run_id)
        return pb.DeleteRunResponse(deleted_runs=deleted)

    async def ProposeState(self, request: pb.ProposeStateRequest, call: Call) -> pb.ProposeStateResponse:
        attempt = request.attempt if request.HasField("attempt") else None
        if attempt is not None and request.force:
            raise FieldsInvalid.of("force", "is for administrators; an executor's attempt follows the rules")
        verdict = await self._writer.propose_state(
            request.run_id, attempt, request.state, request.force, call.principal
        )
        if request.state.type == STATE_TYPE_CANCELLING:
            self._directed()
        return verdict

    async def CancelRun(self, request: pb.CancelRunRequest, call: Call) -> pb.CancelRunResponse:
        state = State(id=request.state_id, type=STATE_TYPE_CANCELLING, message=request.reason)
        state.event_time.FromMicroseconds(self._watch.clock.now())
        state.cancel.requested_by = call.principal
        if request.HasField("grace"):
            state.cancel.grace.CopyFrom(request.grace)
        verdict = await self._writer.cancel_run(request.run_id, state)
        self._directed()
        return pb.CancelRunResponse(verdict=verdict)

    async def RetryRun(self, request: pb.RetryRunRequest, call: Call) -> pb.RetryRunResponse:
        at = request.scheduled_time.ToMicroseconds() if request.HasField("scheduled_time") else None
        verdict = await self._writer.retry_run(request.run_id, request.state_id, at)
        return pb.RetryRunResponse(verdict=verdict)

    async def RescheduleRun(self, request: pb.RescheduleRunRequest, call: Call) -> pb.RescheduleRunResponse:
        at = request.scheduled_time.ToMicroseconds()
        verdict = await self._writer.reschedule_run(request.run_id, request.state_id, at)
        return pb.RescheduleRunResponse(verdict=verdict)

    async def ExplainRun(self, request: pb.ExplainRunRequest, call: Call) -> pb.ExplainRunResponse:
        return await self._writer.explain_run(request.run_id, self._credits())

    async def PauseRun(self, request: pb.PauseRunRequest, call: Call) -> pb.PauseRunResponse:
        state = State(id=request.state_id, type=STATE_TYPE_PAUSED)
        now = self._watch.clock.now()
        state.event_time.FromMicroseconds(now)
        state.name = "Suspended" if request.suspend else "Paused"
        state.paused.reschedule = request.suspend
        state.paused.pause_key = request.pause_key
        if request.HasField("timeout"):
            state.paused.timeout_time.FromMicroseconds(now + request.timeout.ToMicroseconds())
        verdict = await self._writer.propose_state(request.run_id, None, state, False, call.principal)
        self._directed()
        return pb.PauseRunResponse(verdict=verdict)

    async def ResumeRun(self, request: pb.ResumeRunRequest, call: Call) -> pb.ResumeRunResponse:
        verdict = await self._writer.resume_run(request.run_id, request.state_id, request.input)
        return pb.ResumeRunResponse(verdict=verdict)

    async def TakeOverRun(self, request: pb.TakeOverRunRequest, call: Call) -> pb.TakeOverRunResponse:
        run = await self._writer.take_over_run(request.run_id, request.state_id, request.force)
        return pb.TakeOverRunResponse(run=run)

    async def SendRunInput(self, request: pb.SendRunInputRequest, call: Call) -> pb.SendRunInputResponse:
        return pb.SendRunInputResponse(input=await self._writer.send_input(request.input))

    async def ListRunInputs(self, request: pb.ListRunInputsRequest, call: Call) -> pb.ListRunInputsResponse:
        inputs, token = await self._reader.list_inputs(
            request.run_id, request.key_prefix, request.keys, request.page_size, request.page_token
        )
        return pb.ListRunInputsResponse(inputs=inputs, next_page_token=token)

    async def DeleteRunInput(
        self, request: pb.DeleteRunInputRequest, call: Call
    ) -> pb.DeleteRunInputResponse:
        await self._writer.delete_input(request.run_id, request.key)
        return pb.DeleteRunInputResponse()

    async def WatchRunInputs(
        self, request: pb.WatchRunInputsRequest, call: Call
    ) -> AsyncIterator[pb.WatchRunInputsResponse]:
        async for response in InputWatch(self._database, self._watch, request).responses():
            yield response

    async def ListStates(self, request: pb.ListStatesRequest, call: Call) -> pb.ListStatesResponse:
        states, token = await self._reader.list_states(request.run_id, request.page_size, request.page_token)
        return pb.ListStatesResponse(states=states, next_page_token=token)

    async def ListAttempts(self, request: pb.ListAttemptsRequest, call: Call) -> pb.ListAttemptsResponse:
        return pb.ListAttemptsResponse(attempts=await self._reader.list_attempts(request.run_id))

    async def GetRunGraph(self, request: pb.GetRunGraphRequest, call: Call) -> pb.GetRunGraphResponse:
        nodes, truncated = await self._reader.run_graph(request.run_id, request.max_nodes)
        return pb.GetRunGraphResponse(nodes=nodes, truncated=truncated)

    async def ListRunSteps(self, request: pb.ListRunStepsRequest, call: Call) -> pb.ListRunStepsResponse:
        steps, token = await self._reader.run_steps(
            request.run_id, request.page_size, request.page_token, request.max_data_bytes
        )
        return pb.ListRunStepsResponse(steps=steps, next_page_token=token)

    async def WatchRuns(
        self, request: pb.WatchRunsRequest, call: Call
    ) -> AsyncIterator[pb.WatchRunsResponse]:
        watch = RunWatch(self._database, self._watch, request)
        async for response in watch.responses():
            yield response
