"""When the runs of a deployment are made: `Cron`, `Interval` and `RRule`.

from headrace.schedules import Cron, Interval, RRule

Cron("0 9 * * MON-FRI", timezone="Europe/Oslo")
Interval(timedelta(minutes=15), overlap="skip")
RRule("FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17", timezone="America/New_York")
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from headrace.core.schedules import (
    CronRule,
    IntervalRule,
    RRuleRule,
    Rule,
    ScheduleInvalid,
    Timing,
    next_fires,
    parse_interval,
)

if TYPE_CHECKING:
    from headrace.v1 import schedule_pb2

__all__ = ["CatchUp", "Cron", "Interval", "Overlap", "RRule", "Schedule", "ScheduleInvalid"]

DstPolicy: TypeAlias = Literal["vixie", "peer"]


@dataclass(frozen=True)
class CatchUp:
    """What becomes of fires that were missed because no server was there.

    Attributes:
        mode: `skip`: nothing; `latest`: the newest one gets a run; `all`: up to `max_runs` do, oldest first.
        max_runs: with `all`, at most 1000.
        window: older ones are never made up for.
        include_paused: those of the time when the deployment was paused count too.
    """

    mode: Literal["skip", "latest", "all"] = "latest"
    max_runs: int = 100
    window: timedelta = timedelta(days=7)
    include_paused: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("skip", "latest", "all"):
            raise ScheduleInvalid("catch_up", f"'{self.mode}' is none of skip, latest, all and all(100)")
        if not 1 <= self.max_runs <= 1000:
            raise ScheduleInvalid("catch_up", f"makes between 1 and 1000 runs, not {self.max_runs}")
        if self.window < timedelta():
            raise ScheduleInvalid("catch_up", "has a window that is negative")

    @classmethod
    def of(cls, value: CatchUp | str) -> CatchUp:
        """From `"skip"`, `"latest"`, `"all"` or `"all(10)"`.

        Raises:
            ScheduleInvalid: it is none of these.
        """
        if isinstance(value, CatchUp):
            return value
        mode, count = _counted(value)
        return cls(mode) if count is None or mode != "all" else cls(mode, count)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Overlap:
    """What becomes of a fire while an earlier run of the deployment has not ended.

    Attributes:
        mode: `allow`: it gets a run; `skip`: it gets none; `queue`: its run waits until the earlier ones have
            ended; `cancel-old`: it takes the place of the earlier ones, once these are cancelled.
        max_queued: with `queue`, how many may wait; further fires are skipped. At most 100.
        per_schedule: only runs of the same schedule count.
        include_manual: runs that were not made by a schedule count too.
    """

    mode: Literal["allow", "skip", "queue", "cancel-old"]
    max_queued: int = 1
    per_schedule: bool = False
    include_manual: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("allow", "skip", "queue", "cancel-old"):
            known = "allow, skip, queue, queue(2) and cancel-old"
            raise ScheduleInvalid("overlap", f"'{self.mode}' is none of {known}")
        if not 1 <= self.max_queued <= 100:
            raise ScheduleInvalid("overlap", f"lets between 1 and 100 runs wait, not {self.max_queued}")

    @classmethod
    def of(cls, value: Overlap | str) -> Overlap:
        """From `"allow"`, `"skip"`, `"queue"`, `"queue(3)"` or `"cancel-old"`.

        Raises:
            ScheduleInvalid: it is none of these.
        """
        if isinstance(value, Overlap):
            return value
        mode, count = _counted(value)
        return cls(mode) if count is None or mode != "queue" else cls(mode, count)  # type: ignore[arg-type]


def _counted(text: str) -> tuple[str, int | None]:
    """`all(10)` as its parts."""
    match = re.fullmatch(r"(all|queue)\s*\(\s*(\d{1,9})\s*\)", text.strip())
    return (match[1], int(match[2])) if match else (text.strip().replace("_", "-"), None)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Schedule:
    """When the runs of a deployment are made. `Cron`, `Interval` and `RRule` are short for it.

    Exactly one of `interval`, `cron` and `rrule` is given.

    Attributes:
        interval: between two fires; at least a second.
        cron: a cron expression of five fields, or an alias such as `@daily`.
        rrule: an RFC 5545 recurrence rule, or lines of DTSTART, RRULE, EXRULE, RDATE and EXDATE.
        timezone: IANA name, e.g. `Europe/Oslo`; None: UTC, or for an interval the zone of its anchor.
        anchor_date: an instant that an interval's series goes through; without a zone, a wall time. None:
            when the schedule is first made.
        day_or: with days of the month and of the week both in a cron expression, either is enough.
        active: makes runs.
        parameters: over the deployment's.
        slug: name within the deployment: what identifies the schedule when the deployment is applied again.
        start: no fire before this instant.
        end: no fire at this instant or after.
        jitter: runs start up to this much later, each schedule and fire by an amount of its own; a number is
            seconds.
        catch_up: see `CatchUp`; a text such as `"all(10)"` will do.
        overlap: see `Overlap`; a text such as `"skip"` will do. None: as the deployment says.
        max_scheduled_runs: no run is made while this many of the schedule wait to start.
        dst_policy: what becomes of times of a cron expression that a change of clocks skips or doubles:
            `vixie`, as Debian's cron, or `peer`, as Prefect 3.
        replaces: the slug that this schedule had before.

    Raises:
        ScheduleInvalid: a ValueError; the message says what is wrong and what to write instead.
    """

    interval: timedelta | None = None
    cron: str | None = None
    rrule: str | None = None
    timezone: str | None = None
    anchor_date: datetime | None = None
    day_or: bool = True
    active: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    slug: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    jitter: timedelta | float = 0
    catch_up: CatchUp | str = "latest"
    overlap: Overlap | str | None = None
    max_scheduled_runs: int | None = None
    dst_policy: DstPolicy = "vixie"
    replaces: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("interval", "cron", "rrule") if getattr(self, name) is not None]
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise ScheduleInvalid("schedule", f"is one of interval, cron and rrule; given: {found}")
        object.__setattr__(self, "catch_up", CatchUp.of(self.catch_up))
        if self.overlap is not None:
            object.__setattr__(self, "overlap", Overlap.of(self.overlap))
        if not isinstance(self.jitter, timedelta):
            object.__setattr__(self, "jitter", timedelta(seconds=self.jitter))
        if self.max_scheduled_runs is not None and not 1 <= self.max_scheduled_runs <= 50:
            raise ScheduleInvalid("max_scheduled_runs", "must be between 1 and 50")
        if isinstance(self.jitter, timedelta) and self.jitter < timedelta():
            raise ScheduleInvalid("jitter", "must not be negative")
        self._timing()

    def next(self, count: int = 10, *, after: datetime | None = None) -> list[datetime]:
        """The next fires, as aware datetimes in UTC; jitter left out.

        Args:
            count: how many, at most 1000; there are fewer when the schedule ends.
            after: an aware instant; None: now.
        """
        return next_fires(self._timing(), after or _now(), count)

    def to_message(self) -> schedule_pb2.Schedule:
        """The schedule as the server takes it."""
        from headrace.core.schedules.messages import set_rule

        message = _message_of(self)
        set_rule(message, self._rule())
        if self.interval is not None and self.anchor_date is None:
            message.interval.anchor = ""  # the server sets it once, and keeps it
        return message

    def _timing(self) -> Timing:
        return Timing(self._rule(), _placed(self.start, self._zone()), _placed(self.end, self._zone()))

    def _zone(self) -> str:
        if self.timezone is not None:
            return self.timezone
        key = getattr(self.anchor_date.tzinfo, "key", None) if self.anchor_date is not None else None
        return key if isinstance(key, str) and self.interval is not None else ""

    def _rule(self) -> Rule:
        zone = self._zone()
        if self.cron is not None:
            return CronRule(self.cron, zone, self.day_or, self.dst_policy)
        if self.rrule is not None:
            return RRuleRule(self.rrule, zone)
        assert self.interval is not None
        anchor = _placed(self.anchor_date, zone) or _now()
        # An anchor is kept as a wall time in seconds.
        return IntervalRule(self.interval, anchor.replace(microsecond=0), zone)


def _placed(instant: datetime | None, zone: str) -> datetime | None:
    """`instant`; without a zone it is a wall time of the schedule's."""
    if instant is None or instant.tzinfo is not None:
        return instant
    from headrace.core.schedules.walls import first_instant, zone_of

    return first_instant(instant, zone_of(zone))


