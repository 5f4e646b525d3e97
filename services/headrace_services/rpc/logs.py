"""`headrace.v1.LogService`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from headrace.v1 import log_service_pb2 as pb
from headrace_services.rpc.call import Call
from headrace_services.rpc.watch import LogTail, WatchSettings
from headrace_services.storage.database import Database

__all__ = ["LogService"]


class LogService:
    """Log lines of runs."""

    def __init__(self, database: Database, watch: WatchSettings) -> None:
        self._database = database
        self._watch = watch

    async def ListLogs(self, request: pb.ListLogsRequest, call: Call) -> pb.ListLogsResponse:
        logs, token = await self._database.reader.list_logs(
            request.filter, request.order, request.page_size, request.page_token
        )
        return pb.ListLogsResponse(logs=logs, next_page_token=token)

    async def TailLogs(self, request: pb.TailLogsRequest, call: Call) -> AsyncIterator[pb.TailLogsResponse]:
        tail = LogTail(self._database, self._watch, request)
        async for response in tail.responses():
            yield response
