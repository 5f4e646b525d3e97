"""Cron expressions: which are taken, and when they fire.

The engine sees wall times without a zone; `walls` makes instants of them. It is told nothing about zones on
purpose, because its own handling of clock changes differs from release to release.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from headrace.core.schedules.errors import ScheduleInvalid
from headrace.core.schedules.walls import Reading, instants, wall_before, zone_of

if TYPE_CHECKING:
    from croniter import croniter

__all__ = ["CronRule", "DstPolicy"]

DstPolicy: TypeAlias = Literal["vixie", "peer"]

_ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS: Final = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 7),
)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_asking = Lock()
"""An engine keeps where it stands, and is shared by all threads."""
_RANGE: Final = re.compile(r"^(?P<low>[0-9a-z]+)(?:-(?P<high>[0-9a-z]+))?$")


@dataclass(frozen=True, slots=True)
class CronRule:
    """Fires when the wall shows what a cron expression says.

    Attributes:
        cron: five fields, or an alias such as `@daily`; the blanks between them are made single.
        timezone: IANA name of the zone; empty: UTC.
        day_or: with days of the month and days of the week both given, either is enough; False: both
            must fit.
        dst_policy: what becomes of times that a change of clocks skips or doubles. `vixie`, as Debian's cron:
            an open minute or hour follows the wall, anything else is a fixed time; `peer`, as Prefect 3:
            once a day, in a gap as much later as the gap is long.

    Raises:
        ScheduleInvalid: the expression is not taken, can never fire, or there is no such zone.
    """

    cron: str
    timezone: str = ""
    day_or: bool = True
    dst_policy: DstPolicy = "vixie"

    def __post_init__(self) -> None:
        object.__setattr__(self, "cron", " ".join(self.cron.split()))
        _check(self.cron)
        zone_of(self.timezone)
        _engine_of(self.cron, self.day_or)

    @property
    def reading(self) -> Reading:
        """What is made of gaps and folds."""
        if self.dst_policy == "peer":
            return "shifted"
        is_open = any(field.startswith("*") for field in _expanded(self.cron).split()[:2])
        return "wall" if is_open else "fixed"

    def after(self, after: datetime) -> Iterator[datetime]:
        """The instants past `after`, ascending, in UTC, as long as the calendar lasts."""
        zone = zone_of(self.timezone)
        walls = self._walls(wall_before(after, zone))
        return (at for at in instants(walls, zone, self.reading) if at > after)

    def _walls(self, start: datetime) -> Iterator[datetime]:
        """The wall times from `start` on. The engine gives those past its own."""
        engine = _engine_of(self.cron, self.day_or)
        wall = start - timedelta(seconds=1)
        while True:
            try:
                with _asking:
                    wall = engine.get_next(datetime, start_time=wall)
            except (ValueError, OverflowError):  # the end of the calendar
                return
            yield wall


def _expanded(cron: str) -> str:
    return _ALIASES.get(cron.lower(), cron)


@lru_cache(maxsize=4096)
def _engine_of(cron: str, day_or: bool) -> croniter[datetime]:
    """The engine of an expression, shared: it is asked with a start of its own each time.

    Raises:
        ScheduleInvalid: the engine does not take it, or finds nothing in fifty years.
    """
    from croniter import croniter

    try:
        engine = croniter(_expanded(cron), datetime(2024, 1, 1), ret_type=datetime, day_or=day_or)
    except (ValueError, TypeError, KeyError) as error:
        raise ScheduleInvalid("cron", f"'{cron}' is no cron expression: {_said(error)}") from None
    try:
        engine.get_next(datetime, start_time=datetime(2024, 1, 1))
    except ValueError:
        raise ScheduleInvalid("cron", f"'{cron}' never fires: there is no such day") from None
    return engine


def _said(error: Exception) -> str:
    text: Any = error.args[0] if error.args else error
    return re.sub(r"^\[[^\]]*\]\s*", "", str(text)) or "it cannot be read"


# What engines understand differently from each other, or from one release to the next, is not taken.


def _check(cron: str) -> None:
    if not cron:
        raise ScheduleInvalid("cron", "is empty: give five fields, such as '0 9 * * MON-FRI'")
    if cron.startswith("@"):
        _check_alias(cron)
        return
    fields = cron.lower().split(" ")
    if len(fields) != len(_FIELDS):
        _refuse_count(cron, len(fields))
    for text, (name, low, high) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            _check_part(part, name, low, high)
    _check_days(fields[2], fields[4])


def _check_days(days: str, weekdays: str) -> None:
    """Refuse joins of days that the engine gets wrong."""
    is_counted = "#" in weekdays or "l" in weekdays
    if days not in "*?" and weekdays not in "*?" and ("w" in days or is_counted):
        said = weekdays if is_counted else days
        hint = "make two schedules, or give the days as a range with day_or=False, such as '8-14 * FRI'"
        raise ScheduleInvalid("cron", f"'{said}' cannot be joined with another field of days: {hint}")


def _check_alias(cron: str) -> None:
    if cron.lower() in _ALIASES:
        return
    if cron.lower() == "@reboot":
        raise ScheduleInvalid("cron", "'@reboot' is not a time: start the run when the service starts")
    raise ScheduleInvalid("cron", f"there is no '{cron}': known are {', '.join(sorted(_ALIASES))}")


def _refuse_count(cron: str, count: int) -> None:
    hint = "five are minute, hour, day of month, month, day of week"
    if count in (6, 7):
        hint = "for seconds give an interval, for a year an end date"
    raise ScheduleInvalid("cron", f"'{cron}' has {count} fields where a cron expression has five: {hint}")


def _check_part(part: str, name: str, low: int, high: int) -> None:
    """Refuse what is read differently by different engines, each with what to write instead."""
    if re.match(r"^[hr](\(|/|$)", part):
        hint = "a fixed minute spreads the load too, as does the schedule's jitter"
        raise ScheduleInvalid("cron", f"'{part}' ({name}) would be drawn at random: {hint}")
    body, slash, step_text = part.partition("/")
    match = _RANGE.match(body)
    first = _number(match["low"], name) if match else None
    last = _number(match["high"], name) if match and match["high"] else None
    if match and match["high"] and first is not None and first == last:
        raise ScheduleInvalid("cron", f"'{part}' ({name}) is a range of one: write '{match['low']}'")
    if not slash:
        return
    if not step_text.isdigit() or int(step_text) == 0:
        raise ScheduleInvalid("cron", f"'{part}' ({name}) has no step: a whole number from 1 follows the '/'")
    if name == "day of week" and first is not None and last is None:
        hint = f"write the days out, such as '{body}-6/{step_text}'"
        raise ScheduleInvalid(
            "cron", f"'{part}' ({name}) leaves open whether the week ends with 6 or 7: {hint}"
        )
    start = low if first is None else first
    end = high if last is None else last
    if start <= end < start + int(step_text) and int(step_text) > 1:
        hint = f"write '{start}'" if body == "*" or first is not None else "leave the step out"
        raise ScheduleInvalid("cron", f"the step of '{part}' ({name}) leads past {end}: {hint}")


def _number(text: str | None, name: str) -> int | None:
    """The number of a value, which may be given as a name; None: it is none."""
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    names = {"month": _MONTHS, "day of week": _DAYS}.get(name, ())
    if text in names:
        return names.index(text) + (1 if name == "month" else 0)
    return None
