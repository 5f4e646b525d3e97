"""Which instants of a range come next, from either end, and how they are counted."""

from __future__ import annotations

import pytest

from headrace.core.schedules import Timing
from headrace.core.schedules.messages import timing_of
from headrace.core.states import StateType
from headrace.v1.backfill_pb2 import (
    BACKFILL_ACTION_LEAVE,
    BACKFILL_ACTION_MAKE,
    BACKFILL_ACTION_RERUN,
    BACKFILL_RERUN_ALL,
    BACKFILL_RERUN_FAILED,
    BACKFILL_RERUN_NONE,
    BackfillCounts,
)
from headrace.v1.schedule_pb2 import Schedule
from headrace_services.domain.backfills import (
    FIRES_MAX,
    Rest,
    action_of,
    count_action,
    count_fires,
    count_outcome,
    take_fires,
)

DAY = 86_400_000_000
BEGIN = 1_800_000_000_000_000


def timing(cron: str) -> Timing:
    schedule = Schedule()
    schedule.cron.cron = cron
    return timing_of(schedule)


# Dense, in bursts with long silences between them, and hardly ever.
@pytest.mark.parametrize("cron, days", [("*/7 * * * *", 1), ("* 3 1 * *", 60), ("0 0 29 2 *", 800)])
@pytest.mark.parametrize("count", [1, 13])
def test_both_ends_give_the_same_instants_whatever_the_steps(cron: str, days: int, count: int) -> None:
    rule, whole = timing(cron), Rest(BEGIN, BEGIN + days * DAY)
    taken: dict[bool, list[int]] = {}
    for newest in (False, True):
        found, rest = taken.setdefault(newest, []), whole
        while not rest.is_empty:
            fires, rest = take_fires(rule, rest, count, newest=newest)
            assert len(fires) <= count
            found += fires
    assert taken[False] == taken[True][::-1] == sorted(set(taken[False]))
    assert len(taken[False]) == count_fires(rule, whole)


def test_more_than_there_may_be_are_not_counted() -> None:
    every_minute = Schedule()
    every_minute.interval.interval.FromSeconds(60)
    every_minute.interval.anchor = "2026-01-01T00:00:00"
    assert count_fires(timing_of(every_minute), Rest(BEGIN, BEGIN + 400 * DAY)) == FIRES_MAX + 1


@pytest.mark.parametrize(
    "state, rerun, action",
    [
        (None, BACKFILL_RERUN_NONE, BACKFILL_ACTION_MAKE),
        (None, BACKFILL_RERUN_ALL, BACKFILL_ACTION_MAKE),
        (StateType.FAILED, BACKFILL_RERUN_NONE, BACKFILL_ACTION_LEAVE),
        (StateType.COMPLETED, BACKFILL_RERUN_FAILED, BACKFILL_ACTION_LEAVE),
        (StateType.COMPLETED, BACKFILL_RERUN_ALL, BACKFILL_ACTION_RERUN),
        (StateType.CRASHED, BACKFILL_RERUN_FAILED, BACKFILL_ACTION_RERUN),
        (StateType.CANCELLED, BACKFILL_RERUN_FAILED, BACKFILL_ACTION_RERUN),
        (StateType.RUNNING, BACKFILL_RERUN_ALL, BACKFILL_ACTION_LEAVE),
        (StateType.SCHEDULED, BACKFILL_RERUN_ALL, BACKFILL_ACTION_LEAVE),
    ],
)
def test_what_becomes_of_an_instant(state: StateType | None, rerun: int, action: int) -> None:
    assert action_of(state, rerun) == action  # type: ignore[arg-type]


def test_counts_add_up() -> None:
    counts = BackfillCounts()
    for action in (BACKFILL_ACTION_MAKE, BACKFILL_ACTION_RERUN, BACKFILL_ACTION_LEAVE, BACKFILL_ACTION_MAKE):
        count_action(counts, action)
    assert (counts.made, counts.rerun, counts.existed, counts.unfinished) == (2, 1, 1, 3)
    for outcome in (StateType.COMPLETED, StateType.CRASHED, None):
        count_outcome(counts, outcome)
    assert (counts.completed, counts.crashed, counts.deleted, counts.unfinished) == (1, 1, 1, 0)
