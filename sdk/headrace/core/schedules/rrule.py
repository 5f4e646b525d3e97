"""Recurrence sets of RFC 5545: one start and one zone, rules, extra dates and exceptions."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Final

from headrace.core.schedules.errors import ScheduleInvalid
from headrace.core.schedules.recurrence import COUNT_MAX, Recurrence, parse_recurrence, rule_parts
from headrace.core.schedules.walls import first_instant, instants, wall_before, zone_of

__all__ = ["RRuleRule"]

_CHARACTERS_MAX: Final = 6500
_STAMP: Final = re.compile(r"^(\d{4})(\d{2})(\d{2})(?:T(\d{2})(\d{2})(\d{2})(Z)?)?$")
_START: Final = datetime(2020, 1, 1)
"""Where a rule without DTSTART starts."""
_EXCLUDED_MAX: Final = 20_000
"""How many fires in a row may be excluded before a rule is taken to have ended."""


@dataclass(frozen=True, slots=True)
class RRuleRule:
    """Fires as a recurrence set says.

    Rules that count days or longer, and those that name hours, minutes, seconds, days or months, speak of
    wall times; rules that only count hours, minutes or seconds count time that passes.

    Attributes:
        rrule: an RRULE, or lines of DTSTART, RRULE, EXRULE, RDATE and EXDATE; kept with its DTSTART.
        timezone: IANA name of the zone; empty: that of DTSTART, else UTC.

    Raises:
        ScheduleInvalid: it cannot be read, is too long, or can never fire.
    """

    rrule: str
    timezone: str = ""

    def __post_init__(self) -> None:
        if len(self.rrule) > _CHARACTERS_MAX:
            raise ScheduleInvalid(
                "rrule", f"has {len(self.rrule)} characters; at most {_CHARACTERS_MAX} are taken"
            )
        found = _parsed(self.rrule, self.timezone)
        object.__setattr__(self, "timezone", found.timezone)
        object.__setattr__(self, "rrule", found.text)
        if next(_fires(found, None), None) is None:
            raise ScheduleInvalid("rrule", "never fires: nothing fits all of its parts")

    def after(self, after: datetime) -> Iterator[datetime]:
        """The instants past `after`, ascending, in UTC; it ends when nothing is found for very long."""
        return _fires(_parsed(self.rrule, self.timezone), after)


@dataclass(frozen=True)
class _Set:
    text: str
    timezone: str
    rules: tuple[Recurrence, ...]
    excluding: tuple[Recurrence, ...]
    dates: tuple[datetime, ...]
    excluded: frozenset[datetime]


def _fires(found: _Set, after: datetime | None) -> Iterator[datetime]:
    """The instants of the set past `after`; None: all."""
    streams = [_instants(rule, found.timezone, after) for rule in found.rules]
    streams.append(iter([date for date in found.dates if after is None or date > after]))
    dropped = heapq.merge(*(_instants(rule, found.timezone, after) for rule in found.excluding))
    next_dropped = next(dropped, None)
    last, idle = None, 0
    for fire in heapq.merge(*streams):
        while next_dropped is not None and next_dropped < fire:
            next_dropped = next(dropped, None)
            idle += 1
        idle += 1
        if idle > _EXCLUDED_MAX:
            return
        if fire != last and fire != next_dropped and fire not in found.excluded:
            idle = 0
            yield fire
        last = fire


def _instants(rule: Recurrence, timezone: str, after: datetime | None) -> Iterator[datetime]:
    if rule.count is not None:
        known = _counted(rule, timezone)
        return iter(known if after is None else [fire for fire in known if fire > after])
    return _uncounted(rule, timezone, after)


@lru_cache(maxsize=256)
def _counted(rule: Recurrence, timezone: str) -> tuple[datetime, ...]:
    """All fires of a rule with COUNT, which has to be walked from its start."""
    return tuple(islice(_uncounted(rule, timezone, None), COUNT_MAX))


def _uncounted(rule: Recurrence, timezone: str, after: datetime | None) -> Iterator[datetime]:
    zone = zone_of(timezone)
    if rule.is_elapsed:
        # Counted in UTC, from the instant of the start.
        zone, rule = zone_of("UTC"), _in_utc(rule, timezone)
    walls = rule.walls(rule.start if after is None else wall_before(after, zone))
    found = instants(walls, zone, "wall" if rule.freq in ("HOURLY", "MINUTELY", "SECONDLY") else "fixed")
    return found if after is None else (fire for fire in found if fire > after)


@lru_cache(maxsize=4096)
def _in_utc(rule: Recurrence, timezone: str) -> Recurrence:
    zone = zone_of(timezone)
    until = None if rule.until is None else first_instant(rule.until, zone).replace(tzinfo=None)
    return replace(rule, start=first_instant(rule.start, zone).replace(tzinfo=None), until=until)


# Reading


@lru_cache(maxsize=4096)
def _parsed(text: str, timezone: str) -> _Set:
    lines = _lines(text)
    zone_name = _zone_name(lines, timezone)
    starts = [value for name, _, value in lines if name == "DTSTART"]
    if len(starts) > 1:
        raise ScheduleInvalid("rrule", "has several DTSTART: give one, and a schedule for each of the others")
    start = _wall(starts[0], zone_name, "DTSTART") if starts else _START
    rules: dict[str, list[Recurrence]] = {"RRULE": [], "EXRULE": []}
    dates: dict[str, list[datetime]] = {"RDATE": [], "EXDATE": []}
    for name, _, value in lines:
        if name in rules:
            rules[name].append(_rule(value, start, zone_name))
        elif name in dates:
            walls = [_wall(item, zone_name, name) for item in value.split(",")]
            dates[name] += [first_instant(wall, zone_of(zone_name)) for wall in walls]
    if not rules["RRULE"] and not dates["RDATE"]:
        raise ScheduleInvalid("rrule", "has no rule: give FREQ=..., or RDATE")
    return _Set(
        text=_printed(lines, start),
        timezone=zone_name,
        rules=tuple(rules["RRULE"]),
        excluding=tuple(rules["EXRULE"]),
        dates=tuple(sorted(dates["RDATE"])),
        excluded=frozenset(dates["EXDATE"]),
    )


_Line = tuple[str, dict[str, str], str]


def _lines(text: str) -> list[_Line]:
    """Name, parameters and value of each line; one that begins with a blank goes on with the one before."""
    unfolded = re.sub(r"\r?\n[ \t]", "", text.strip())
    found: list[_Line] = []
    for line in unfolded.split():
        head, colon, value = line.upper().partition(":")
        if not colon:
            head, value = "RRULE", line.upper()
        name, *parameters = head.split(";")
        if name not in ("DTSTART", "RRULE", "EXRULE", "RDATE", "EXDATE"):
            hint = "write FREQ=..., or lines of DTSTART, RRULE, EXRULE, RDATE and EXDATE"
            raise ScheduleInvalid("rrule", f"'{line[:60]}' cannot be read: {hint}")
        original = line.partition(":")[0].split(";")[1:] if parameters else []
        pairs = (parameter.partition("=") for parameter in original)
        found.append((name, {key.upper(): said for key, _, said in pairs}, value))
    if not found:
        raise ScheduleInvalid("rrule", "is empty: give FREQ=...")
    return found


def _zone_name(lines: Sequence[_Line], timezone: str) -> str:
    """The one zone of the set."""
    named = {said["TZID"] for _, said, _ in lines if "TZID" in said}
    if any(name == "DTSTART" and value.endswith("Z") for name, _, value in lines) and not timezone:
        named.add("UTC")
    if timezone:
        named.add(timezone)
    if len(named) > 1:
        raise ScheduleInvalid("timezone", f"the rule and the schedule name several zones: {sorted(named)}")
    name = named.pop() if named else "UTC"
    zone_of(name)
    return name


def _rule(value: str, start: datetime, timezone: str) -> Recurrence:
    said = rule_parts(value).get("UNTIL")
    until = None
    if said is not None:
        # A day as the end takes in the whole of it.
        until = _wall(said, timezone, "UNTIL")
        until += timedelta() if "T" in said else timedelta(hours=23, minutes=59, seconds=59)
    return parse_recurrence(value, start, until)


def _wall(text: str, timezone: str, name: str) -> datetime:
    """The wall time of `20260131T090000`, with a Z that of UTC."""
    match = _STAMP.match(text)
    try:
        if match is None:
            raise ValueError
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
        wall = datetime(year, month, day, hour, minute, second)
    except ValueError:
        raise ScheduleInvalid("rrule", f"{name} must look like 20260131T090000, not '{text[:40]}'") from None
    if match[7]:
        return wall.replace(tzinfo=UTC).astimezone(zone_of(timezone)).replace(tzinfo=None)
    return wall


def _printed(lines: Sequence[_Line], start: datetime) -> str:
    """The set in one form: DTSTART as a wall time of its zone, and the rest as it came."""
    rest = [f"{name}:{value}" for name, _, value in lines if name != "DTSTART"]
    return "\n".join([f"DTSTART:{start:%Y%m%dT%H%M%S}", *rest])
