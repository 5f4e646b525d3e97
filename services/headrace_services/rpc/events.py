"""`headrace.v1.EventService`."""

from __future__ import annotations

from headrace.v1 import event_service_pb2 as pb
from headrace_services.rpc.call import Call
from headrace_services.storage.database import Database

__all__ = ["EventService"]


class EventService:
    """What happened."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListEvents(self, request: pb.ListEventsRequest, call: Call) -> pb.ListEventsResponse:
        events, token = await self._database.reader.list_events(
            request.filter, request.order, request.page_size, request.page_token
        )
        return pb.ListEventsResponse(events=events, next_page_token=token)
