"""Cron expressions across changes of clocks, against a walk through every minute."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from headrace.core.schedules import CronRule, Timing, next_fire, next_fires
from headrace.core.schedules.cron import DstPolicy
from tests.support.clock_walk import peer, utc, vixie

EXPRESSIONS = [
    *("* * * * *", "*/15 * * * *", "0 * * * *", "30 * * * *", "5,35 */2 * * *", "0 */2 * * *"),
    *("*/20 2 * * *", "30 2 * * *", "0 2 * * *", "15,45 2 * * *", "30 1 * * *", "0 3 * * *"),
    *("0 0 * * *", "0 9 * * MON-FRI", "30 1,2,3 * * *", "0 2 * * SUN", "59 23 * * *", "0 0 1 * *"),
]
# Where the clocks change, 2026, and two places where they do not.
CHANGES = [
    ("Europe/Oslo", utc(2026, 3, 29, 1)),
    ("Europe/Oslo", utc(2026, 10, 25, 1)),
    ("America/New_York", utc(2026, 3, 8, 7)),
    ("America/New_York", utc(2026, 11, 1, 6)),
    ("Australia/Lord_Howe", utc(2026, 4, 4, 15)),
    ("Australia/Lord_Howe", utc(2026, 10, 3, 15, 30)),
    ("Africa/Casablanca", utc(2026, 2, 15, 2)),
    ("Africa/Casablanca", utc(2026, 3, 22, 2)),
    ("America/Sao_Paulo", utc(2026, 10, 18, 3)),
    ("UTC", utc(2026, 3, 29, 1)),
]
Oracle = Callable[..., list[datetime]]


def fires(rule: CronRule, begin: datetime, end: datetime) -> list[datetime]:
    return next_fires(Timing(rule, end=end), begin - timedelta(microseconds=1), 1000)


def rebuilt(rule: CronRule, begin: datetime, end: datetime, most: int) -> list[datetime]:
    """The same, asked anew after every fire, as a scheduler does."""
    found: list[datetime] = []
    after = begin - timedelta(microseconds=1)
    while len(found) < most and (fire := next_fire(Timing(rule, end=end), after)) is not None:
        found.append(fire)
        after = fire
    return found


def test_there_are_180_cases() -> None:
    assert len(EXPRESSIONS) * len(CHANGES) == 180


@pytest.mark.parametrize("cron", EXPRESSIONS)
@pytest.mark.parametrize("zone, change", CHANGES, ids=lambda value: str(value).replace(" ", "T"))
def test_around_a_change(zone: str, change: datetime, cron: str) -> None:
    begin, end = change - timedelta(hours=38), change + timedelta(hours=38)
    expected = vixie(cron, zone, begin, end)
    rule = CronRule(cron, zone)
    if cron != "* * * * *":
        assert fires(rule, begin, end) == expected
        assert rebuilt(rule, begin, end, 1000) == expected
    else:  # every minute: the hours around the change
        begin, end = change - timedelta(hours=4), change + timedelta(hours=4)
        assert fires(rule, begin, end) == vixie(cron, zone, begin, end)
        assert rebuilt(rule, begin, end, 1000) == vixie(cron, zone, begin, end)
    narrow = change - timedelta(hours=4), change + timedelta(hours=4)
    as_the_peer = CronRule(cron, zone, dst_policy="peer")
    assert fires(as_the_peer, *narrow) == peer(cron, zone, *narrow)
    assert rebuilt(as_the_peer, *narrow, 1000) == peer(cron, zone, *narrow)


@pytest.mark.parametrize(
    "zone, change",
    [
        ("Pacific/Apia", utc(2011, 12, 30, 10)),  # the 30th never was
        ("America/Sao_Paulo", utc(2018, 11, 4, 3)),  # midnight is skipped
        ("America/Sao_Paulo", utc(2018, 2, 18, 2)),  # and doubled
        ("Asia/Beirut", utc(2023, 3, 29, 22)),
        ("Antarctica/Troll", utc(2026, 3, 29, 1)),  # two hours at once
        ("Antarctica/Troll", utc(2026, 10, 25, 1)),
        ("America/Caracas", utc(2016, 5, 1, 7)),  # half an hour, for good
    ],
)
@pytest.mark.parametrize("policy, oracle", [("vixie", vixie), ("peer", peer)])
def test_odd_changes(zone: str, change: datetime, policy: DstPolicy, oracle: Oracle) -> None:
    begin, end = change - timedelta(hours=30), change + timedelta(hours=30)
    for cron in ["0 0 * * *", "30 0 * * *", "0 9 * * *", "15,45 * * * *", "0 1-4 * * *", "0 */3 30 * *"]:
        rule = CronRule(cron, zone, dst_policy=policy)
        assert fires(rule, begin, end) == oracle(cron, zone, begin, end), cron
        assert rebuilt(rule, begin, end, 1000) == oracle(cron, zone, begin, end), cron


def test_any_expression_in_any_zone_in_any_week() -> None:
    """Several hundred drawn at random, always the same ones."""
    draw = random.Random(20261120)
    zones = ["Europe/London", "America/St_Johns", "Asia/Kathmandu", "Africa/Cairo", "Pacific/Chatham"]
    days = ["*", "*", "*", "1", "L", "15W", "1-7", "13,14,15"]
    weekdays = ["*", "*", "*", "MON-FRI", "5#2", "L3", "SUN", "7", "FRI-MON"]
    for _ in range(40):
        zone = draw.choice(zones)
        begin = utc(draw.randrange(2015, 2030), draw.randrange(1, 13), draw.randrange(1, 22))
        end = begin + timedelta(days=draw.choice([3, 8]))
        for _ in range(8):
            day, weekday = draw.choice(days), draw.choice(weekdays)
            if day != "*" and ("#" in weekday or "L" in weekday or "W" in day):
                weekday = "*"  # those are refused
            minute = draw.choice(["*/25", "0", "7,52", "10-50/20", str(draw.randrange(60))])
            hour = draw.choice(["*", "*/5", "1-4", "2", "23", "8-18/3", "22-1"])
            cron = f"{minute} {hour} {day} {draw.choice(['*', '*', 'MAR,OCT', '1-6'])} {weekday}"
            day_or = draw.random() < 0.7
            expected = vixie(cron, zone, begin, end, day_or=day_or)
            found = next_fires(Timing(CronRule(cron, zone, day_or), end=end), begin - _MOMENT, 1000)
            assert found == expected, (cron, zone, begin, day_or)


_MOMENT = timedelta(microseconds=1)
