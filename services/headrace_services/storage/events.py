"""Events: recorded, and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from headrace.core.errors import FieldsInvalid, ServiceError
from headrace.v1.event_pb2 import Event, EventFilter
from headrace.v1.event_service_pb2 import EVENT_ORDER_OLDEST_FIRST
from headrace_services.storage.backends import Backend
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.filters import Conditions
from headrace_services.storage.instants import micros, set_micros
from headrace_services.storage.pages import PageKey, page_limit
from headrace_services.storage.rows import text
from headrace_services.storage.steps import Row
from headrace_services.storage.work import Work

__all__ = ["EventQueries", "record_event"]

_RESOURCE_ID: Final = "headrace.resource.id"
_ROLE: Final = "headrace.resource.role"


def record_event(work: Work, event: Event) -> ServiceError | None:
    """Keep an event that a process tells; the reason if it cannot be kept."""
    refusal = _refusal(event)
    if refusal is not None:
        return refusal
    rest = Event(payload=text(event.payload), follows=event.follows)
    rest.resource.CopyFrom(event.resource)
    rest.related.extend(event.related)
    work.writes.events.append(
        (
            event.id.lower(),
            text(event.event),
            text(event.resource.labels[_RESOURCE_ID]),
            event.run_id.lower() or None,
            micros(event.occurred),
            rest.SerializeToString(),
        )
    )
    return None


def _refusal(event: Event) -> ServiceError | None:
    if not event.resource.labels.get(_RESOURCE_ID):
        return FieldsInvalid.of("event.resource.labels", f"must have '{_RESOURCE_ID}'")
    for index, related in enumerate(event.related):
        for label in (_RESOURCE_ID, _ROLE):
            if not related.labels.get(label):
                return FieldsInvalid.of(f"event.related[{index}].labels", f"must have '{label}'")
    if event.payload and not _is_object(event.payload):
        return FieldsInvalid.of("event.payload", "must be a JSON object")
    return None


def _is_object(payload: str) -> bool:
    try:
        return isinstance(json.loads(payload), dict)
    except (ValueError, RecursionError):
        return False


class EventQueries:
    """Events, read."""

    def __init__(self, backend: Backend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect
        ids = (dialect.column("e.id"), "e.event", dialect.column("e.run_id"))
        self._columns = f"{', '.join(ids)}, e.occurred, e.record_time, e.rest, e.seq"

    async def page(
        self, filter: EventFilter, order: int, page_size: int, page_token: str
    ) -> tuple[list[Event], str]:
        """See `Reader.list_events`."""
        key, limit = PageKey.of("events", filter, order), page_limit(page_size)
        is_ascending = order == EVENT_ORDER_OLDEST_FIRST
        direction, sign = ("ASC", ">") if is_ascending else ("DESC", "<")
        where = self._conditions(filter)
        cursor = key.cursor(page_token, int, int)
        if cursor is not None:
            where.add(f"(e.occurred, e.seq) {sign} (?, ?)", *cursor)
        rows = await self._backend.fetch(
            f"SELECT {self._columns} FROM events AS e WHERE {where.sql} "
            f"ORDER BY e.occurred {direction}, e.seq {direction} LIMIT {limit + 1}",
            where.parameters,
        )
        events = [self._event(row) for row in rows[:limit]]
        return events, key.token([rows[limit - 1][3], rows[limit - 1][6]]) if len(rows) > limit else ""

    def _conditions(self, filter: EventFilter) -> Conditions:
        where = Conditions()
        where.among("e.id", [self._dialect.id(id.lower()) for id in filter.ids])
        where.among("e.run_id", [self._dialect.id(id.lower()) for id in filter.run_ids])
        _named(where, "e.event", filter.events)
        _named(where, "e.resource_id", filter.resource_ids)
        if filter.occurred.HasField("from"):
            where.add("e.occurred >= ?", micros(getattr(filter.occurred, "from")))
        if filter.occurred.HasField("until"):
            where.add("e.occurred < ?", micros(filter.occurred.until))
        return where

    def _event(self, row: Row) -> Event:
        event = Event.FromString(row[5])
        event.id = self._dialect.read_id(row[0])
        event.event = row[1]
        event.run_id = self._dialect.read_id(row[2]) or ""
        set_micros(event.occurred, row[3])
        set_micros(event.received, row[4])
        return event


def _named(where: Conditions, column: str, names: Sequence[str]) -> None:
    """The column is one of the names, or begins with one that ends with `*`."""
    prefixes = [name[:-1] for name in names if name.endswith("*")]
    if not prefixes:
        where.among(column, list(names))
        return
    exact = [name for name in names if not name.endswith("*")]
    parts = [f"{column} = ?"] * len(exact) + [f"substr({column}, 1, ?) = ?"] * len(prefixes)
    parameters = [*exact, *(value for prefix in prefixes for value in (len(prefix), prefix))]
    where.add(f"({' OR '.join(parts)})", *parameters)
