"""Which schedules are taken, and when those that are not cron expressions fire."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from headrace.core.schedules import (
    CronRule,
    IntervalRule,
    RRuleRule,
    Rule,
    ScheduleInvalid,
    Timing,
    fires_between,
    jitter_of,
    next_fire,
    next_fires,
)
from tests.support.clock_walk import utc

NEW_YORK = ZoneInfo("America/New_York")
DAY = timedelta(days=1)


def walls(rule: Rule, after: datetime, count: int) -> list[str]:
    """The next fires as New York's walls show them."""
    return [f"{fire.astimezone(NEW_YORK):%m-%d %H:%M %Z}" for fire in next_fires(Timing(rule), after, count)]


# Cron


@pytest.mark.parametrize(
    "cron, says",
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("0 9 * *", "has 4 fields"),
        ("0 0 9 * * *", "for seconds give an interval"),
        ("@reboot", "is not a time"),
        ("@every 5m", "there is no '@every 5m'"),
        ("H * * * *", "drawn at random"),
        ("R R * * *", "drawn at random"),
        ("0 r(1-5) * * *", "drawn at random"),
        ("0 0 1-1 * *", "write '1'"),
        ("0 0 * * mon-1", "a range of one"),
        ("59/15 * * * *", "leads past 59: write '59'"),
        ("*/90 * * * *", "leads past 59"),
        ("0 0 * * 6/1", "whether the week ends with 6 or 7"),
        ("*/0 * * * *", "has no step"),
        ("*/x * * * *", "has no step"),
        ("61 * * * *", "no cron expression"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 L * 5#2", "cannot be joined"),
        ("0 0 15W * MON", "cannot be joined"),
        ("0 0 * * FUN", "no cron expression"),
    ],
)
def test_a_cron_expression_that_is_not_taken(cron: str, says: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ScheduleInvalid) as caught:
        CronRule(cron)
    assert says in caught.value.reason and caught.value.field == "cron"
    assert time.perf_counter() - began < 2


