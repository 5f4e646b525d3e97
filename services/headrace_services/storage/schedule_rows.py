"""Schedules as rows, and as the messages that they are made of and shown as."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

from headrace.core.clock import from_micros, to_micros
from headrace.core.errors import FieldsInvalid
from headrace.core.schedules import ScheduleInvalid, Timing, next_fire
from headrace.core.schedules.messages import anchor_text, set_rule, timing_of
from headrace.v1.schedule_pb2 import Schedule
from headrace_services.domain.schedules import CatchUpRule, OverlapRule, catch_up_rule, overlap_rule
from headrace_services.storage.entities import Entity, column
from headrace_services.storage.instants import duration_micros, set_micros

__all__ = [
    "OverlapWaitRow",
    "Plan",
    "ScheduleRow",
    "checked_spec",
    "json_object",
    "declared_schedule",
    "plan_of",
    "schedule_message",
]


@dataclass(slots=True)
class ScheduleRow(Entity):
    """One schedule. Whoever makes runs for it has claimed the row."""

    TABLE = "schedules"
    KEY = ("id",)

    id: str = column("uuid")
    deployment_id: str = column("uuid")
    slug: str | None = column("text")
    is_paused: bool = column("bool")
    due_time: int | None = column("bigint")
    next_fire_time: int | None = column("bigint")
    last_fire_time: int | None = column("bigint")
    idle_since: int | None = column("bigint")
    missed_fires: int = column("bigint")
    skipped_fires: int = column("bigint")
    last_skip_reason: str = column("text")
    disabled_reason: str = column("text")
    create_time: int = column("bigint")
    update_time: int = column("bigint")
    created_by: str = column("text")
    spec: bytes = column("bytea")
    """headrace.v1.Schedule, without what has a column; `paused` is what was declared."""
    version: int = column("bigint", default=1)
    skips: str | None = column("text", default=None)
    """JSON array of microseconds, ascending; None: none."""

    @property
    def skipped_times(self) -> tuple[int, ...]:
        """Instants that no run is made for, because somebody said so."""
        return tuple(json.loads(self.skips)) if self.skips else ()

    def skip(self, instants: Iterable[int]) -> None:
        """From now on these are all that are skipped."""
        kept = sorted(instants)
        self.skips = json.dumps(kept) if kept else None

    @property
    def label(self) -> str:
        """How the schedule is named to people."""
        return self.slug or self.id

    def expect(self, next_fire: int | None, lead: int) -> None:
        """The next run is for this instant, None: there is none to come, and is made `lead` before it.

        An instant that is skipped is dealt with when it comes.
        """
        self.next_fire_time = next_fire
        self.due_time = None if next_fire is None else next_fire - lead
        if self.skips and next_fire in self.skipped_times:
            self.due_time = next_fire
        self.idle_since = None

    def stop(self, now: int) -> None:
        """Nothing is made from now on."""
        self.next_fire_time = self.due_time = None
        if self.idle_since is None:
            self.idle_since = now


@dataclass(slots=True)
class OverlapWaitRow(Entity):
    """A run that was made for a fire and waits until earlier runs of its deployment have ended.

    Its state is SCHEDULED under the name `Queued`; such a run is not to be handed to a worker.
    """

    TABLE = "overlap_waits"
    KEY = ("run_id",)

    run_id: str = column("uuid")
    deployment_id: str = column("uuid")
    schedule_id: str = column("uuid")
    per_schedule: bool = column("bool")
    include_manual: bool = column("bool")
    scheduled_time: int = column("bigint")


class Plan(NamedTuple):
    """What a schedule's spec says, taken apart.

    Attributes:
        spec: the message.
        timing: when it fires.
        catch_up: what becomes of missed fires.
        overlap: what becomes of a fire while an earlier run goes on; None: the deployment says it.
        jitter_seconds: the most that a run is delayed by.
    """

    spec: Schedule
    timing: Timing
    catch_up: CatchUpRule
    overlap: OverlapRule | None
    jitter_seconds: float


@lru_cache(maxsize=16384)
def plan_of(spec: bytes) -> Plan:
    """What the spec says. Equal ones are taken apart once.

    Raises:
        ScheduleInvalid: it says nothing that this server understands, e.g. names a zone that is no more.
    """
    message = Schedule.FromString(spec)
    return Plan(
        message,
        timing_of(message),
        catch_up_rule(message.catch_up),
        overlap_rule(message.overlap),
        duration_micros(message.jitter) / 1_000_000,
    )


_OUTPUT: Final = (
    *("id", "deployment_id", "slug", "replaces", "next_fire_time", "last_fire_time"),
    *("disabled_reason", "create_time", "update_time", "created_by", "etag"),
    *("missed_fires", "skipped_fires", "last_skip_reason", "skipped_times"),
)


def checked_spec(asked: Schedule, now: int, field: str = "schedule", was: Schedule | None = None) -> bytes:
    """What is kept of a schedule that was asked for, in the one form it is kept in.

    Args:
        asked: as it came.
        now: the server's clock, microseconds: the anchor of an interval that names none.
        field: where the schedule is in the request, for errors.
        was: the schedule before; an interval that names no anchor keeps its own.

    Raises:
        FieldsInvalid: it cannot be kept; the violation names the field.
    """
    spec = Schedule()
    spec.CopyFrom(asked)
    for name in _OUTPUT:
        spec.ClearField(name)  # type: ignore[arg-type]  # the stub wants literals
    if spec.HasField("interval") and not spec.interval.anchor:
        zone = spec.interval.timezone
        kept = was is not None and was.HasField("interval") and was.interval.timezone == zone
        try:
            spec.interval.anchor = was.interval.anchor if kept and was is not None else _anchor(now, zone)
        except ScheduleInvalid as error:
            raise _invalid(field, error) from None
    for name, duration in (("jitter", spec.jitter), ("catch_up.window", spec.catch_up.window)):
        if duration_micros(duration) < 0:
            raise FieldsInvalid.of(f"{field}.{name}", "must not be negative")
    json_object(spec.parameters, f"{field}.parameters")
    try:
        set_rule(spec, timing_of(spec).rule)
    except ScheduleInvalid as error:
        raise _invalid(field, error) from None
    return spec.SerializeToString(deterministic=True)


def _anchor(now: int, timezone: str) -> str:
    return anchor_text(from_micros(now - now % 1_000_000), timezone)


def json_object(text: str, field: str) -> dict[str, Any]:
    """The object that the JSON text says; empty: an empty one.

    Raises:
        FieldsInvalid: it says none.
    """
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise FieldsInvalid.of(field, "must be a JSON object")
    return cast("dict[str, Any]", value)


_PLACES: Final = {"cron": "cron.cron", "rrule": "rrule.rrule", "interval": "interval.interval"}


def _invalid(field: str, error: ScheduleInvalid) -> FieldsInvalid:
    return FieldsInvalid.of(f"{field}.{_PLACES.get(error.field, error.field)}", error.reason)


def declared_schedule(row: ScheduleRow) -> Schedule:
    """What was declared: without what the server knows of the schedule."""
    said = Schedule.FromString(row.spec)
    said.slug = row.slug or ""
    return said


def schedule_message(row: ScheduleRow) -> Schedule:
    """The schedule as it is shown."""
    shown = Schedule.FromString(row.spec)
    shown.id, shown.deployment_id, shown.slug = row.id, row.deployment_id, row.slug or ""
    shown.paused = row.is_paused
    shown.missed_fires, shown.skipped_fires = row.missed_fires, row.skipped_fires
    shown.last_skip_reason, shown.disabled_reason = row.last_skip_reason, row.disabled_reason
    shown.created_by, shown.etag = row.created_by, str(row.version)
    set_micros(shown.create_time, row.create_time)
    set_micros(shown.update_time, row.update_time)
    upcoming = _unskipped(row) if row.skips else row.next_fire_time
    if upcoming is not None:
        set_micros(shown.next_fire_time, upcoming)
    if row.last_fire_time is not None:
        set_micros(shown.last_fire_time, row.last_fire_time)
    for instant in row.skipped_times:
        set_micros(shown.skipped_times.add(), instant)
    return shown


def _unskipped(row: ScheduleRow) -> int | None:
    """The next fire that gets a run."""
    fire, skipped = row.next_fire_time, row.skipped_times
    while fire is not None and fire in skipped:
        later = next_fire(plan_of(row.spec).timing, from_micros(fire))
        fire = None if later is None else to_micros(later)
    return fire
