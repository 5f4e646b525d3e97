"""Intervals: every so much time, counted from an anchor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from headrace.core.schedules.errors import ScheduleInvalid
from headrace.core.schedules.walls import zone_of

__all__ = ["IntervalRule", "interval_text", "parse_interval"]

_LEAST: Final = timedelta(seconds=1)
_MOST: Final = timedelta(days=36525)
_DAY: Final = timedelta(days=1)
_ISO: Final = re.compile(
    r"^P(?!$)(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d{1,6})?)S)?)?$"
)
_CLOCK: Final = re.compile(r"^(?P<hours>\d+):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d(?:\.\d{1,6})?)$")


def parse_interval(value: timedelta | float | str) -> timedelta:
    """An interval from seconds, a `timedelta`, ISO 8601 (`PT1H30M`, `P1DT12H`) or `HH:MM:SS`.

    Raises:
        ScheduleInvalid: it is none of these, shorter than a second or longer than a hundred years.
    """
    found = value if isinstance(value, timedelta) else _parsed(value)
    if not _LEAST <= found <= _MOST:
        raise ScheduleInvalid("interval", f"must be between 1 second and 100 years, not {value!s}")
    return found


def _parsed(value: float | str) -> timedelta:
    if isinstance(value, str):
        text = value.strip()
        match = _ISO.match(text.upper()) or _CLOCK.match(text)
        if match:
            parts = {unit: float(number) for unit, number in match.groupdict().items() if number}
            return _duration(**parts)
        try:
            value = float(text)
        except ValueError:
            hint = "give seconds, ISO 8601 such as PT15M, or HH:MM:SS"
            raise ScheduleInvalid("interval", f"'{text}' is no interval: {hint}") from None
    return _duration(seconds=value)


def _duration(**parts: float) -> timedelta:
    try:
        return timedelta(**parts)
    except (OverflowError, ValueError):
        raise ScheduleInvalid("interval", "must be between 1 second and 100 years") from None


def interval_text(interval: timedelta) -> str:
    """`interval` as ISO 8601; `parse_interval` gives the same one back."""
    days, rest = interval.days, interval.seconds
    hours, minutes, seconds = rest // 3600, rest // 60 % 60, rest % 60
    time = f"{hours}H" if hours else ""
    time += f"{minutes}M" if minutes else ""
    if interval.microseconds:
        time += f"{seconds}.{interval.microseconds:06}".rstrip("0") + "S"
    elif seconds:
        time += f"{seconds}S"
    return "P" + (f"{days}D" if days else "") + (f"T{time}" if time else "")


@dataclass(frozen=True, slots=True)
class IntervalRule:
    """Fires every `interval`, counted from the anchor in both directions.

    The whole days of the interval are days of the calendar in the zone, the rest is time that passes: 24
    hours keep the wall time of the anchor all year, 90 minutes are 90 minutes across a change of clocks too.
    The n-th fire is computed from the anchor, never from the one before, so that a change moves none of the
    later ones. A day's fire that a gap would skip comes as much later as the gap is long, one that a fold
    doubles comes in the first pass, one on a day without hours does not come.

    Attributes:
        interval: at least one second.
        anchor: an aware instant that the series goes through.
        timezone: IANA name of the zone; empty: UTC.

    Raises:
        ScheduleInvalid: the interval is too short, the anchor has no zone, or there is no such zone.
    """

    interval: timedelta
    anchor: datetime
    timezone: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", parse_interval(self.interval))
        if self.anchor.tzinfo is None:
            raise ScheduleInvalid("anchor_date", "has no time zone")
        object.__setattr__(self, "anchor", self.anchor.astimezone(UTC))
        zone_of(self.timezone)

    def after(self, after: datetime) -> Iterator[datetime]:
        """The instants past `after`, ascending, in UTC, as long as the calendar lasts."""
        # Calendar days are at most a day off from 24 hours each, taken together.
        number = (after - self.anchor) // self.interval
        number -= 2 * _DAY // self.interval + 1 if self.interval.days else 0
        while True:
            try:
                fire = self._fire(number)
            except (OverflowError, ValueError):  # the end of the calendar
                return
            if fire is not None and fire > after:
                yield fire
            number += 1

    def _fire(self, number: int) -> datetime | None:
        days, rest = self.interval.days, timedelta(0, self.interval.seconds, self.interval.microseconds)
        if not days or not number:
            return self.anchor + number * rest
        zone = zone_of(self.timezone)
        wall = self.anchor.astimezone(zone).replace(tzinfo=None, fold=0) + timedelta(days=number * days)
        instant = wall.replace(tzinfo=zone).astimezone(UTC)
        if instant.astimezone(zone).date() != wall.date() and _skips_day(wall, instant, zone.key):
            return None
        return instant + number * rest


def _skips_day(wall: datetime, instant: datetime, timezone: str) -> bool:
    """Whether the day of `wall` has no hours at all."""
    zone = zone_of(timezone)
    noon = wall.replace(hour=12, minute=0, second=0, microsecond=0)
    return noon.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).date() != noon.date()