# These pin what the engine understands: a release of it that moves one of them does not get in unseen.
@pytest.mark.parametrize(
    "cron, day_or, expected",
    [
        ("@hourly", True, ["01-01 01:00", "01-01 02:00", "01-01 03:00"]),
        ("@WEEKLY", True, ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("5/15 * * * *", True, ["01-01 00:05", "01-01 00:20", "01-01 00:35"]),
        ("0 0 13 * FRI", True, ["01-02 00:00", "01-09 00:00", "01-13 00:00"]),
        ("0 0 13 * FRI", False, ["02-13 00:00", "03-13 00:00", "11-13 00:00"]),
        ("0 0 8-14 * FRI", False, ["01-09 00:00", "02-13 00:00", "03-13 00:00"]),
        ("0 0 L * *", True, ["01-31 00:00", "02-28 00:00", "03-31 00:00"]),
        ("0 0 15W * *", True, ["01-15 00:00", "02-16 00:00", "03-16 00:00"]),
        ("0 0 * * MON#1,FRI#2", True, ["01-05 00:00", "01-09 00:00", "02-02 00:00"]),
        ("0 0 * * L5", True, ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 22-1 * * *", True, ["01-01 01:00", "01-01 22:00", "01-01 23:00"]),
        ("0 0 * * FRI-MON", True, ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("0 0 ? JAN-MAR 7", True, ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("*/59 * * * *", True, ["01-01 00:59", "01-01 01:00", "01-01 01:59"]),
    ],
)
def test_what_a_cron_expression_means(cron: str, day_or: bool, expected: list[str]) -> None:
    fires = next_fires(Timing(CronRule(cron, day_or=day_or)), utc(2026, 1, 1), 3)
    assert [f"{fire:%m-%d %H:%M}" for fire in fires] == expected


@pytest.mark.parametrize(
    "name, hint",
    [
        ("Europe/Olso", "Europe/Oslo"),
        ("new york", "America/New_York"),
        ("-04:00", "give an IANA name"),
        ("../etc", ""),
    ],
)
def test_a_zone_that_does_not_exist(name: str, hint: str) -> None:
    with pytest.raises(ScheduleInvalid, match="is no time zone") as caught:
        CronRule("0 0 * * *", name)
    assert hint in caught.value.reason and caught.value.field == "timezone"


# Intervals


def test_whole_days_keep_the_wall_time() -> None:
    rule = IntervalRule(DAY, datetime(2026, 1, 1, 9, tzinfo=NEW_YORK), "America/New_York")
    assert walls(rule, utc(2026, 7, 1), 1) == ["07-01 09:00 EDT"]
    assert walls(rule, utc(2026, 10, 31, 20), 2) == ["11-01 09:00 EST", "11-02 09:00 EST"]


def test_a_day_moved_by_a_gap_moves_no_other() -> None:
    rule = IntervalRule(DAY, datetime(2026, 1, 1, 2, 30, tzinfo=NEW_YORK), "America/New_York")
    assert walls(rule, utc(2026, 3, 8), 2) == ["03-08 03:30 EDT", "03-09 02:30 EDT"]
    rule = IntervalRule(DAY, datetime(2026, 1, 1, 1, 30, tzinfo=NEW_YORK), "America/New_York")
    assert walls(rule, utc(2026, 11, 1), 2) == ["11-01 01:30 EDT", "11-02 01:30 EST"]


def test_hours_are_time_that_passes() -> None:
    rule = IntervalRule(timedelta(hours=1), datetime(2026, 1, 1, tzinfo=NEW_YORK), "America/New_York")
    assert walls(rule, utc(2026, 3, 8, 5), 3) == ["03-08 01:00 EST", "03-08 03:00 EDT", "03-08 04:00 EDT"]
    assert walls(rule, utc(2026, 11, 1, 4), 3) == ["11-01 01:00 EDT", "11-01 01:00 EST", "11-01 02:00 EST"]


def test_a_day_and_a_half() -> None:
    rule = IntervalRule(timedelta(hours=36), datetime(2026, 3, 7, 9, tzinfo=NEW_YORK), "America/New_York")
    # One day of the calendar, to 9:00 after the change, and twelve hours.
    assert walls(rule, utc(2026, 3, 7, 15), 2) == ["03-08 21:00 EDT", "03-10 09:00 EDT"]


def test_a_day_that_never_was() -> None:
    rule = IntervalRule(DAY, datetime(2011, 12, 28, 9, tzinfo=ZoneInfo("Pacific/Apia")), "Pacific/Apia")
    fires = next_fires(Timing(rule), utc(2011, 12, 28, 18), 3)
    assert [fire.astimezone(ZoneInfo("Pacific/Apia")).day for fire in fires] == [28, 29, 31]


def test_an_anchor_is_a_phase_and_may_be_anywhere() -> None:
    future = IntervalRule(timedelta(hours=6), utc(2030, 1, 1, 3))
    assert next_fires(Timing(future), utc(2026, 1, 1), 2) == [utc(2026, 1, 1, 3), utc(2026, 1, 1, 9)]
    past = IntervalRule(timedelta(seconds=1), utc(1990, 1, 1))
    began = time.perf_counter()
    assert next_fires(Timing(past), utc(2026, 1, 1), 1) == [utc(2026, 1, 1, 0, 0, 1)]
    assert time.perf_counter() - began < 0.2
    offset = IntervalRule(
        DAY, datetime(2026, 1, 1, 9, tzinfo=timezone(-4 * timedelta(hours=1))), "America/New_York"
    )
    assert walls(offset, utc(2026, 7, 1), 1) == ["07-01 08:00 EDT"]  # 13:00 UTC was 8:00 in January


@pytest.mark.parametrize("interval", [0, -5, 0.5, timedelta(0), "P0D", "soon", "1:2:3", "", 1e300, "PT", "P"])
def test_an_interval_that_is_not_taken(interval: timedelta | float | str) -> None:
    with pytest.raises(ScheduleInvalid) as caught:
        IntervalRule(interval, utc(2026, 1, 1))  # type: ignore[arg-type]  # parsed by the rule
    assert caught.value.field == "interval"


def test_an_anchor_without_a_zone_is_not_taken() -> None:
    with pytest.raises(ScheduleInvalid, match="anchor_date: has no time zone"):
        IntervalRule(DAY, datetime(2026, 1, 1))


# Recurrence rules


def test_rules_of_days_speak_of_wall_times() -> None:
    rule = RRuleRule("FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "America/New_York")
    assert walls(rule, utc(2026, 3, 7, 8), 2) == ["03-08 03:00 EDT", "03-09 02:30 EDT"]
    rule = RRuleRule("FREQ=DAILY;BYHOUR=9", "America/New_York")
    assert walls(rule, utc(2026, 3, 7), 3) == ["03-07 09:00 EST", "03-08 09:00 EDT", "03-09 09:00 EDT"]


def test_rules_of_hours_count_time_that_passes() -> None:
    rule = RRuleRule("FREQ=HOURLY", "America/New_York")
    assert walls(rule, utc(2026, 3, 8, 5), 2) == ["03-08 01:00 EST", "03-08 03:00 EDT"]
    assert walls(rule, utc(2026, 11, 1, 4), 3) == ["11-01 01:00 EDT", "11-01 01:00 EST", "11-01 02:00 EST"]
    every_two = RRuleRule("FREQ=HOURLY;INTERVAL=2", "America/New_York")
    fires = next_fires(Timing(every_two), utc(2026, 10, 31), 40)
    assert {later - earlier for earlier, later in pairwise(fires)} == {timedelta(hours=2)}


def test_rules_of_hours_that_name_hours_speak_of_wall_times() -> None:
    rule = RRuleRule("FREQ=HOURLY;BYHOUR=9,10;BYMINUTE=0", "Asia/Kolkata")
    fires = next_fires(Timing(rule), utc(2026, 1, 1), 2)
    assert fires == [utc(2026, 1, 1, 3, 30), utc(2026, 1, 1, 4, 30)]


def test_a_set() -> None:
    rule = RRuleRule(
        "DTSTART;TZID=America/New_York:20260101T090000\n"
        "RRULE:FREQ=DAILY;COUNT=6\n"
        "EXRULE:FREQ=WEEKLY;BYDAY=SA\n"
        "EXDATE:20260102T090000,20260105T090000\n"
        "RDATE:20260104T120000",
    )
    assert rule.timezone == "America/New_York"
    expected = ["01-01 09:00 EST", "01-04 09:00 EST", "01-04 12:00 EST", "01-06 09:00 EST"]
    assert walls(rule, utc(2025, 1, 1), 100) == expected


def test_until_is_the_last_one() -> None:
    rule = RRuleRule("DTSTART:20260101T090000\nRRULE:FREQ=DAILY;UNTIL=20260103T140000Z", "America/New_York")
    assert len(next_fires(Timing(rule), utc(2025, 1, 1), 100)) == 3
    rule = RRuleRule("DTSTART:20260101T090000\nRRULE:FREQ=DAILY;UNTIL=20260103", "America/New_York")
    assert len(next_fires(Timing(rule), utc(2025, 1, 1), 100)) == 3


def test_a_rule_keeps_its_start() -> None:
    assert RRuleRule("FREQ=DAILY").rrule == "DTSTART:20200101T000000\nRRULE:FREQ=DAILY"
    rule = RRuleRule("DTSTART:20260101T120000Z\nRRULE:FREQ=DAILY")
    assert rule.timezone == "UTC"


@pytest.mark.parametrize(
    "rrule, says",
    [
        ("", "is empty"),
        ("every day", "cannot be read|NAME=value"),
        ("FREQ=FORTNIGHTLY", "FREQ must be one of"),
        ("INTERVAL=2", "FREQ must be one of"),
        ("FREQ=DAILY;EVERY=2", "no part 'EVERY'"),
        ("FREQ=DAILY;FREQ=DAILY", "given twice"),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL must be"),
        ("FREQ=DAILY;COUNT=100000", "from 1 to 10000"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20300101", "one of them"),
        ("FREQ=DAILY;BYHOUR=24", "BYHOUR takes numbers"),
        ("FREQ=DAILY;BYHOUR=-1", "BYHOUR takes numbers"),
        ("FREQ=WEEKLY;BYDAY=2MO", "FREQ is WEEKLY"),
        ("FREQ=YEARLY;BYDAY=XX", "days such as MO"),
        ("FREQ=YEARLY;BYEASTER=0", "BYEASTER is not supported"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "never fires"),
        ("FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30", "never fires"),
        ("FREQ=HOURLY;INTERVAL=2;BYHOUR=1", "never fires"),
        ("FREQ=DAILY\nEXRULE:FREQ=DAILY", "never fires"),
        ("FREQ=DAILY;UNTIL=20190101", "never fires"),
        ("FREQ=DAILY;UNTIL=tomorrow", "must look like"),
        ("DTSTART:20261301T000000\nRRULE:FREQ=DAILY", "must look like"),
        ("DTSTART:20260101\nDTSTART:20260102\nRRULE:FREQ=DAILY", "several DTSTART"),
        ("DTSTART;TZID=Mars/Base:20260101\nRRULE:FREQ=DAILY", "no time zone"),
        ("EXDATE:20260101", "has no rule"),
        ("RDATE:" + ",".join(["20260101T000000"] * 500), "at most 6500"),
        (
            "FREQ=DAILY;BYMINUTE="
            + ",".join(map(str, range(60)))
            + ";BYSECOND="
            + ",".join(map(str, range(60))),
            "a period",
        ),
    ],
)
def test_a_recurrence_rule_that_is_not_taken(rrule: str, says: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ScheduleInvalid, match=says):
        RRuleRule(rrule)
    assert time.perf_counter() - began < 2


def test_two_zones_are_not_taken() -> None:
    with pytest.raises(ScheduleInvalid, match="several zones"):
        RRuleRule("DTSTART;TZID=Europe/Oslo:20260101\nRRULE:FREQ=DAILY", "Asia/Tokyo")


@pytest.mark.parametrize(
    "rrule",
    [
        "FREQ=SECONDLY",
        "DTSTART:19700101T000000\nRRULE:FREQ=SECONDLY;INTERVAL=7",
        "DTSTART:19700101T000000\nRRULE:FREQ=MINUTELY",
        "FREQ=SECONDLY;BYHOUR=3;BYMINUTE=4;BYSECOND=5;BYMONTH=2;BYMONTHDAY=29",
        "DTSTART:19700101T000000\nRRULE:FREQ=WEEKLY;INTERVAL=3",
        "FREQ=DAILY;COUNT=10000",
    ],
)
def test_the_next_fire_costs_little_wherever_the_rule_starts(rrule: str) -> None:
    timing = Timing(RRuleRule(rrule))
    began = time.perf_counter()
    assert next_fires(timing, utc(2026, 11, 20, 12), 1)
    assert time.perf_counter() - began < 1


# Start, end, bounds


def test_start_and_end() -> None:
    rule = CronRule("0 * * * *")
    timing = Timing(rule, start=utc(2026, 1, 1, 3), end=utc(2026, 1, 1, 6))
    assert next_fires(timing, utc(2025, 1, 1), 10) == [utc(2026, 1, 1, hour) for hour in (3, 4, 5)]
    assert next_fire(timing, utc(2026, 1, 1, 5)) is None
    with pytest.raises(ScheduleInvalid, match="must come after the start"):
        Timing(rule, start=utc(2026, 1, 1), end=utc(2026, 1, 1))
    with pytest.raises(ScheduleInvalid, match="start: has no time zone"):
        Timing(rule, start=datetime(2026, 1, 1))


def test_a_range_has_its_first_instant_and_not_its_last() -> None:
    timing = Timing(CronRule("0 * * * *"))
    found = list(fires_between(timing, utc(2026, 1, 1), utc(2026, 1, 1, 3), 100))
    assert found == [utc(2026, 1, 1, hour) for hour in (0, 1, 2)]
    assert len(list(fires_between(timing, utc(2026, 1, 1), utc(2027, 1, 1), 100))) == 100


def test_a_count_is_bounded_and_the_instant_has_a_zone() -> None:
    timing = Timing(CronRule("* * * * *"))
    with pytest.raises(ValueError, match="between 0 and 1000"):
        next_fires(timing, utc(2026, 1, 1), 1001)
    with pytest.raises(ValueError, match="no time zone"):
        next_fires(timing, datetime(2026, 1, 1), 1)


def test_the_calendar_ends() -> None:
    late = datetime(9999, 12, 31, 23, 58, tzinfo=UTC)
    for rule in (
        CronRule("* * * * *"),
        IntervalRule(timedelta(minutes=1), utc(2026, 1, 1)),
        RRuleRule("FREQ=MINUTELY"),
    ):
        assert len(next_fires(Timing(rule), late, 10)) <= 1


def test_jitter_is_always_the_same_and_spreads() -> None:
    fire = utc(2026, 1, 1)
    delays = [jitter_of(f"schedule-{number}", fire, 60).total_seconds() for number in range(400)]
    assert all(0 <= delay < 60 for delay in delays)
    assert delays == [jitter_of(f"schedule-{number}", fire, 60).total_seconds() for number in range(400)]
    assert 25 < sum(delays) / 400 < 35
    assert jitter_of("schedule", fire, 0) == timedelta()
    assert jitter_of("schedule", fire, 60) != jitter_of("schedule", fire + DAY, 60)
