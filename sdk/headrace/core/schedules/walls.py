"""From what a clock on the wall shows to instants.

A wall time is a naive datetime. In a **gap** (clocks go forward) there are wall times that never come; in a
**fold** (clocks go back) there are some that come twice. What to make of them is the one thing that schedules
have to agree on:

- a **fixed** time comes once a day: skipped by a gap, it is the first instant after it; doubled by a fold,
  its first pass. On a day that has no hours at all (Apia had no 30 December 2011) it does not come;
- a time that **follows the wall** is not there in a gap, and comes in both passes of a fold;
- a **shifted** time comes once a day, in a gap as much later as the gap is long. That is what Prefect 3 does.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from headrace.core.schedules.errors import ScheduleInvalid

__all__ = ["Reading", "first_instant", "instants", "wall_before", "zone_of"]

Reading: TypeAlias = Literal["fixed", "wall", "shifted"]
"""What is made of gaps and folds."""

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """The zone with the IANA name `name`; empty: UTC.

    Raises:
        ScheduleInvalid: there is none.
    """
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleInvalid("timezone", _unknown_zone(name)) from None


def _unknown_zone(name: str) -> str:
    from difflib import get_close_matches

    known = {zone.rpartition("/")[2].lower(): zone for zone in available_timezones()}
    known.update({zone.lower(): zone for zone in known.values()})
    near = get_close_matches(name.replace(" ", "_").lower(), known, n=1, cutoff=0.75)
    hint = f"; did you mean '{known[near[0]]}'?" if near else ", such as 'Europe/Oslo'"
    return f"'{name}' is no time zone: give an IANA name{hint}"


def _instant(wall: datetime, zone: ZoneInfo, fold: int) -> datetime:
    return wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def _shown(instant: datetime, zone: ZoneInfo) -> datetime:
    """What the wall shows at `instant`."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def wall_before(after: datetime, zone: ZoneInfo) -> datetime:
    """A wall time, in whole seconds, that every wall time with an instant past `after` follows or equals.

    Args:
        after: an aware instant.
        zone: where the wall is.
    """
    shown = _shown(after, zone)
    # Within the next day the clocks may go back to wall times that were shown before `after`; and a gap of
    # the last day may have shifted wall times past it.
    try:
        later, earlier = _shown(after + _DAY, zone) - _DAY, _shown(after - _DAY, zone) + _DAY
    except OverflowError:  # an end of the calendar
        later = earlier = shown
    return min(shown, later, earlier).replace(microsecond=0)


def first_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """When `wall` is first shown; in a gap: the first instant after it."""
    before, after = _instant(wall, zone, 0), _instant(wall, zone, 1)
    return before if before <= after else _end_of_gap(after, before, zone)


def _end_of_gap(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """The instant between `low` and `high` at which the clocks go forward."""
    offset = low.astimezone(zone).utcoffset()
    while high - low > _SECOND:
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high


def instants(walls: Iterable[datetime], zone: ZoneInfo, reading: Reading) -> Iterator[datetime]:
    """The instants, in UTC, of ascending wall times: ascending, each once.

    Args:
        walls: naive datetimes in whole seconds.
        zone: where the wall is.
        reading: what becomes of gaps and folds; see above.
    """
    pending: list[datetime] = []  # second passes, which come after first passes that are still to be seen
    last: datetime | None = None
    for wall in walls:
        try:
            found, bound = _instants_of(wall, zone, reading)
        except OverflowError:  # the end of the calendar
            break
        for instant in found:
            heapq.heappush(pending, instant)
        while pending and pending[0] <= bound:
            instant = heapq.heappop(pending)
            if last is None or instant > last:
                yield instant
                last = instant
    while pending:
        instant = heapq.heappop(pending)
        if last is None or instant > last:
            yield instant
            last = instant


def _instants_of(wall: datetime, zone: ZoneInfo, reading: Reading) -> tuple[list[datetime], datetime]:
    """The instants of one wall time, and one that no later wall time comes before."""
    before, after = _instant(wall, zone, 0), _instant(wall, zone, 1)
    if before == after:
        return [before], before
    if before < after:
        return ([before, after] if reading == "wall" else [before]), before
    end = _end_of_gap(after, before, zone)
    if reading == "wall" or _is_day_without_hours(wall, end, zone):
        return [], end
    # A shifted one may come after times that the wall shows right after the gap.
    return [before if reading == "shifted" else end], end


def _is_day_without_hours(wall: datetime, end: datetime, zone: ZoneInfo) -> bool:
    """Whether the gap that ends at `end` swallows the whole day of `wall`."""
    midnight = wall.replace(hour=0, minute=0, second=0)
    last_shown = _shown(end - _SECOND, zone)
    return last_shown < midnight and _shown(end, zone) >= midnight + _DAY
