"""The server that commands ask, and its lists page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc.aio

from headrace.core.limits import PAGE_SIZE_MAX
from headrace.settings import get_current_settings
from headrace.v1.admin_service_pb2_grpc import AdminServiceStub
from headrace.v1.flow_service_pb2 import ListFlowsRequest
from headrace.v1.flow_service_pb2_grpc import FlowServiceStub
from headrace.v1.log_service_pb2 import ListLogsRequest
from headrace.v1.log_service_pb2_grpc import LogServiceStub
from headrace.v1.run_service_pb2 import ListRunsRequest, ListStatesRequest
from headrace.v1.run_service_pb2_grpc import RunServiceStub
from headrace.v1.span_service_pb2 import ListSpansRequest
from headrace.v1.span_service_pb2_grpc import SpanServiceStub

if TYPE_CHECKING:
    from headrace.v1.flow_pb2 import Flow
    from headrace.v1.log_pb2 import LogEntry
    from headrace.v1.run_pb2 import Run
    from headrace.v1.span_pb2 import Span
    from headrace.v1.state_pb2 import State

__all__ = ["Session", "connect", "flows", "logs", "runs", "spans", "states"]


class Session:
    """One connection to the server; the services by name."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.runs = RunServiceStub(channel)
        self.flows = FlowServiceStub(channel)
        self.logs = LogServiceStub(channel)
        self.spans = SpanServiceStub(channel)
        self.admin = AdminServiceStub(channel)


@asynccontextmanager
async def connect() -> AsyncGenerator[Session]:
    """The server of the settings in force."""
    async with grpc.aio.insecure_channel(get_current_settings().api_url) as channel:
        yield Session(channel)


def _page_size(left: int | None) -> int:
    return PAGE_SIZE_MAX if left is None else min(left, PAGE_SIZE_MAX)


async def runs(session: Session, request: ListRunsRequest, limit: int) -> AsyncGenerator[Run]:
    """Runs of a list, at most `limit` (0: all), page after page as they are consumed."""
    left = limit or None
    while True:
        request.page_size = _page_size(left)
        page = await session.runs.ListRuns(request)
        for item in page.runs:
            yield item
        left = None if left is None else left - len(page.runs)
        if not page.next_page_token or left == 0:
            return
        request.page_token = page.next_page_token


async def flows(session: Session, request: ListFlowsRequest, limit: int) -> AsyncGenerator[Flow]:
    """Flows of a list, at most `limit` (0: all)."""
    left = limit or None
    while True:
        request.page_size = _page_size(left)
        page = await session.flows.ListFlows(request)
        for item in page.flows:
            yield item
        left = None if left is None else left - len(page.flows)
        if not page.next_page_token or left == 0:
            return
        request.page_token = page.next_page_token


async def logs(session: Session, request: ListLogsRequest) -> AsyncGenerator[LogEntry]:
    """Every log line of a list; stop consuming to stop reading."""
    request.page_size = PAGE_SIZE_MAX
    while True:
        page = await session.logs.ListLogs(request)
        for item in page.logs:
            yield item
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def spans(session: Session, request: ListSpansRequest) -> AsyncGenerator[Span]:
    """Every span of a list."""
    request.page_size = PAGE_SIZE_MAX
    while True:
        page = await session.spans.ListSpans(request)
        for item in page.spans:
            yield item
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def states(session: Session, run_id: str) -> AsyncGenerator[State]:
    """Every state a run went through, oldest first."""
    request = ListStatesRequest(run_id=run_id, page_size=PAGE_SIZE_MAX)
    while True:
        page = await session.runs.ListStates(request)
        for item in page.states:
            yield item
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
