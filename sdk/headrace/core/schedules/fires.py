"""When a schedule fires: its rule between a start and an end, and the delay that spreads its runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Final, TypeAlias

from headrace.core.schedules.cron import CronRule
from headrace.core.schedules.errors import ScheduleInvalid
from headrace.core.schedules.interval import IntervalRule
from headrace.core.schedules.rrule import RRuleRule

__all__ = ["FIRES_MAX", "Rule", "Timing", "fires_between", "jitter_of", "next_fire", "next_fires"]

Rule: TypeAlias = CronRule | IntervalRule | RRuleRule
FIRES_MAX: Final = 1000
"""How many fires one computation gives at most."""
_MOMENT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Timing:
    """A rule and the time it is in force.

    Attributes:
        rule: when it fires.
        start: no fire before this instant; one at it counts.
        end: no fire at this instant or after.

    Raises:
        ScheduleInvalid: start or end has no time zone, or the end does not come after the start.
    """

    rule: Rule
    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        for name, instant in (("start", self.start), ("end", self.end)):
            if instant is not None and instant.tzinfo is None:
                raise ScheduleInvalid(name, "has no time zone")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ScheduleInvalid("end", "must come after the start")


def _fires(timing: Timing, after: datetime) -> Iterator[datetime]:
    if timing.start is not None:
        after = max(after, timing.start - _MOMENT)
    for fire in timing.rule.after(after.astimezone(UTC)):
        if timing.end is not None and fire >= timing.end:
            return
        yield fire


def next_fires(timing: Timing, after: datetime, count: int) -> list[datetime]:
    """The next `count` fires past `after`, in UTC; fewer when the schedule ends.

    Asking again after any of them continues the same series.

    Args:
        timing: the schedule.
        after: an aware instant; a fire at it does not count.
        count: at most `FIRES_MAX`.

    Raises:
        ValueError: `count` is out of bounds, or `after` has no time zone.
    """
    if not 0 <= count <= FIRES_MAX:
        raise ValueError(f"count must be between 0 and {FIRES_MAX}, not {count}")
    if after.tzinfo is None:
        raise ValueError("after has no time zone")
    return list(islice(_fires(timing, after), count))


@lru_cache(maxsize=16384)
def next_fire(timing: Timing, after: datetime) -> datetime | None:
    """The next fire past `after`, in UTC; None: there is none. Equal schedules are computed once."""
    return next(_fires(timing, after), None)


def fires_between(timing: Timing, begin: datetime, end: datetime, limit: int) -> Iterator[datetime]:
    """The fires in [begin, end), at most `limit`."""
    for fire in islice(_fires(timing, begin - _MOMENT), limit):
        if fire >= end:
            return
        yield fire


def jitter_of(key: str, fire: datetime, jitter_seconds: float) -> timedelta:
    """How much later than `fire` its run starts: always the same for one schedule and one fire.

    Args:
        key: what tells schedules apart, such as their id.
        fire: the fire.
        jitter_seconds: the most there may be.
    """
    if jitter_seconds <= 0:
        return timedelta()
    seed = hashlib.sha256(f"{key} {fire.astimezone(UTC).isoformat()}".encode()).digest()
    return timedelta(microseconds=int(int.from_bytes(seed[:8]) / 2**64 * jitter_seconds * 1_000_000))
