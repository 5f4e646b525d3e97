"""Schedules as messages: what `headrace.v1.Schedule` says about when it fires."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.core.schedules.cron import CronRule
from headrace.core.schedules.errors import ScheduleInvalid
from headrace.core.schedules.fires import Rule, Timing
from headrace.core.schedules.interval import IntervalRule
from headrace.core.schedules.rrule import RRuleRule
from headrace.core.schedules.walls import first_instant, zone_of
from headrace.v1.schedule_pb2 import (
    DST_POLICY_PEER,
    DST_POLICY_VIXIE,
    CronTiming,
    IntervalTiming,
    RRuleTiming,
    Schedule,
)

__all__ = ["anchor_text", "set_rule", "timing_of"]

_POLICIES: Final = {"vixie": DST_POLICY_VIXIE, "peer": DST_POLICY_PEER}


def timing_of(schedule: Schedule) -> Timing:
    """When the schedule fires.

    Raises:
        ScheduleInvalid: it has no rule, or one that cannot be kept.
    """
    kind = schedule.WhichOneof("timing")
    if kind is None:
        raise ScheduleInvalid("timing", "is missing: give one of cron, interval and rrule")
    part: Message = getattr(schedule, kind)
    return Timing(
        _rule(kind, part.SerializeToString(deterministic=True)),
        _instant(schedule.start) if schedule.HasField("start") else None,
        _instant(schedule.end) if schedule.HasField("end") else None,
    )


@lru_cache(maxsize=16384)
def _rule(kind: str, body: bytes) -> Rule:
    """The rule of one member of the oneof; equal ones are read once."""
    if kind == "cron":
        cron = CronTiming.FromString(body)
        policy: Literal["vixie", "peer"] = "peer" if cron.dst_policy == DST_POLICY_PEER else "vixie"
        return CronRule(cron.cron, cron.timezone, not cron.day_and, policy)
    if kind == "rrule":
        rrule = RRuleTiming.FromString(body)
        return RRuleRule(rrule.rrule, rrule.timezone)
    interval = IntervalTiming.FromString(body)
    try:
        length = interval.interval.ToTimedelta()
    except (OverflowError, ValueError):
        raise ScheduleInvalid("interval", "is too long") from None
    return IntervalRule(length, _anchor(interval.anchor, interval.timezone), interval.timezone)


def _anchor(text: str, timezone: str) -> datetime:
    """The instant of an anchor, a wall time in the schedule's zone unless it says where it is."""
    try:
        wall = datetime.fromisoformat(text)
    except ValueError:
        hint = "write it like 2026-01-31T09:00:00"
        raise ScheduleInvalid("anchor_date", f"'{text}' is no date and time: {hint}") from None
    if wall.tzinfo is not None:
        return wall.astimezone(UTC)
    return first_instant(wall.replace(fold=0), zone_of(timezone))


def anchor_text(anchor: datetime, timezone: str) -> str:
    """The wall time of `anchor` in the zone, as it is kept; a naive one is a wall time already.

    Args:
        anchor: where the series goes through.
        timezone: IANA name; empty: UTC.
    """
    if anchor.tzinfo is not None:
        anchor = anchor.astimezone(zone_of(timezone)).replace(tzinfo=None)
    return anchor.replace(fold=0).isoformat()


def set_rule(schedule: Schedule, rule: Rule) -> None:
    """Write `rule` into the message, in the one form that is kept."""
    if isinstance(rule, CronRule):
        said = CronTiming(cron=rule.cron, timezone=rule.timezone, day_and=not rule.day_or)
        said.dst_policy = _POLICIES[rule.dst_policy]
        schedule.cron.CopyFrom(said)
    elif isinstance(rule, RRuleRule):
        schedule.rrule.CopyFrom(RRuleTiming(rrule=rule.rrule, timezone=rule.timezone))
    else:
        schedule.interval.Clear()
        schedule.interval.interval.FromTimedelta(rule.interval)
        schedule.interval.anchor = anchor_text(rule.anchor, rule.timezone)
        schedule.interval.timezone = rule.timezone


def _instant(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)
