"""Calls of `EventService`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from headrace.client.service_calls import ServiceCalls
from headrace.core.limits import PAGE_SIZE_DEFAULT
from headrace.v1 import event_service_pb2 as events
from headrace.v1.event_pb2 import Event, EventFilter

__all__ = ["EventCalls"]


class EventCalls(ServiceCalls):
    """What happened."""

    async def list_events(
        self, request: events.ListEventsRequest, *, timeout: float | None = None
    ) -> events.ListEventsResponse:
        """One page of events, newest first unless the request says otherwise."""
        answer = events.ListEventsResponse.FromString
        return await self._call("EventService/ListEvents", request, answer, timeout)

    async def iter_events(
        self,
        filter: EventFilter | None = None,
        *,
        oldest_first: bool = False,
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> AsyncIterator[Event]:
        """Every event that matches, newest first unless told otherwise."""
        order = events.EVENT_ORDER_OLDEST_FIRST if oldest_first else events.EVENT_ORDER_NEWEST_FIRST
        request = events.ListEventsRequest(filter=filter, order=order, page_size=page_size)
        while True:
            page = await self.list_events(request)
            for event in page.events:
                yield event
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
