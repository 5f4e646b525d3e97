"""Putting events on record."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from headrace.context import FlowRunContext, TaskRunContext, current_run
from headrace.core.clock import from_micros, to_micros
from headrace.core.ids import flow_id_of
from headrace.core.limits import EVENT_BYTES
from headrace.core.passing import passing_time
from headrace.events.schemas import ID, NAME, ROLE, Event, RelatedResource, Resource
from headrace.exceptions import EventTooLarge
from headrace.recorder import get_recorder
from headrace.settings import get_current_settings
from headrace.v1 import event_pb2
from headrace.v1.record_service_pb2 import RecordEntry

__all__ = ["emit_event", "record_event"]

_log = logging.getLogger("headrace.events")
_CLOSE: Final = timedelta(minutes=5)


def emit_event(
    event: str,
    resource: Mapping[str, str] | Resource,
    occurred: datetime | None = None,
    related: Sequence[Mapping[str, str] | RelatedResource] | None = None,
    payload: Mapping[str, Any] | None = None,
    id: UUID | None = None,
    follows: Event | None = None,
) -> Event | None:
    """Tell the server that something happened. It is on record when this returns, and sent in a moment.

    In a flow or task run, the run, its flow, its deployment and its tags are related to the event by
    themselves.

    Args:
        event: what happened, e.g. "order.shipped".
        resource: labels of what it happened to; `headrace.resource.id` must be among them.
        occurred: when; default: now.
        related: labels of what else took part; each needs `headrace.resource.role` as well.
        payload: whatever else there is to say, as JSON can say it.
        id: of the event; default: a new one.
        follows: an event that came before this one, at most five minutes ago; else it is left out.

    Returns:
        The event; None when there is no server to tell it to (`HEADRACE_API_URL=off`), or when it could not
        be recorded, which is logged: telling what happens never ends what happens.

    Raises:
        EventTooLarge: it has more than a million bytes.
    """
    if get_current_settings().api_url == "off":
        return None
    try:
        when = from_micros(passing_time().now()) if occurred is None else occurred
        made = Event.model_validate(
            {
                "event": event,
                "resource": resource,
                "occurred": when,
                "related": [*(related or ()), *_of_the_run()],
                "payload": dict(payload or {}),
                **({} if id is None else {"id": id}),
            }
        )
        made.related = _others(made)
        if follows is not None and abs(made.occurred - follows.occurred) < _CLOSE:
            made.follows = follows.id
        if made.size_bytes > EVENT_BYTES:
            raise EventTooLarge(made.size_bytes, EVENT_BYTES)
        record_event(made)
    except EventTooLarge:
        raise
    except Exception:
        _log.exception("The event %r could not be emitted", event)
        return None
    return made


def record_event(event: Event) -> None:
    """Put an event on record."""
    run = current_run()
    entry = event_pb2.Event(
        id=str(event.id),
        event=event.event,
        resource=event_pb2.EventResource(labels=event.resource.root),
        related=[event_pb2.EventResource(labels=one.root) for one in event.related],
        payload=json.dumps(event.model_dump(mode="json", include={"payload"})["payload"]),
        follows="" if event.follows is None else str(event.follows),
        run_id="" if run is None else run.run.id,
    )
    entry.occurred.FromMicroseconds(to_micros(event.occurred.astimezone(UTC)))
    get_recorder().post(RecordEntry(event=entry))


def _others(event: Event) -> list[RelatedResource]:
    """What is related to the event, each once in a role, and the resource itself not."""
    found: dict[tuple[str, str], RelatedResource] = {}
    for related in event.related:
        if related.id != event.resource.id:
            found.setdefault((related.role, related.id), related)
    return list(found.values())


def _of_the_run() -> list[dict[str, str]]:
    """What the code that runs now is part of."""
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    found: list[dict[str, str]] = []
    tags: list[str] = []
    if flow is not None:
        run = flow.flow_run
        found.append(_related("flow-run", run.id, run.name))
        tags += run.tags
    if task is not None:
        found.append(_related("task-run", task.task_run.id, task.task_run.name))
        tags += task.task_run.tags
    if flow is not None:
        found.append(_related("flow", flow_id_of(flow.flow_run.flow_name), flow.flow_run.flow_name))
        if flow.flow_run.deployment_id is not None:
            found.append(_related("deployment", flow.flow_run.deployment_id))
    return [*found, *(_related("tag", tag) for tag in dict.fromkeys(tags))]


def _related(role: str, id: str, name: str = "") -> dict[str, str]:
    labels = {ID: f"headrace.{role}.{id}", ROLE: role}
    return {**labels, NAME: name} if name else labels
