"""When cron expressions fire, found out the slow way: every minute of UTC is looked at, one after the other.

Shares nothing with the code under test: neither the engine, nor how expressions are read, nor how wall times
become instants.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
NAMES = {
    **{name: str(number) for number, name in enumerate(MONTHS, 1)},
    **{name: str(number) for number, name in enumerate(DAYS)},
}


@lru_cache(maxsize=512)
def walk(timezone: str, begin: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Every minute of [begin, end) with what the wall shows then."""
    zone = ZoneInfo(timezone)
    minutes = []
    at = begin
    while at < end:
        minutes.append((at, at.astimezone(zone).replace(tzinfo=None, fold=0)))
        at += MINUTE
    return minutes


@lru_cache(maxsize=1024)
def vixie(cron: str, timezone: str, begin: datetime, end: datetime, *, day_or: bool = True) -> list[datetime]:
    """The fires in [begin, end) by the rule of Debian's cron."""
    matches = matcher(cron, day_or)
    fields = cron.split()
    if fields[0].startswith("*") or fields[1].startswith("*"):
        return [at for at, wall in walk(timezone, begin, end) if matches(wall)]
    found = []
    for at, new in _new_walls(timezone, begin, end):
        if any(matches(wall) for wall in new):
            found.append(at)
    return found


def peer(cron: str, timezone: str, begin: datetime, end: datetime, *, day_or: bool = True) -> list[datetime]:
    """The fires in [begin, end) by the rule of Prefect 3."""
    matches = matcher(cron, day_or)
    found = set()
    for at, new in _new_walls(timezone, begin, end):
        for wall in new:
            if matches(wall):  # a wall time that was skipped comes as much later as the gap is long
                found.add(at if wall == new[-1] else at + (wall - new[0]))
    return sorted(at for at in found if begin <= at < end)


@lru_cache(maxsize=64)
def _new_walls(timezone: str, begin: datetime, end: datetime) -> list[tuple[datetime, list[datetime]]]:
    """For each minute the wall times that it shows or skips for the first time, lost days excepted."""
    highest = None
    found = []
    for at, wall in walk(timezone, begin - timedelta(days=2), end):
        if highest is None or wall > highest:
            skipped = []
            if highest is not None:
                missing = highest + MINUTE
                while missing < wall:
                    skipped.append(missing)
                    missing += MINUTE
            whole_days = (
                {
                    day.date()
                    for day in skipped
                    if sum(other.date() == day.date() for other in skipped) == 1440
                }
                if len(skipped) >= 1440
                else set()
            )
            new = [gone for gone in skipped if gone.date() not in whole_days] + [wall]
            highest = wall
            if at >= begin - timedelta(days=1):
                found.append((at, new))
    return [(at, new) for at, new in found if at >= begin or len(new) > 1]


def matcher(cron: str, day_or: bool = True) -> Callable[[datetime], bool]:
    """Whether a wall time fits an expression of five fields."""
    minutes, hours, days, months, weekdays = cron.lower().split()
    minute_set, hour_set = numbers(minutes, 0, 59), numbers(hours, 0, 23)
    month_set = numbers(months, 1, 12)
    open_days, open_weekdays = days in "*?", weekdays in "*?"

    def fits_day(wall: datetime) -> bool:
        by_day = any(_is_day(part, wall) for part in days.split(","))
        by_weekday = any(_is_weekday(part, wall) for part in weekdays.split(","))
        if open_days or open_weekdays or not day_or:
            return by_day and by_weekday
        return by_day or by_weekday

    return lambda wall: (
        wall.minute in minute_set and wall.hour in hour_set and wall.month in month_set and fits_day(wall)
    )


def numbers(text: str, low: int, high: int) -> set[int]:
    """The numbers of a field without L, W and #."""
    found: set[int] = set()
    for part in text.split(","):
        body, _, step = part.partition("/")
        first, _, last = body.partition("-")
        begin = low if body in ("*", "?") else int(NAMES.get(first, first))
        end = (
            high
            if body in ("*", "?") or (step and not last)
            else int(NAMES.get(last or first, last or first))
        )
        if end < begin:
            found.update([*range(begin, high + 1), *range(low, end + 1)])
        else:
            found.update(range(begin, end + 1, int(step or 1)))
    return found


def _is_day(part: str, wall: datetime) -> bool:
    length = calendar.monthrange(wall.year, wall.month)[1]
    if part == "l":
        return wall.day == length
    if part.endswith("w"):
        return wall.day == _working_day_near(wall.year, wall.month, int(part[:-1]))
    return wall.day in numbers(part, 1, 31)


def _working_day_near(year: int, month: int, day: int) -> int:
    """The weekday nearest to a day, within its month."""
    length = calendar.monthrange(year, month)[1]
    for candidate in (day, day - 1, day + 1, day - 2, day + 2):
        if 1 <= candidate <= length and calendar.weekday(year, month, candidate) < 5:
            return candidate
    raise AssertionError("every five days have a working one")


def _is_weekday(part: str, wall: datetime) -> bool:
    weekday = (wall.weekday() + 1) % 7
    if "#" in part:
        name, _, rank = part.partition("#")
        return weekday == int(NAMES.get(name, name)) % 7 and (wall.day - 1) // 7 + 1 == int(rank)
    if part.startswith("l"):
        length = calendar.monthrange(wall.year, wall.month)[1]
        return weekday == int(part[1:]) % 7 and wall.day + 7 > length
    return weekday in {number % 7 for number in numbers(part, 0, 6 if part in "*?" else 7)}


def utc(*parts: int) -> datetime:
    """An instant."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc]


def near(transitions: Sequence[datetime], hours: int) -> list[tuple[datetime, datetime]]:
    """A window around each of the instants."""
    half = timedelta(hours=hours)
    return [(at - half, at + half) for at in transitions]
