"""When schedules fire: cron expressions, intervals and recurrence rules, exact across changes of clocks.

Nothing here reads a clock. Instants are aware datetimes in UTC, wall times are naive ones.
"""

from __future__ import annotations

from headrace.core.schedules.cron import CronRule
from headrace.core.schedules.errors import ScheduleInvalid
from headrace.core.schedules.fires import (
    FIRES_MAX,
    Rule,
    Timing,
    fires_between,
    jitter_of,
    next_fire,
    next_fires,
)
from headrace.core.schedules.interval import IntervalRule, interval_text, parse_interval
from headrace.core.schedules.rrule import RRuleRule

__all__ = [
    "FIRES_MAX",
    "CronRule",
    "IntervalRule",
    "RRuleRule",
    "Rule",
    "ScheduleInvalid",
    "Timing",
    "fires_between",
    "interval_text",
    "jitter_of",
    "next_fire",
    "next_fires",
    "parse_interval",
]