def _message_of(schedule: Schedule) -> schedule_pb2.Schedule:
    """Everything but the rule."""
    from headrace.v1 import schedule_pb2 as pb

    message = pb.Schedule(
        slug=schedule.slug or "", paused=not schedule.active, replaces=schedule.replaces or ""
    )
    if schedule.parameters:
        try:
            message.parameters = json.dumps(dict(schedule.parameters))
        except (TypeError, ValueError) as error:
            raise ScheduleInvalid("parameters", f"cannot be written as JSON: {error}") from None
    zone = schedule._zone()  # pyright: ignore[reportPrivateUsage]
    for name, instant in (("start", schedule.start), ("end", schedule.end)):
        placed = _placed(instant, zone)
        if placed is not None:
            getattr(message, name).FromDatetime(placed)
    if isinstance(schedule.jitter, timedelta) and schedule.jitter:
        message.jitter.FromTimedelta(schedule.jitter)
    message.max_scheduled_runs = schedule.max_scheduled_runs or 0
    catch_up = CatchUp.of(schedule.catch_up)
    if catch_up != CatchUp():
        message.catch_up.mode = pb.CatchUpMode.Value(f"CATCH_UP_MODE_{catch_up.mode.upper()}")
        message.catch_up.max_runs = catch_up.max_runs
        message.catch_up.window.FromTimedelta(catch_up.window)
        message.catch_up.include_paused = catch_up.include_paused
    if schedule.overlap is not None:
        overlap = Overlap.of(schedule.overlap)
        name = overlap.mode.upper().replace("-", "_")
        message.overlap.mode = pb.OverlapMode.Value(f"OVERLAP_MODE_{name}")
        message.overlap.max_queued = overlap.max_queued
        message.overlap.per_schedule = overlap.per_schedule
        message.overlap.include_manual = overlap.include_manual
    return message


