"""Properties of schedules, and recurrence rules against another engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

from dateutil.rrule import rrulestr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headrace.core.schedules import (
    CronRule,
    IntervalRule,
    RRuleRule,
    Rule,
    ScheduleInvalid,
    Timing,
    interval_text,
    next_fire,
    next_fires,
    parse_interval,
)
from headrace.core.schedules.messages import set_rule, timing_of
from headrace.v1.schedule_pb2 import Schedule

ZONES = st.sampled_from(
    ["UTC", "Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Cairo"]
)
# The other engine walks through every period to the end of the calendar, so that is kept near.
LATE = {
    "SECONDLY": datetime(9999, 12, 31, 8),
    "MINUTELY": datetime(9999, 12, 25),
    "HOURLY": datetime(9999, 7, 1),
    "DAILY": datetime(9994, 1, 1),
}
INSTANTS = st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
INTERVALS = st.timedeltas(timedelta(seconds=1), timedelta(days=400))
CRONS = st.builds(
    lambda minute, hour, day, weekday: f"{minute} {hour} {day} * {weekday}",
    st.sampled_from(["*", "*/7", "0", "30", "15,45"]),
    st.sampled_from(["*", "*/5", "2", "0", "1-4"]),
    st.sampled_from(["*", "L", "1-10"]),
    st.sampled_from(["*", "MON-FRI", "SUN"]),
)


def _some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=3, unique=True).map(lambda found: ",".join(map(str, found)))


@st.composite
def rrules(draw: st.DrawFn, *, is_late: bool = False) -> str:
    freq = draw(st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"]))
    parts = [f"FREQ={freq}", f"INTERVAL={draw(st.integers(1, 5))}"]
    weekdays = st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"])
    # The other engine takes days of both kinds in one rule for days that have to be both.
    if freq in ("YEARLY", "MONTHLY") and draw(st.booleans()):
        weekdays = st.sampled_from(["1MO", "-1FR", "2SU", "-2TU"])
    choices = {
        "BYMONTH": st.integers(1, 12),
        "BYMONTHDAY": st.integers(1, 31) | st.integers(-31, -1),
        "BYDAY": weekdays,
        "BYHOUR": st.integers(0, 23),
        "BYMINUTE": st.integers(0, 59),
        "BYSECOND": st.integers(0, 59),
    }
    if freq == "YEARLY":
        choices |= {
            "BYWEEKNO": st.integers(1, 53) | st.just(-1),
            "BYYEARDAY": st.integers(1, 366) | st.just(-1),
        }
    for name in draw(st.lists(st.sampled_from(sorted(choices)), max_size=3, unique=True)):
        said = draw(_some(choices[name]))
        if said:
            parts.append(f"{name}={said}")
    if freq in ("YEARLY", "MONTHLY", "DAILY") and draw(st.integers(0, 3)) == 0 and len(parts) > 2:
        parts.append(f"BYSETPOS={draw(st.sampled_from([1, 2, -1]))}")
    if draw(st.integers(0, 3)) == 0:
        parts.append(f"COUNT={draw(st.integers(1, 30))}")
    earliest = LATE.get(freq, datetime(9980, 1, 1)) if is_late else datetime(2018, 1, 1)
    start = draw(st.datetimes(earliest, earliest + timedelta(hours=12))).replace(microsecond=0)
    if freq not in LATE:
        start += timedelta(days=draw(st.integers(0, 1500)))
    return f"DTSTART:{start:%Y%m%dT%H%M%S}\nRRULE:{';'.join(parts)}"


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    zone = draw(ZONES)
    kind = draw(st.integers(0, 2))
    if kind == 0:
        policy = draw(st.sampled_from(["vixie", "peer"]))
        return CronRule(draw(CRONS), zone, draw(st.booleans()), policy)  # type: ignore[arg-type]
    if kind == 1:
        return IntervalRule(draw(INTERVALS), draw(INSTANTS), zone)
    return taken(draw(rrules()), zone)


def taken(rrule: str, zone: str = "UTC") -> RRuleRule:
    """The rule, if it ever fires."""
    try:
        return RRuleRule(rrule, zone)
    except ScheduleInvalid as error:
        assert "never fires" in error.reason
        assume(False)
        raise


@settings(max_examples=60, deadline=None)
@given(rules(), INSTANTS)
def test_fires_ascend_and_come_after_the_instant(rule: Rule, after: datetime) -> None:
    fires = next_fires(Timing(rule), after, 30)
    assert all(fire > after for fire in fires)
    assert all(later > earlier for earlier, later in pairwise(fires))


@settings(max_examples=60, deadline=None)
@given(rules(), INSTANTS)
def test_asking_again_continues_the_series(rule: Rule, after: datetime) -> None:
    timing = Timing(rule)
    fires = next_fires(timing, after, 20)
    for place, fire in enumerate(fires[:-1]):
        assert next_fire(timing, fire) == fires[place + 1]
    if len(fires) > 3:
        assert next_fires(timing, fires[2], 5) == fires[3:8]
        between = fires[0] + (fires[1] - fires[0]) / 2
        assert next_fire(timing, between) == fires[1]


@settings(max_examples=50, deadline=None)
@given(rules(), INSTANTS)
def test_a_schedule_survives_being_written_down(rule: Rule, after: datetime) -> None:
    message = Schedule()
    set_rule(message, rule)
    read = timing_of(Schedule.FromString(message.SerializeToString()))
    assert next_fires(read, after, 5) == next_fires(Timing(rule), after, 5)
    again = Schedule()
    set_rule(again, read.rule)
    assert again == message


@given(INTERVALS)
def test_an_interval_survives_being_written_down(interval: timedelta) -> None:
    assert parse_interval(interval_text(interval)) == interval
    assert parse_interval(interval.total_seconds()) == timedelta(seconds=interval.total_seconds())


@settings(max_examples=200, deadline=None)
@given(rrules(is_late=True))
def test_recurrence_rules_mean_what_another_engine_says(rrule: str) -> None:
    try:
        expected = [at.replace(tzinfo=UTC) for at in islice(rrulestr(rrule), 40)]
    except ValueError:  # that engine sees that some rules never fire
        expected = []
    try:
        rule = RRuleRule(rrule)
    except ScheduleInvalid as error:
        assert "never fires" in error.reason and not expected
        return
    assert next_fires(Timing(rule), datetime(9970, 1, 1, tzinfo=UTC), 40) == expected
