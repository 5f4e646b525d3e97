"""Which of a schedule's fires get a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headrace.core.clock import to_micros
from headrace.core.schedules import CronRule, IntervalRule, Timing
from headrace_services.domain.schedules import (
    LATE_MICROS,
    ActiveRun,
    CatchUpMode,
    CatchUpRule,
    OverlapMode,
    OverlapRule,
    due_fires,
    judge,
)
from headrace_services.domain.states import PAUSED, RUNNING, SCHEDULED

MINUTELY = Timing(CronRule("* * * * *"))
SECONDLY = Timing(IntervalRule(timedelta(seconds=1), datetime(2026, 1, 1, tzinfo=UTC)))
SECOND = 1_000_000


def at(hour: int, minute: int, second: int = 0) -> int:
    return to_micros(datetime(2026, 1, 1, hour, minute, second, tzinfo=UTC))


def rule(mode: CatchUpMode, max_runs: int = 100, window_hours: float = 168) -> CatchUpRule:
    return CatchUpRule(mode, max_runs, int(window_hours * 3600 * SECOND))


@pytest.mark.parametrize("mode", CatchUpMode)
def test_in_time(mode: CatchUpMode) -> None:
    fires = due_fires(MINUTELY, at(9, 0), at(9, 0), at(9, 0), rule(mode))
    assert fires == ([at(9, 0)], 0, at(9, 1))


@pytest.mark.parametrize("mode", CatchUpMode)
def test_ahead_of_time_up_to_the_horizon(mode: CatchUpMode) -> None:
    fires = due_fires(SECONDLY, at(9, 0), at(9, 0), at(9, 0, 2), rule(mode))
    assert fires == ([at(9, 0), at(9, 0, 1), at(9, 0, 2)], 0, at(9, 0, 3))


@pytest.mark.parametrize(
    "mode, made, missed",
    [
        (CatchUpMode.SKIP, [at(9, 59), at(10, 0)], 59),
        # The newest of all gets a run anyway.
        (CatchUpMode.LATEST, [at(9, 59), at(10, 0)], 59),
        (CatchUpMode.ALL, [*[at(9, minute) for minute in range(60)], at(10, 0)], 0),
    ],
)
def test_an_hour_late(mode: CatchUpMode, made: list[int], missed: int) -> None:
    fires = due_fires(MINUTELY, at(9, 0), at(10, 0), at(10, 0), rule(mode))
    assert fires.next == at(10, 1)
    late = [fire for fire in made if fire > at(10, 0) - LATE_MICROS or mode is CatchUpMode.ALL]
    assert fires.made == late
    assert fires.missed == 61 - len(late)


def test_the_oldest_of_all_first() -> None:
    fires = due_fires(MINUTELY, at(9, 0), at(10, 0, 30), at(10, 0, 30), rule(CatchUpMode.ALL, 10))
    assert fires.made == [*[at(9, minute) for minute in range(10)], at(10, 0)]
    assert fires.missed == 61 - 11


def test_the_newest_of_rare_ones() -> None:
    yearly = Timing(CronRule("0 0 1 1 *"))
    first, now = at(0, 0), to_micros(datetime(2031, 6, 1, tzinfo=UTC))
    fires = due_fires(yearly, first, now, now, rule(CatchUpMode.LATEST, window_hours=24 * 365 * 50))
    assert fires.made == [to_micros(datetime(2031, 1, 1, tzinfo=UTC))] and fires.missed == 5


def test_the_newest_of_very_many() -> None:
    only_at_nine = Timing(CronRule("* 9 * * *"))
    now = at(9, 0) + 30 * 86400 * SECOND + 7200 * SECOND
    fires = due_fires(only_at_nine, at(9, 0), now, now, rule(CatchUpMode.LATEST))
    assert fires.made == [at(9, 59) + 30 * 86400 * SECOND]
    assert fires.missed == 1000  # no more are counted


def test_nothing_older_than_the_window() -> None:
    fires = due_fires(MINUTELY, at(9, 0), at(12, 0, 30), at(12, 0, 30), rule(CatchUpMode.ALL, 1000, 1))
    assert fires.made[0] == at(11, 1) and fires.missed == 121


def test_the_last_fire() -> None:
    timing = Timing(CronRule("* * * * *"), end=datetime(2026, 1, 1, 9, 1, tzinfo=UTC))
    assert due_fires(timing, at(9, 0), at(9, 0), at(9, 0), rule(CatchUpMode.SKIP)) == ([at(9, 0)], 0, None)


RUNS = [
    ActiveRun("own", RUNNING, "Running", "s"),
    ActiveRun("others", PAUSED, "Paused", "t"),
    ActiveRun("manual", RUNNING, "Running", ""),
    ActiveRun("waiting", SCHEDULED, "Queued", "s"),
]


@pytest.mark.parametrize(
    "overlap, active, made, waits, cancelled",
    [
        (OverlapRule(OverlapMode.ALLOW), RUNS, True, False, ()),
        (OverlapRule(OverlapMode.SKIP), [], True, False, ()),
        (OverlapRule(OverlapMode.SKIP), RUNS[:1], False, False, ()),
        (OverlapRule(OverlapMode.SKIP), RUNS[1:2], False, False, ()),
        (OverlapRule(OverlapMode.SKIP, per_schedule=True), RUNS[1:2], True, False, ()),
        (OverlapRule(OverlapMode.SKIP), RUNS[2:3], True, False, ()),
        (OverlapRule(OverlapMode.SKIP, include_manual=True), RUNS[2:3], False, False, ()),
        (OverlapRule(OverlapMode.SKIP, per_schedule=True, include_manual=True), RUNS[2:3], False, False, ()),
        (OverlapRule(OverlapMode.QUEUE), RUNS[:1], True, True, ()),
        (OverlapRule(OverlapMode.QUEUE), RUNS, False, False, ()),
        (OverlapRule(OverlapMode.QUEUE, max_queued=2), RUNS, True, True, ()),
        (OverlapRule(OverlapMode.CANCEL_OLD), RUNS, True, True, ("own", "others", "waiting")),
    ],
)
def test_overlap(
    overlap: OverlapRule, active: list[ActiveRun], made: bool, waits: bool, cancelled: tuple[str, ...]
) -> None:
    verdict = judge(overlap, 0, "s", active)
    assert (verdict.is_made, verdict.waits, verdict.cancelled) == (made, waits, cancelled)
    assert bool(verdict.reason) is not made


def test_the_most_that_wait_to_start() -> None:
    assert judge(OverlapRule(), 2, "s", RUNS).is_made
    verdict = judge(OverlapRule(), 1, "s", RUNS)
    assert not verdict.is_made and "waiting" in verdict.reason
