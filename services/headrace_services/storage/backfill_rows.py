"""Backfills as rows, and as the messages that they are made of and shown as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from headrace.v1.backfill_pb2 import (
    BACKFILL_ORDER_NEWEST,
    BACKFILL_ORDER_OLDEST,
    BACKFILL_RERUN_NONE,
    Backfill,
    BackfillAction,
    BackfillRun,
    BackfillState,
)
from headrace.v1.state_pb2 import StateType
from headrace_services.domain.backfills import LIMIT, LIVE, Rest
from headrace_services.storage.entities import Entity, column
from headrace_services.storage.instants import set_micros

__all__ = [
    "BackfillRow",
    "BackfillRunRow",
    "KeptSchedule",
    "asked_only",
    "backfill_message",
    "is_newest_first",
    "run_message",
]

_ASKED: Final = ("id", "schedule_id", "from", "until", "order", "limit", "parameters", "priority", "rerun")


class KeptSchedule(NamedTuple):
    """The schedule of a backfill, as it was when that was created.

    Attributes:
        id: of the schedule.
        deployment_id: of its deployment.
        label: how it is named to people.
        spec: headrace.v1.Schedule.
    """

    id: str
    deployment_id: str
    label: str
    spec: bytes


@dataclass(slots=True)
class BackfillRow(Entity):
    """One backfill. Whoever goes on with it has claimed the row."""

    TABLE = "backfills"
    KEY = ("id",)

    id: str = column("uuid")
    deployment_id: str = column("uuid")
    schedule_id: str = column("uuid")
    state: int = column("smallint")
    """headrace.v1.BackfillState"""
    is_ready: bool = column("bool")
    """There is something to do even if none of its runs ends."""
    rest_from: int = column("bigint")
    rest_until: int = column("bigint")
    create_time: int = column("bigint")
    update_time: int = column("bigint")
    end_time: int | None = column("bigint")
    spec: bytes = column("bytea")
    """headrace.v1.Backfill: what was asked, and what has no column."""
    schedule_spec: bytes = column("bytea")
    """headrace.v1.Schedule, as it was when the backfill was created."""
    version: int = column("bigint", default=1)

    @property
    def rest(self) -> Rest:
        """What is left of the range."""
        return Rest(self.rest_from, self.rest_until)

    @rest.setter
    def rest(self, rest: Rest) -> None:
        self.rest_from, self.rest_until = rest

    @property
    def is_live(self) -> bool:
        """It has not ended."""
        return self.state in LIVE


@dataclass(slots=True)
class BackfillRunRow(Entity):
    """One instant that a backfill has come to."""

    TABLE = "backfill_runs"
    KEY = ("backfill_id", "fire_time")

    backfill_id: str = column("uuid")
    fire_time: int = column("bigint")
    run_id: str = column("uuid")
    action: int = column("smallint")
    """headrace.v1.BackfillAction"""
    is_open: bool = column("bool")
    """The backfill waits for the run to end."""
    outcome: int | None = column("smallint")
    """headrace.v1.StateType"""


def asked_only(backfill: Backfill) -> Backfill:
    """What a request says of a backfill, with the defaults written out."""
    asked = Backfill()
    for name in _ASKED:
        field = Backfill.DESCRIPTOR.fields_by_name[name]
        if field.message_type is not None:
            getattr(asked, name).CopyFrom(getattr(backfill, name))
        elif not field.has_presence or backfill.HasField(name):  # type: ignore[arg-type]
            setattr(asked, name, getattr(backfill, name))
    asked.id, asked.schedule_id = asked.id.lower(), asked.schedule_id.lower()
    asked.order = asked.order or BACKFILL_ORDER_OLDEST
    asked.rerun = asked.rerun or BACKFILL_RERUN_NONE
    asked.limit = asked.limit or LIMIT
    if not asked.HasField("priority"):
        asked.priority = 0
    return asked


def is_newest_first(backfill: Backfill) -> bool:
    """Whether the range is gone through from its end."""
    return backfill.order == BACKFILL_ORDER_NEWEST


def backfill_message(row: BackfillRow) -> Backfill:
    """The backfill as it is shown."""
    shown = Backfill.FromString(row.spec)
    shown.state, shown.deployment_id = BackfillState.ValueType(row.state), row.deployment_id
    set_micros(shown.create_time, row.create_time)
    set_micros(shown.update_time, row.update_time)
    if row.end_time is not None:
        set_micros(shown.end_time, row.end_time)
    return shown


def run_message(row: BackfillRunRow) -> BackfillRun:
    """One instant as it is shown."""
    action = BackfillAction.ValueType(row.action)
    shown = BackfillRun(run_id=row.run_id, action=action, unfinished=row.is_open)
    set_micros(shown.fire_time, row.fire_time)
    if row.outcome is not None:
        shown.outcome = StateType.ValueType(row.outcome)
    return shown