def Cron(
    cron: str,
    /,
    timezone: str | None = None,
    day_or: bool = True,
    active: bool = True,
    parameters: Mapping[str, Any] | None = None,
    slug: str | None = None,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    jitter: timedelta | float = 0,
    catch_up: CatchUp | str = "latest",
    overlap: Overlap | str | None = None,
    max_scheduled_runs: int | None = None,
    dst_policy: DstPolicy = "vixie",
    replaces: str | None = None,
) -> Schedule:
    """A schedule that fires when the wall shows what a cron expression says; see `Schedule`."""
    return Schedule(
        cron=cron,
        timezone=timezone,
        day_or=day_or,
        active=active,
        parameters=parameters or {},
        slug=slug,
        start=start,
        end=end,
        jitter=jitter,
        catch_up=catch_up,
        overlap=overlap,
        max_scheduled_runs=max_scheduled_runs,
        dst_policy=dst_policy,
        replaces=replaces,
    )


def Interval(
    interval: timedelta | float | str,
    /,
    anchor_date: datetime | None = None,
    timezone: str | None = None,
    active: bool = True,
    parameters: Mapping[str, Any] | None = None,
    slug: str | None = None,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    jitter: timedelta | float = 0,
    catch_up: CatchUp | str = "latest",
    overlap: Overlap | str | None = None,
    max_scheduled_runs: int | None = None,
    replaces: str | None = None,
) -> Schedule:
    """A schedule that fires every so much time, counted from an anchor; see `Schedule`.

    `interval` is a `timedelta`, seconds, ISO 8601 such as `PT15M`, or `HH:MM:SS`.
    """
    return Schedule(
        interval=parse_interval(interval),
        anchor_date=anchor_date,
        timezone=timezone,
        active=active,
        parameters=parameters or {},
        slug=slug,
        start=start,
        end=end,
        jitter=jitter,
        catch_up=catch_up,
        overlap=overlap,
        max_scheduled_runs=max_scheduled_runs,
        replaces=replaces,
    )


def RRule(
    rrule: str,
    /,
    timezone: str | None = None,
    active: bool = True,
    parameters: Mapping[str, Any] | None = None,
    slug: str | None = None,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    jitter: timedelta | float = 0,
    catch_up: CatchUp | str = "latest",
    overlap: Overlap | str | None = None,
    max_scheduled_runs: int | None = None,
    replaces: str | None = None,
) -> Schedule:
    """A schedule that fires as an RFC 5545 recurrence rule says; see `Schedule`."""
    return Schedule(
        rrule=rrule,
        timezone=timezone,
        active=active,
        parameters=parameters or {},
        slug=slug,
        start=start,
        end=end,
        jitter=jitter,
        catch_up=catch_up,
        overlap=overlap,
        max_scheduled_runs=max_scheduled_runs,
        replaces=replaces,
    )
