"""`headrace.v1.SpanService`."""

from __future__ import annotations

from headrace.v1 import span_service_pb2 as pb
from headrace_services.rpc.call import Call
from headrace_services.storage.database import Database

__all__ = ["SpanService"]


class SpanService:
    """OpenTelemetry spans of runs."""

    def __init__(self, database: Database) -> None:
        self._reader = database.reader

    async def ListSpans(self, request: pb.ListSpansRequest, call: Call) -> pb.ListSpansResponse:
        spans, token = await self._reader.list_spans(request.filter, request.page_size, request.page_token)
        return pb.ListSpansResponse(spans=spans, next_page_token=token)
