"""`headrace.schedules`: what users write."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from headrace.core.schedules.messages import timing_of
from headrace.schedules import CatchUp, Cron, Interval, Overlap, RRule, Schedule, ScheduleInvalid
from headrace.v1 import schedule_pb2 as pb
from tests.support.clock_walk import utc


def test_the_short_forms_are_schedules() -> None:
    cron = Cron("0 9 * * *", "Europe/Oslo", False, False, {"n": 1}, "nightly")
    assert cron == Schedule(
        cron="0 9 * * *",
        timezone="Europe/Oslo",
        day_or=False,
        active=False,
        parameters={"n": 1},
        slug="nightly",
    )
    assert Interval(90).interval == timedelta(seconds=90)
    assert Interval("PT15M").interval == Interval("00:15:00").interval == timedelta(minutes=15)
    assert RRule("FREQ=DAILY").rrule == "FREQ=DAILY"


def test_the_next_fires() -> None:
    assert Cron("0 9 * * *", timezone="Europe/Oslo").next(2, after=utc(2026, 3, 28)) == [
        utc(2026, 3, 28, 8),
        utc(2026, 3, 29, 7),
    ]
    ends = Cron("0 * * * *", start=utc(2026, 1, 1, 2), end=utc(2026, 1, 1, 4))
    assert ends.next(after=utc(2025, 1, 1)) == [utc(2026, 1, 1, 2), utc(2026, 1, 1, 3)]
    # Times without a zone are wall times of the schedule's.
    oslo = Cron("0 * * * *", timezone="Europe/Oslo", start=datetime(2026, 7, 1, 12))
    assert oslo.next(1, after=utc(2026, 1, 1)) == [utc(2026, 7, 1, 10)]
    assert len(Interval(60).next()) == 10


def test_the_zone_of_an_anchor_is_that_of_the_interval() -> None:
    anchor = datetime(2026, 1, 1, 9, tzinfo=ZoneInfo("America/New_York"))
    message = Interval(timedelta(days=1), anchor_date=anchor).to_message()
    assert (message.interval.timezone, message.interval.anchor) == ("America/New_York", "2026-01-01T09:00:00")
    assert Interval(timedelta(days=1), anchor_date=anchor).next(1, after=utc(2026, 7, 1)) == [
        utc(2026, 7, 1, 13)
    ]


def test_an_interval_without_an_anchor_says_none() -> None:
    # Or each time it is written down it would be another one.
    assert not Interval(3600).to_message().interval.anchor


def test_everything_reaches_the_message() -> None:
    schedule = Cron(
        "0 9 13 * FRI",
        timezone="Europe/Oslo",
        day_or=False,
        active=False,
        parameters={"n": [1, None]},
        slug="thirteen",
        start=utc(2026, 1, 1),
        end=utc(2027, 1, 1),
        jitter=30,
        catch_up=CatchUp("all", 5, timedelta(hours=1), include_paused=True),
        overlap=Overlap("queue", 3, per_schedule=True, include_manual=True),
        max_scheduled_runs=7,
        dst_policy="peer",
        replaces="friday",
    )
    message = schedule.to_message()
    expected = pb.Schedule(
        slug="thirteen",
        paused=True,
        parameters='{"n": [1, null]}',
        max_scheduled_runs=7,
        replaces="friday",
        cron=pb.CronTiming(
            cron="0 9 13 * FRI", timezone="Europe/Oslo", day_and=True, dst_policy=pb.DST_POLICY_PEER
        ),
        overlap={
            "mode": pb.OVERLAP_MODE_QUEUE, "max_queued": 3, "per_schedule": True, "include_manual": True
        },
        catch_up={
            "mode": pb.CATCH_UP_MODE_ALL, "max_runs": 5, "window": {"seconds": 3600}, "include_paused": True
        },
        jitter={"seconds": 30},
        start={"seconds": int(utc(2026, 1, 1).timestamp())},
        end={"seconds": int(utc(2027, 1, 1).timestamp())},
    )  # fmt: skip
    assert message == expected
    timing = timing_of(message)
    assert timing.start == utc(2026, 1, 1) and timing.end == utc(2027, 1, 1)


@pytest.mark.parametrize(
    "text, meant",
    [
        ("skip", CatchUp("skip")),
        ("latest", CatchUp()),
        ("all", CatchUp("all")),
        ("all(10)", CatchUp("all", 10)),
    ],
)
def test_catching_up_in_a_word(text: str, meant: CatchUp) -> None:
    assert Cron("@daily", catch_up=text).catch_up == meant


@pytest.mark.parametrize(
    "text, meant",
    [
        ("allow", Overlap("allow")),
        ("skip", Overlap("skip")),
        ("queue", Overlap("queue")),
        ("queue( 3 )", Overlap("queue", 3)),
        ("cancel_old", Overlap("cancel-old")),
    ],
)
def test_overlap_in_a_word(text: str, meant: Overlap) -> None:
    schedule = Cron("@daily", overlap=text)
    assert schedule.overlap == meant
    assert pb.OverlapMode.Name(schedule.to_message().overlap.mode).endswith(
        meant.mode.upper().replace("-", "_")
    )


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Schedule(), "given: none"),
        (lambda: Schedule(cron="@daily", rrule="FREQ=DAILY"), "given: cron, rrule"),
        (lambda: Cron("61 * * * *"), "no cron expression"),
        (lambda: Cron("@daily", timezone="Mars"), "no time zone"),
        (lambda: Cron("@daily", catch_up="some"), "none of skip, latest"),
        (lambda: Cron("@daily", catch_up="all(0)"), "between 1 and 1000"),
        (lambda: Cron("@daily", catch_up=CatchUp("all", window=timedelta(-1))), "negative"),
        (lambda: Cron("@daily", overlap="deny"), "none of allow, skip"),
        (lambda: Cron("@daily", overlap="queue(101)"), "between 1 and 100"),
        (lambda: Cron("@daily", jitter=-1), "jitter: must not be negative"),
        (lambda: Cron("@daily", max_scheduled_runs=0), "between 1 and 50"),
        (lambda: Cron("@daily", start=utc(2026, 2, 1), end=utc(2026, 1, 1)), "after the start"),
        (lambda: Interval(0.5), "between 1 second"),
        (lambda: RRule("FREQ=NEVER"), "FREQ must be one of"),
        (lambda: Cron("@daily", parameters={"x": object()}).to_message(), "cannot be written as JSON"),
    ],
)
def test_a_mistake_is_told_where_it_is_made(make: Any, says: str) -> None:
    with pytest.raises(ScheduleInvalid, match=says.replace("(", r"\(")) as caught:
        make()
    assert isinstance(caught.value, ValueError)
    assert pickle.loads(pickle.dumps(caught.value)).field == caught.value.field


def test_a_schedule_can_be_sent_to_another_process() -> None:
    schedule = Interval(60, anchor_date=datetime(2026, 1, 1, tzinfo=UTC), overlap="skip")
    assert pickle.loads(pickle.dumps(schedule)) == schedule


def test_the_engine_of_cron_is_loaded_by_its_first_use() -> None:
    program = "import sys, headrace.schedules; print('croniter' in sys.modules, 'dateutil' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
