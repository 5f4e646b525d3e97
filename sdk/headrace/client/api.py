"""The client: a typed method for every call of the server. Messages in, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from google.protobuf.message import Message

from headrace.client.backfills import BackfillCalls
from headrace.client.cache import CacheCalls
from headrace.client.calls import FIRST_CONTACT_SECONDS, Caller, backoff_seconds, is_transient
from headrace.client.channel import open_channel, request_metadata
from headrace.client.deployments import DeploymentCalls
from headrace.client.discovery import connect
from headrace.client.events import EventCalls
from headrace.client.locks import LockCalls
from headrace.client.rerunning import RerunCalls
from headrace.client.schedules import ScheduleCalls
from headrace.client.work_pools import WorkPoolCalls
from headrace.client.workers import WorkerCalls
from headrace.core.errors import ResumeTokenExpired, ServerUnavailable, ServiceError
from headrace.core.ids import new_id
from headrace.core.limits import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX
from headrace.settings import Settings, get_current_settings
from headrace.v1 import (
    admin_service_pb2 as admin,
)
from headrace.v1 import (
    flow_service_pb2 as flows,
)
from headrace.v1 import (
    log_service_pb2 as logs,
)
from headrace.v1 import (
    record_service_pb2 as record,
)
from headrace.v1 import (
    run_service_pb2 as runs,
)
from headrace.v1 import (
    span_service_pb2 as spans,
)
from headrace.v1.flow_pb2 import Flow
from headrace.v1.log_pb2 import LogEntry, LogFilter
from headrace.v1.run_pb2 import Run, RunFilter, RunView
from headrace.v1.span_pb2 import Span
from headrace.v1.state_pb2 import State

__all__ = ["HeadraceClient"]

SILENCE_SECONDS: Final = 45.0
"""A stream says at least every 15 s that it is alive; after this long it is taken for broken."""

Page = TypeVar("Page")
Event = TypeVar("Event", runs.WatchRunsResponse, runs.WatchRunInputsResponse, logs.TailLogsResponse)


class HeadraceClient(
    BackfillCalls,
    CacheCalls,
    DeploymentCalls,
    EventCalls,
    LockCalls,
    RerunCalls,
    ScheduleCalls,
    WorkPoolCalls,
    WorkerCalls,
):
    """Talks to the server that the settings name; an async context manager.

    With the address `auto` the home's server is found, or started when there is none. Every method raises
    the class of `headrace.core.errors` that the server raised, or `ServerUnavailable`. Calls that change
    nothing, or may be repeated safely, are repeated while the server is away.

    Args:
        settings: instead of those in force.
        start_server: whether a server may be started for the address `auto`.
    """

    def __init__(self, settings: Settings | None = None, *, start_server: bool = True) -> None:
        self._settings = settings or get_current_settings()
        self._start_server = start_server
        self._channel: Any = None
        self._caller: Caller | None = None

    async def __aenter__(self) -> Self:
        settings = self._settings
        if settings.api_url == "auto":
            address, self._channel = await connect(settings, start_server=self._start_server)
        elif settings.api_url == "off":
            raise ServerUnavailable("The server is switched off: HEADRACE_API_URL is off.")
        else:
            address, self._channel = settings.api_url, open_channel(settings.api_url)
        self._caller = Caller(
            self._channel,
            address,
            request_metadata(settings.api_auth_string),
            settings.api_request_timeout_seconds,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._caller = None
        await self._channel.close(None)

    @property
    def address(self) -> str:
        """`host:port` of the server."""
        return self._open_caller().address

    def _open_caller(self) -> Caller:
        if self._caller is None:
            raise RuntimeError("the client is not open: use it as `async with get_client() as client:`")
        return self._caller

    async def _call(
        self, method: str, request: Message, response: Callable[[bytes], Page], timeout: float | None
    ) -> Page:
        return await self._open_caller().unary(f"/headrace.v1.{method}", request, response, timeout)

    # Runs.

    async def create_run(
        self, request: runs.CreateRunRequest, *, timeout: float | None = None
    ) -> runs.CreateRunResponse:
        """Create a run, once per id and per idempotency key."""
        answer = runs.CreateRunResponse.FromString
        return await self._call("RunService/CreateRun", request, answer, timeout)

    async def get_run(
        self,
        run_id: str,
        *,
        view: RunView.ValueType = RunView.RUN_VIEW_UNSPECIFIED,
        timeout: float | None = None,
    ) -> Run:
        """The run with that id."""
        request = runs.GetRunRequest(run_id=run_id, view=view)
        answer = runs.GetRunResponse.FromString
        return (await self._call("RunService/GetRun", request, answer, timeout)).run

    async def list_runs(
        self, request: runs.ListRunsRequest, *, timeout: float | None = None
    ) -> runs.ListRunsResponse:
        """One page of runs."""
        answer = runs.ListRunsResponse.FromString
        return await self._call("RunService/ListRuns", request, answer, timeout)

    async def iter_runs(
        self,
        filter: RunFilter | None = None,
        *,
        order: runs.RunOrder.ValueType = runs.RunOrder.RUN_ORDER_UNSPECIFIED,
        view: RunView.ValueType = RunView.RUN_VIEW_UNSPECIFIED,
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> AsyncIterator[Run]:
        """Every run that passes `filter`, fetched page by page."""
        request = runs.ListRunsRequest(filter=filter, order=order, view=view, page_size=page_size)
        while True:
            page = await self.list_runs(request)
            for run in page.runs:
                yield run
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def count_runs(
        self, filter: RunFilter | None = None, *, timeout: float | None = None
    ) -> runs.CountRunsResponse:
        """How many runs pass `filter`, by state type."""
        request = runs.CountRunsRequest(filter=filter)
        answer = runs.CountRunsResponse.FromString
        return await self._call("RunService/CountRuns", request, answer, timeout)

    async def aggregate_runs(
        self, request: runs.AggregateRunsRequest, *, timeout: float | None = None
    ) -> runs.AggregateRunsResponse:
        """Counts by state in equal buckets of time."""
        answer = runs.AggregateRunsResponse.FromString
        return await self._call("RunService/AggregateRuns", request, answer, timeout)

    async def update_run(self, request: runs.UpdateRunRequest, *, timeout: float | None = None) -> Run:
        """Change the fields in the request's mask; the run as it is then."""
        answer = runs.UpdateRunResponse.FromString
        return (await self._call("RunService/UpdateRun", request, answer, timeout)).run

    async def delete_run(
        self, run_id: str, *, force: bool = False, timeout: float | None = None
    ) -> runs.DeleteRunResponse:
        """Delete the run and every run below it; `force`: even while a process may be executing it."""
        request = runs.DeleteRunRequest(run_id=run_id, force=force)
        answer = runs.DeleteRunResponse.FromString
        return await self._call("RunService/DeleteRun", request, answer, timeout)

    async def propose_state(
        self, request: runs.ProposeStateRequest, *, timeout: float | None = None
    ) -> runs.ProposeStateResponse:
        """Ask whether a run may enter a state; the verdict is data."""
        answer = runs.ProposeStateResponse.FromString
        return await self._call("RunService/ProposeState", request, answer, timeout)

    async def list_states(
        self, request: runs.ListStatesRequest, *, timeout: float | None = None
    ) -> runs.ListStatesResponse:
        """One page of a run's states, oldest first."""
        answer = runs.ListStatesResponse.FromString
        return await self._call("RunService/ListStates", request, answer, timeout)

    async def iter_states(self, run_id: str, *, page_size: int = PAGE_SIZE_DEFAULT) -> AsyncIterator[State]:
        """Every state of a run, oldest first."""
        request = runs.ListStatesRequest(run_id=run_id, page_size=page_size)
        while True:
            page = await self.list_states(request)
            for state in page.states:
                yield state
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def list_attempts(self, run_id: str, *, timeout: float | None = None) -> runs.ListAttemptsResponse:
        """The tries of a run's body."""
        request = runs.ListAttemptsRequest(run_id=run_id)
        answer = runs.ListAttemptsResponse.FromString
        return await self._call("RunService/ListAttempts", request, answer, timeout)

    async def get_run_graph(
        self, run_id: str, *, max_nodes: int = 0, timeout: float | None = None
    ) -> runs.GetRunGraphResponse:
        """The runs below one run, and what each waited for; 0 nodes means the server's default."""
        request = runs.GetRunGraphRequest(run_id=run_id, max_nodes=max_nodes)
        answer = runs.GetRunGraphResponse.FromString
        return await self._call("RunService/GetRunGraph", request, answer, timeout)

    async def take_over_run(self, run_id: str, *, force: bool = False, timeout: float | None = None) -> Run:
        """Become the next attempt of a flow run, which `headrace.execution.attempts` can then execute.

        Args:
            run_id: a flow run that was started on its own, and has not completed.
            force: also take it from a process that may be executing it.
            timeout: seconds for this call.

        Returns:
            The run: its `attempt` and `fence` are the caller's from now on.

        Raises:
            RunActive: a process may be executing it.
            TransitionNotAllowed: it has completed, is paused, or is being cancelled.
        """
        request = runs.TakeOverRunRequest(run_id=run_id, state_id=new_id(), force=force)
        answer = runs.TakeOverRunResponse.FromString
        return (await self._call("RunService/TakeOverRun", request, answer, timeout)).run

    async def list_run_steps(
        self, request: runs.ListRunStepsRequest, *, timeout: float | None = None
    ) -> runs.ListRunStepsResponse:
        """One page of the steps that a run has called, oldest first."""
        answer = runs.ListRunStepsResponse.FromString
        return await self._call("RunService/ListRunSteps", request, answer, timeout)

    async def iter_run_steps(
        self, run_id: str, *, max_data_bytes: int = 0, page_size: int = PAGE_SIZE_MAX
    ) -> AsyncIterator[runs.RunStep]:
        """Every step that the run owns, oldest first, without results that are larger."""
        request = runs.ListRunStepsRequest(run_id=run_id, max_data_bytes=max_data_bytes, page_size=page_size)
        while True:
            page = await self.list_run_steps(request)
            for step in page.steps:
                yield step
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch_runs(
        self,
        filter: RunFilter | None = None,
        *,
        view: RunView.ValueType = RunView.RUN_VIEW_UNSPECIFIED,
        resume_token: str = "",
    ) -> AsyncIterator[runs.WatchRunsResponse]:
        """The current set, a bookmark, then every change, over any number of connections.

        A run can come twice. After a break that the server's memory of changes does not cover, the current
        set comes again, ended by a bookmark with `initial_sync_done`: runs that are not in it are gone.

        Raises:
            ServerUnavailable: the server has been away for the time limit of a call.
        """
        request = runs.WatchRunsRequest(filter=filter, view=view, resume_token=resume_token)
        answer = runs.WatchRunsResponse.FromString
        async with aclosing(self._follow("RunService/WatchRuns", request, answer)) as events:
            async for event in events:
                yield event

    # Cancelling, pauses, and what runs are told.

    async def cancel_run(
        self,
        run_id: str,
        *,
        reason: str = "",
        grace_seconds: float | None = None,
        timeout: float | None = None,
    ) -> runs.ProposeStateResponse:
        """End a run before its body does; the verdict is data.

        Args:
            run_id: a flow run, or a task run at the top of its own tree.
            reason: why; the message of the run's last state.
            grace_seconds: how long its process may take before the server ends the run itself; None: 30.
            timeout: seconds for this call.

        Returns:
            Accepted: the run is being cancelled. Rejected: no process held it, and it is CANCELLED. Aborted:
            it had ended before.
        """
        request = runs.CancelRunRequest(run_id=run_id, state_id=new_id(), reason=reason)
        if grace_seconds is not None:
            request.grace.FromTimedelta(timedelta(seconds=grace_seconds))
        answer = runs.CancelRunResponse.FromString
        return (await self._call("RunService/CancelRun", request, answer, timeout)).verdict

    async def pause_run(
        self, request: runs.PauseRunRequest, *, timeout: float | None = None
    ) -> runs.ProposeStateResponse:
        """Pause or suspend a running run from outside; the verdict is data."""
        answer = runs.PauseRunResponse.FromString
        return (await self._call("RunService/PauseRun", request, answer, timeout)).verdict

    async def resume_run(
        self, request: runs.ResumeRunRequest, *, timeout: float | None = None
    ) -> runs.ProposeStateResponse:
        """Let a paused run go on.

        Returns:
            The verdict: aborted when the run is not paused, rejected when its pause was over.

        Raises:
            FieldsInvalid: the input does not fit; the run stays paused.
        """
        answer = runs.ResumeRunResponse.FromString
        return (await self._call("RunService/ResumeRun", request, answer, timeout)).verdict

    async def send_run_input(self, said: runs.RunInput, *, timeout: float | None = None) -> runs.RunInput:
        """Tell a run something, once per key.

        Raises:
            ObjectAlreadyExists: it was told something else under the key.
        """
        request = runs.SendRunInputRequest(input=said)
        answer = runs.SendRunInputResponse.FromString
        return (await self._call("RunService/SendRunInput", request, answer, timeout)).input

    async def list_run_inputs(
        self, request: runs.ListRunInputsRequest, *, timeout: float | None = None
    ) -> runs.ListRunInputsResponse:
        """One page of what a run was told, oldest first."""
        answer = runs.ListRunInputsResponse.FromString
        return await self._call("RunService/ListRunInputs", request, answer, timeout)

    async def delete_run_input(self, run_id: str, key: str, *, timeout: float | None = None) -> None:
        """Forget what a run was told under the key."""
        request = runs.DeleteRunInputRequest(run_id=run_id, key=key)
        answer = runs.DeleteRunInputResponse.FromString
        await self._call("RunService/DeleteRunInput", request, answer, timeout)

    async def watch_run_inputs(
        self, run_id: str, key_prefix: str = "", *, resume_token: str = ""
    ) -> AsyncIterator[runs.WatchRunInputsResponse]:
        """What a run was told, a bookmark, then everything new, over any number of connections.

        Raises:
            ObjectNotFound: there is no such run.
            ServerUnavailable: the server has been away for the time limit of a call.
        """
        request = runs.WatchRunInputsRequest(run_id=run_id, key_prefix=key_prefix, resume_token=resume_token)
        answer = runs.WatchRunInputsResponse.FromString
        async with aclosing(self._follow("RunService/WatchRunInputs", request, answer)) as events:
            async for event in events:
                yield event

    # Flows.

    async def get_flow(
        self, *, id: str = "", name: str = "", timeout: float | None = None
    ) -> flows.GetFlowResponse:
        """The flow with that id, or that name, and its runs by state."""
        request = flows.GetFlowRequest(id=id) if id else flows.GetFlowRequest(name=name)
        answer = flows.GetFlowResponse.FromString
        return await self._call("FlowService/GetFlow", request, answer, timeout)

    async def list_flows(
        self, request: flows.ListFlowsRequest, *, timeout: float | None = None
    ) -> flows.ListFlowsResponse:
        """One page of flows, by name."""
        answer = flows.ListFlowsResponse.FromString
        return await self._call("FlowService/ListFlows", request, answer, timeout)

    async def iter_flows(
        self, name_contains: str = "", *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> AsyncIterator[Flow]:
        """Every flow whose name contains the text, by name."""
        request = flows.ListFlowsRequest(name_contains=name_contains, page_size=page_size)
        while True:
            page = await self.list_flows(request)
            for flow in page.flows:
                yield flow
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete_flow(
        self, *, id: str = "", name: str = "", force: bool = False, timeout: float | None = None
    ) -> flows.DeleteFlowResponse:
        """Delete a flow and all its runs; `force`: even while processes may be executing some."""
        request = flows.DeleteFlowRequest(force=force)
        if id:
            request.id = id
        else:
            request.name = name
        answer = flows.DeleteFlowResponse.FromString
        return await self._call("FlowService/DeleteFlow", request, answer, timeout)

    # Logs and spans.

    async def list_logs(
        self, request: logs.ListLogsRequest, *, timeout: float | None = None
    ) -> logs.ListLogsResponse:
        """One page of log lines."""
        answer = logs.ListLogsResponse.FromString
        return await self._call("LogService/ListLogs", request, answer, timeout)

    async def iter_logs(
        self,
        filter: LogFilter | None = None,
        *,
        order: logs.LogOrder.ValueType = logs.LogOrder.LOG_ORDER_UNSPECIFIED,
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> AsyncIterator[LogEntry]:
        """Every log line that passes `filter`."""
        request = logs.ListLogsRequest(filter=filter, order=order, page_size=page_size)
        while True:
            page = await self.list_logs(request)
            for entry in page.logs:
                yield entry
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def tail_logs(
        self, filter: LogFilter | None = None, *, backfill: int = 0, resume_token: str = ""
    ) -> AsyncIterator[logs.TailLogsResponse]:
        """The last `backfill` lines, then every new one, over any number of connections.

        Raises:
            ServerUnavailable: the server has been away for the time limit of a call.
        """
        request = logs.TailLogsRequest(filter=filter, backfill=backfill, resume_token=resume_token)
        answer = logs.TailLogsResponse.FromString
        async with aclosing(self._follow("LogService/TailLogs", request, answer)) as events:
            async for event in events:
                yield event

    async def list_spans(
        self, request: spans.ListSpansRequest, *, timeout: float | None = None
    ) -> spans.ListSpansResponse:
        """One page of spans, by start time."""
        answer = spans.ListSpansResponse.FromString
        return await self._call("SpanService/ListSpans", request, answer, timeout)

    async def iter_spans(
        self, filter: spans.SpanFilter, *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> AsyncIterator[Span]:
        """Every span that passes `filter`."""
        request = spans.ListSpansRequest(filter=filter, page_size=page_size)
        while True:
            page = await self.list_spans(request)
            for span in page.spans:
                yield span
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    # Recording in single calls, and the server itself.

    async def record_batch(
        self, request: record.RecordBatchRequest, *, timeout: float | None = None
    ) -> record.RecordBatchResponse:
        """Record one batch; the call to repeat when it is not known whether it arrived."""
        answer = record.RecordBatchResponse.FromString
        return await self._call("RecordService/RecordBatch", request, answer, timeout)

    async def get_server_info(self, *, timeout: float | None = None) -> admin.GetServerInfoResponse:
        """Version, protocol, limits and database of the server."""
        answer = admin.GetServerInfoResponse.FromString
        return await self._call("AdminService/GetServerInfo", admin.GetServerInfoRequest(), answer, timeout)

    async def _follow(
        self, method: str, request: Any, response: Callable[[bytes], Event]
    ) -> AsyncGenerator[Event]:
        """A stream with resume tokens, connected anew whenever it breaks."""
        caller = self._open_caller()
        loop = asyncio.get_running_loop()
        limit, attempt, last_heard = FIRST_CONTACT_SECONDS, 0, loop.time()
        while True:
            attempt += 1
            stream = caller.stream(f"/headrace.v1.{method}", request, response, SILENCE_SECONDS)
            try:
                async with aclosing(stream) as events:
                    async for event in events:
                        limit, attempt, last_heard = caller.timeout_seconds, 1, loop.time()
                        request.resume_token = event.resume_token or request.resume_token
                        yield event
                broken: ServiceError = ServerUnavailable(f"The server at {caller.address} ended the stream.")
            except ResumeTokenExpired:
                request.resume_token = ""
                continue
            except ServiceError as error:
                broken = error
            if not is_transient(broken) or loop.time() - last_heard > limit:
                raise broken
            await asyncio.sleep(backoff_seconds(attempt, broken))
