"""One recurrence rule of RFC 5545: its text, and its wall times, with work that is bounded.

A rule without COUNT is entered anywhere by arithmetic, so that what is far from its start costs no more than
what is near. Hours, minutes and seconds that a rule leaves out are jumped over, not walked through.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property
from itertools import product
from typing import Final

from headrace.core.schedules.errors import ScheduleInvalid

__all__ = ["COUNT_MAX", "Recurrence", "parse_recurrence"]

COUNT_MAX: Final = 10_000
"""The largest COUNT that is taken: such a rule has to be walked from its start."""
_IDLE_MAX: Final = 20_000
"""How many days, or shorter periods, without a fire are looked at before a rule is taken to have ended."""
_TIMES_MAX: Final = 1_500
_FREQUENCIES: Final = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
_DAYS: Final = {"YEARLY": 366, "MONTHLY": 31, "WEEKLY": 7}
_SECONDS: Final = {"HOURLY": 3600, "MINUTELY": 60, "SECONDLY": 1}
_WEEKDAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_BOUNDS: Final = {
    "BYMONTH": (1, 12, False),
    "BYMONTHDAY": (1, 31, True),
    "BYYEARDAY": (1, 366, True),
    "BYWEEKNO": (1, 53, True),
    "BYHOUR": (0, 23, False),
    "BYMINUTE": (0, 59, False),
    "BYSECOND": (0, 59, False),
    "BYSETPOS": (1, 366, True),
}
_WEEKDAY: Final = re.compile(r"^([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)$")
_DAY: Final = timedelta(days=1)
_NONE: Final[tuple[int, ...]] = ()


@dataclass(frozen=True)
class Recurrence:
    """What one RRULE or EXRULE says, together with its start.

    Attributes:
        text: the rule, parts in upper case, in the order they were given.
        freq: how long a period is: `YEARLY` ... `SECONDLY`.
        start: wall time of the first fire there can be.
        until: wall time of the last one; None: no end.
        nth_weekdays: (n, weekday): only the n-th of the month or year; n may be negative.

    The rest are the parts of the rule under their own names; weekdays count from Monday = 0.
    """

    text: str
    freq: str
    start: datetime
    interval: int = 1
    count: int | None = None
    until: datetime | None = None
    week_start: int = 0
    months: tuple[int, ...] = _NONE
    month_days: tuple[int, ...] = _NONE
    year_days: tuple[int, ...] = _NONE
    week_numbers: tuple[int, ...] = _NONE
    weekdays: tuple[int, ...] = _NONE
    nth_weekdays: tuple[tuple[int, int], ...] = ()
    hours: tuple[int, ...] = _NONE
    minutes: tuple[int, ...] = _NONE
    seconds: tuple[int, ...] = _NONE
    positions: tuple[int, ...] = _NONE

    @property
    def is_elapsed(self) -> bool:
        """Whether it counts hours, minutes or seconds and says nothing about wall times."""
        days = self.months, self.month_days, self.year_days, self.week_numbers, self.weekdays
        return self.freq in _SECONDS and not any((*days, self.hours, self.minutes, self.seconds))

    def walls(self, start: datetime) -> Iterator[datetime]:
        """The wall times from `start` on, ascending; it ends when nothing is found for very long."""
        if self.count is None:
            yield from self._from(max(start, self.start))
            return
        for number, wall in enumerate(self._from(self.start), 1):
            if wall >= start:
                yield wall
            if number == self.count:
                return

    def _from(self, start: datetime) -> Iterator[datetime]:
        number = self._period_of(start)
        idle = 0
        while idle < _IDLE_MAX:
            try:
                found, step = self._period(number)
            except (OverflowError, ValueError):  # the end of the calendar
                return
            idle += _DAYS.get(self.freq, 1)
            for wall in found:
                if self.until is not None and wall > self.until:
                    return
                if wall >= start:
                    idle = 0
                    yield wall
            if self.until is not None and not found and self._begin(number) > self.until:
                return
            number += step

    # Periods, counted from the one of the start

    def _period_of(self, wall: datetime) -> int:
        """The number of the last period that begins at `wall` or before."""
        if self.freq == "YEARLY":
            return (wall.year - self.start.year) // self.interval
        if self.freq == "MONTHLY":
            return ((wall.year - self.start.year) * 12 + wall.month - self.start.month) // self.interval
        return (wall - self._origin) // self._stride

    @cached_property
    def _origin(self) -> datetime:
        """Where the first period begins, for periods of a fixed length."""
        if self.freq in _SECONDS:
            return self.start
        midnight = datetime.combine(self.start, time())
        if self.freq == "WEEKLY":
            return midnight - ((midnight.weekday() - self.week_start) % 7) * _DAY
        return midnight

    @cached_property
    def _stride(self) -> timedelta:
        if self.freq in _SECONDS:
            return timedelta(seconds=self.interval * _SECONDS[self.freq])
        return timedelta(days=self.interval * (7 if self.freq == "WEEKLY" else 1))

    def _begin(self, number: int) -> datetime:
        if self.freq == "YEARLY":
            return datetime(self.start.year + number * self.interval, 1, 1)
        if self.freq == "MONTHLY":
            months = self.start.year * 12 + self.start.month - 1 + number * self.interval
            return datetime(months // 12, months % 12 + 1, 1)
        return self._origin + number * self._stride

    def _period(self, number: int) -> tuple[list[datetime], int]:
        """The wall times of one period, and how many periods further the next one can be."""
        begin = self._begin(number)
        if self.freq in _SECONDS:
            return self._moment(begin)
        days = 1
        if self.freq == "YEARLY":
            days = 365 + calendar.isleap(begin.year)
        elif self.freq == "MONTHLY":
            days = calendar.monthrange(begin.year, begin.month)[1]
        elif self.freq == "WEEKLY":
            days = 7
        if self.freq in ("YEARLY", "MONTHLY") and self.months and not self._has_month(begin):
            return [], 1
        fitting = [day for day in (begin + n * _DAY for n in range(days)) if self._fits_day(day)]
        walls = [datetime.combine(day, at) for day, at in product(fitting, self._times)]
        return self._at_positions(walls), 1

    def _has_month(self, begin: datetime) -> bool:
        return self.freq == "YEARLY" or begin.month in self.months

    def _moment(self, at: datetime) -> tuple[list[datetime], int]:
        """One hour, minute or second, or how far it is to the next one that can fit."""
        if not self._fits_day(at):
            return [], self._steps_to(at, datetime.combine(at, time()) + _DAY)
        hour = at.replace(minute=0, second=0)
        if self.hours and at.hour not in self.hours:
            return [], self._steps_to(at, hour + timedelta(hours=1))
        minute = at.replace(second=0)
        if self.minutes and self.freq != "HOURLY" and at.minute not in self.minutes:
            return [], self._steps_to(at, minute + timedelta(minutes=1))
        if self.freq == "SECONDLY":
            return ([at] if not self.seconds or at.second in self.seconds else []), 1
        seconds = self.seconds or (self.start.second,)
        minutes = (self.minutes or (self.start.minute,)) if self.freq == "HOURLY" else (at.minute,)
        walls = [hour.replace(minute=m, second=s) for m, s in product(sorted(minutes), sorted(seconds))]
        return self._at_positions(walls), 1

    def _steps_to(self, at: datetime, target: datetime) -> int:
        return max(1, -((at - target) // self._stride))

    def _at_positions(self, walls: list[datetime]) -> list[datetime]:
        if not self.positions:
            return walls
        count = len(walls)
        places = {p - 1 if p > 0 else count + p for p in self.positions}
        return [wall for place, wall in enumerate(walls) if place in places]

    @cached_property
    def _times(self) -> list[time]:
        """The times of day of a rule whose periods are days or longer."""
        hours = sorted(self.hours or (self.start.hour,))
        minutes = sorted(self.minutes or (self.start.minute,))
        return [time(*t) for t in product(hours, minutes, sorted(self.seconds or (self.start.second,)))]

    # Days

    def _fits_day(self, at: datetime) -> bool:
        """Whether the day of `at` fits every part that speaks of days."""
        day = at.date()
        return (
            (not self.months or day.month in self.months)
            and (not self.month_days or self._fits_month_day(day))
            and (not self.year_days or self._fits_year_day(day))
            and (not self.week_numbers or self._fits_week(day))
            and (not (self.weekdays or self.nth_weekdays) or self._fits_weekday(day))
        )

    def _fits_month_day(self, day: date) -> bool:
        length = calendar.monthrange(day.year, day.month)[1]
        return day.day in self.month_days or day.day - length - 1 in self.month_days

    def _fits_year_day(self, day: date) -> bool:
        number = day.timetuple().tm_yday
        return number in self.year_days or number - 366 - calendar.isleap(day.year) in self.year_days

    def _fits_week(self, day: date) -> bool:
        # A week belongs to the year that has most of its days, which is the year of its fourth one.
        fourth = day + (3 - (day.weekday() - self.week_start) % 7) * _DAY
        number = (fourth.timetuple().tm_yday - 1) // 7 + 1
        last = date(fourth.year, 12, 28)
        last_fourth = last + (3 - (last.weekday() - self.week_start) % 7) * _DAY
        count = (last_fourth.timetuple().tm_yday - 1) // 7 + 1
        return number in self.week_numbers or number - count - 1 in self.week_numbers

    def _fits_weekday(self, day: date) -> bool:
        weekday = day.weekday()
        if weekday in self.weekdays:
            return True
        if self.freq == "YEARLY" and not self.months:
            place, length = day.timetuple().tm_yday, 365 + calendar.isleap(day.year)
        else:
            place, length = day.day, calendar.monthrange(day.year, day.month)[1]
        ranks = ((place - 1) // 7 + 1, -((length - place) // 7 + 1))
        return any((rank, weekday) in self.nth_weekdays for rank in ranks)


# Reading


def parse_recurrence(text: str, start: datetime, until: datetime | None) -> Recurrence:
    """The rule `text`, for example `FREQ=WEEKLY;BYDAY=MO,WE`.

    Args:
        text: what follows `RRULE:`.
        start: wall time of the first fire there can be.
        until: what its UNTIL is as a wall time; the caller knows the zone.

    Raises:
        ScheduleInvalid: a part is unknown, twice, or out of its bounds.
    """
    parts = rule_parts(text)
    freq = parts.get("FREQ", "")
    if freq not in _FREQUENCIES:
        raise ScheduleInvalid("rrule", f"FREQ must be one of {', '.join(_FREQUENCIES)}, not '{freq}'")
    count = _whole("COUNT", parts["COUNT"], COUNT_MAX) if "COUNT" in parts else None
    if count is not None and until is not None:
        raise ScheduleInvalid("rrule", "has COUNT and UNTIL: give one of them")
    lists = {name: _numbers(name, parts.get(name, "")) for name in _BOUNDS}
    weekdays, nth = _weekdays(parts.get("BYDAY", ""), freq)
    week_start = parts.get("WKST", "MO")
    if week_start not in _WEEKDAYS:
        raise ScheduleInvalid("rrule", f"WKST must be one of {', '.join(_WEEKDAYS)}")
    _check_size(lists, freq)
    says_days = any(lists[name] for name in ("BYMONTHDAY", "BYYEARDAY", "BYWEEKNO")) or weekdays or nth
    months, month_days = lists["BYMONTH"], lists["BYMONTHDAY"]
    if not says_days and freq in ("YEARLY", "MONTHLY"):
        months = months or ((start.month,) if freq == "YEARLY" else ())
        month_days = (start.day,)
    if not says_days and freq == "WEEKLY":
        weekdays = (start.weekday(),)
    return Recurrence(
        text=";".join(f"{name}={value}" for name, value in parts.items()),
        freq=freq,
        start=start,
        interval=_whole("INTERVAL", parts.get("INTERVAL", "1"), 100_000),
        count=count,
        until=until,
        week_start=_WEEKDAYS.index(week_start),
        months=months,
        month_days=month_days,
        year_days=lists["BYYEARDAY"],
        week_numbers=lists["BYWEEKNO"],
        weekdays=weekdays,
        nth_weekdays=nth,
        hours=lists["BYHOUR"],
        minutes=lists["BYMINUTE"],
        seconds=lists["BYSECOND"],
        positions=lists["BYSETPOS"],
    )


def rule_parts(text: str) -> dict[str, str]:
    """The parts of a rule by name, in upper case.

    Raises:
        ScheduleInvalid: one is no `NAME=value`, unknown, or there twice.
    """
    known = {"FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", *_BOUNDS}
    parts: dict[str, str] = {}
    for part in text.upper().rstrip(";").split(";"):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        name = "BYDAY" if name == "BYWEEKDAY" else name
        if not equals or not value:
            raise ScheduleInvalid("rrule", f"'{part}' is no part of a rule: write NAME=value")
        if name == "BYEASTER":
            raise ScheduleInvalid("rrule", "BYEASTER is not supported: list the days with RDATE")
        if name not in known:
            raise ScheduleInvalid("rrule", f"there is no part '{name}': known are {', '.join(sorted(known))}")
        if name in parts:
            raise ScheduleInvalid("rrule", f"{name} is given twice")
        parts[name] = value
    return parts


def _whole(name: str, text: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:12]) <= most:
        raise ScheduleInvalid("rrule", f"{name} must be a whole number from 1 to {most}, not '{text[:40]}'")
    return int(text)


def _numbers(name: str, text: str) -> tuple[int, ...]:
    low, high, may_be_negative = _BOUNDS[name]
    found: list[int] = []
    for item in text.split(",") if text else ():
        number = int(item) if re.fullmatch(r"[+-]?\d{1,3}", item.strip()) else None
        size = number if number is None or not may_be_negative else abs(number)
        if number is None or size is None or not low <= size <= high:
            sign = " or negative" if may_be_negative else ""
            raise ScheduleInvalid("rrule", f"{name} takes numbers from {low} to {high}{sign}, not '{item}'")
        found.append(number)
    return tuple(found)


def _weekdays(text: str, freq: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    plain: list[int] = []
    nth: list[tuple[int, int]] = []
    for item in text.split(",") if text else ():
        match = _WEEKDAY.match(item.strip())
        if match is None or (match[1] and not 1 <= abs(int(match[1])) <= 53):
            raise ScheduleInvalid("rrule", f"BYDAY takes days such as MO, 2FR or -1SU, not '{item}'")
        day = _WEEKDAYS.index(match[2])
        if match[1] and freq not in ("YEARLY", "MONTHLY"):
            raise ScheduleInvalid("rrule", f"BYDAY={item} counts days of a month or year, and FREQ is {freq}")
        if match[1]:
            nth.append((int(match[1]), day))
        else:
            plain.append(day)
    return tuple(plain), tuple(nth)


def _check_size(lists: dict[str, tuple[int, ...]], freq: str) -> None:
    """Refuse what would make thousands of fires in one period at once."""
    size = max(1, len(lists["BYMINUTE"])) * max(1, len(lists["BYSECOND"]))
    size *= max(1, len(lists["BYHOUR"])) if freq not in _SECONDS else 1
    if size > _TIMES_MAX:
        raise ScheduleInvalid(
            "rrule", f"fires {size} times a period, more than {_TIMES_MAX}: use a higher frequency"
        )
