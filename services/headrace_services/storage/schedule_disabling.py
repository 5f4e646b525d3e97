"""Schedules that nothing can be made of any more: stopped one by one, told, and in nobody's way."""

from __future__ import annotations

import json
import logging
from typing import Final

from headrace.core.ids import new_id
from headrace.core.schedules import ScheduleInvalid
from headrace.v1.event_pb2 import Event
from headrace_services.storage.events import record_event
from headrace_services.storage.instants import set_micros
from headrace_services.storage.schedule_rows import ScheduleRow
from headrace_services.storage.work import Work

__all__ = ["DISABLED_EVENT", "disable"]

_log = logging.getLogger(__name__)
DISABLED_EVENT: Final = "headrace.schedule.disabled"


def disable(work: Work, row: ScheduleRow, error: Exception) -> None:
    """Stop the schedule, and tell why: on the schedule, in the log and by an event.

    It goes on once it has been changed to something that can be read, or is resumed and can be read again.

    Args:
        work: the rows at hand; the schedule's will be written.
        row: of the schedule.
        error: what came of trying. Of another kind than `ScheduleInvalid` it is an error of this server too.
    """
    reason = str(error)
    if isinstance(error, ScheduleInvalid):
        _log.error("schedule %s of deployment %s is stopped: %s", row.label, row.deployment_id, reason)
    else:
        reason = f"no runs can be made of it: {type(error).__name__}: {error}"
        _log.error(
            "schedule %s of deployment %s is stopped: %s",
            *(row.label, row.deployment_id, reason),
            exc_info=error,
        )
    was = row.disabled_reason
    row.stop(work.now)
    row.disabled_reason = reason
    work.rows.put(row)
    if reason != was:
        _tell(work, row)


def _tell(work: Work, row: ScheduleRow) -> None:
    event = Event(id=new_id(), event=DISABLED_EVENT, payload=json.dumps({"reason": row.disabled_reason}))
    set_micros(event.occurred, work.now)
    event.resource.labels.update(
        {"headrace.resource.id": f"headrace.schedule.{row.id}", "headrace.resource.name": row.label}
    )
    event.related.add().labels.update(
        {
            "headrace.resource.id": f"headrace.deployment.{row.deployment_id}",
            "headrace.resource.role": "deployment",
        }
    )
    refusal = record_event(work, event)
    assert refusal is None, refusal
