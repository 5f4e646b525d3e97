"""What is made of a schedule's fires: which of those that are due get a run, and whether it may start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from enum import Enum
from itertools import islice
from typing import Final, NamedTuple

from headrace.core.clock import from_micros, to_micros
from headrace.core.schedules import Timing, fires_between, next_fire
from headrace.core.states import StateType
from headrace.v1.schedule_pb2 import (
    CATCH_UP_MODE_ALL,
    CATCH_UP_MODE_SKIP,
    OVERLAP_MODE_CANCEL_OLD,
    OVERLAP_MODE_QUEUE,
    OVERLAP_MODE_SKIP,
    OVERLAP_MODE_UNSPECIFIED,
    CatchUp,
    Overlap,
)
from headrace_services.domain.states import SCHEDULED

__all__ = [
    "LATE_MICROS",
    "LEAD_MICROS",
    "LEAST_LEAD_MICROS",
    "QUEUED",
    "ActiveRun",
    "CatchUpMode",
    "CatchUpRule",
    "Fires",
    "Judgement",
    "OverlapMode",
    "OverlapRule",
    "blockers",
    "catch_up_rule",
    "due_fires",
    "judge",
    "lead_before",
    "overlap_rule",
]

_SECOND: Final = 1_000_000
LEAD_MICROS: Final = 20 * _SECOND
"""How long before its instant a run may be made: so that many at one instant are there in time."""
LEAST_LEAD_MICROS: Final = 5 * _SECOND
"""The same for one that comes so often that many of its own would be made ahead."""
LATE_MICROS: Final = 60 * _SECOND
"""A fire that is dealt with at most this much later is late; a later one was missed."""
QUEUED: Final = "Queued"
"""Name of the SCHEDULED state of a run that waits for an earlier one to end."""
_WINDOW_MICROS: Final = 7 * 24 * 3600 * _SECOND
_COUNTED: Final = 1000
_ALL_DEFAULT: Final = 100


class CatchUpMode(Enum):
    """What becomes of fires that were missed."""

    SKIP = "skip"
    LATEST = "latest"
    ALL = "all"


class CatchUpRule(NamedTuple):
    """What becomes of fires that were missed.

    Attributes:
        mode: none, the newest, or all of them get a run.
        max_runs: how many at most, oldest first, with ALL.
        window: older ones are never made up for, microseconds.
        include_paused: those of the time when the deployment was paused count too.
    """

    mode: CatchUpMode = CatchUpMode.LATEST
    max_runs: int = _ALL_DEFAULT
    window: int = _WINDOW_MICROS
    include_paused: bool = False


def catch_up_rule(message: CatchUp) -> CatchUpRule:
    """The rule that the message says."""
    modes = {CATCH_UP_MODE_SKIP: CatchUpMode.SKIP, CATCH_UP_MODE_ALL: CatchUpMode.ALL}
    window = message.window.seconds * _SECOND + message.window.nanos // 1000
    return CatchUpRule(
        modes.get(message.mode, CatchUpMode.LATEST),
        message.max_runs or _ALL_DEFAULT,
        window if message.HasField("window") else _WINDOW_MICROS,
        message.include_paused,
    )


class Fires(NamedTuple):
    """What to do about a schedule that is due. Instants in microseconds.

    Attributes:
        made: the fires that get a run, oldest first.
        missed: how many get none; counted up to 1000.
        next: the one after all these; None: there is none.
    """

    made: list[int]
    missed: int
    next: int | None


def lead_before(fire: int | None, earlier: int | None) -> int:
    """How long before its instant the run of a fire is made, by the time between it and another fire."""
    if fire is None or earlier is None:
        return LEAD_MICROS
    return min(max(abs(fire - earlier) // 3, LEAST_LEAD_MICROS), LEAD_MICROS)


def due_fires(timing: Timing, first: int, now: int, horizon: int, rule: CatchUpRule) -> Fires:
    """Which fires get a run now.

    A fire that is late gets one in any case. Of those that were missed, `LATEST` makes up for the newest
    one, unless a younger fire gets a run anyway.

    Args:
        timing: of the schedule.
        first: the oldest fire that was not dealt with.
        now: the clock.
        horizon: fires up to here, itself included, are due.
        rule: of the schedule.
    """
    border = now - LATE_MICROS
    on_time: list[int] = []
    fire = first if first > border else _next(timing, border)
    while fire is not None and fire <= horizon:
        on_time.append(fire)
        fire = _next(timing, fire)
    if first > border:
        return Fires(on_time, 0, fire)
    made = _made_up_for(timing, max(first, now - rule.window), border, rule, bool(on_time))
    # One more than are counted, should all of them be made.
    count = sum(1 for _ in _between(timing, first, border, _COUNTED + len(made)))
    return Fires([*made, *on_time], max(count - len(made), 0), fire)


def _made_up_for(
    timing: Timing, begin: int, border: int, rule: CatchUpRule, is_superseded: bool
) -> list[int]:
    if rule.mode is CatchUpMode.ALL:
        return list(_between(timing, begin, border, rule.max_runs))
    if rule.mode is CatchUpMode.SKIP or is_superseded:
        return []
    return _newest(timing, begin, border)


def _newest(timing: Timing, begin: int, end: int) -> list[int]:
    """The last fire in [begin, end], looked for from the end: there may be very many."""
    span, newest = LATE_MICROS, list[int]()
    start = max(begin, end - span)
    while not newest and start < end:
        newest = list(_between(timing, start, end, _COUNTED))
        if start == begin:
            break
        span *= 2
        start = max(begin, end - span)
    while len(newest) == _COUNTED:  # the last of them may be further on
        newest = [newest[-1], *_between(timing, newest[-1] + 1, end, _COUNTED - 1)]
    return newest[-1:]


def _between(timing: Timing, begin: int, end: int, limit: int) -> Iterator[int]:
    """The fires in [begin, end], at most `limit`."""
    if begin > end:
        return iter(())
    last = from_micros(end) + timedelta(microseconds=1)
    return (to_micros(fire) for fire in islice(fires_between(timing, from_micros(begin), last, limit), limit))


def _next(timing: Timing, after: int) -> int | None:
    fire = next_fire(timing, from_micros(after))
    return None if fire is None else to_micros(fire)


# Overlap


class OverlapMode(Enum):
    """What becomes of a fire while an earlier run has not ended."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"
    CANCEL_OLD = "cancel-old"


class OverlapRule(NamedTuple):
    """What becomes of a fire while an earlier run has not ended.

    Attributes:
        mode: what becomes of it.
        max_queued: how many may wait, with QUEUE.
        per_schedule: only runs of the same schedule count.
        include_manual: runs that no schedule made count too.
    """

    mode: OverlapMode = OverlapMode.ALLOW
    max_queued: int = 1
    per_schedule: bool = False
    include_manual: bool = False


def overlap_rule(message: Overlap) -> OverlapRule | None:
    """The rule that the message says; None: it says none."""
    if message.mode == OVERLAP_MODE_UNSPECIFIED:
        return None
    modes = {
        OVERLAP_MODE_SKIP: OverlapMode.SKIP,
        OVERLAP_MODE_QUEUE: OverlapMode.QUEUE,
        OVERLAP_MODE_CANCEL_OLD: OverlapMode.CANCEL_OLD,
    }
    return OverlapRule(
        modes.get(message.mode, OverlapMode.ALLOW),
        message.max_queued or 1,
        message.per_schedule,
        message.include_manual,
    )


class ActiveRun(NamedTuple):
    """A run of the deployment that has not ended.

    Attributes:
        id: of the run.
        type: of its state.
        name: of its state.
        schedule_id: of the schedule that made it; empty: it was made by hand.
    """

    id: str
    type: StateType
    name: str
    schedule_id: str

    @property
    def waits_for_overlap(self) -> bool:
        """Whether it waits for an earlier one to end."""
        return self.type is SCHEDULED and self.name == QUEUED


class Judgement(NamedTuple):
    """What becomes of one fire.

    Attributes:
        is_made: it gets a run.
        waits: the run waits until those in the way have ended.
        cancelled: ids of the runs that are asked to end.
        reason: why there is no run, as a sentence.
    """

    is_made: bool
    waits: bool = False
    cancelled: tuple[str, ...] = ()
    reason: str = ""


def blockers(rule: OverlapRule, schedule_id: str, active: Sequence[ActiveRun]) -> list[ActiveRun]:
    """Those of the runs that count as earlier ones of the schedule."""
    return [
        run
        for run in active
        if (run.schedule_id or rule.include_manual)
        and (not rule.per_schedule or run.schedule_id in ("", schedule_id))
    ]


def judge(rule: OverlapRule, max_scheduled: int, schedule_id: str, active: Sequence[ActiveRun]) -> Judgement:
    """What becomes of a fire of the schedule.

    Args:
        rule: of the schedule, or of its deployment.
        max_scheduled: how many runs of the schedule may wait to start; 0: any number.
        schedule_id: of the schedule.
        active: the runs of the deployment that have not ended.
    """
    waiting = [run for run in active if run.schedule_id == schedule_id and run.type is SCHEDULED]
    if max_scheduled and len(waiting) >= max_scheduled:
        return Judgement(
            False, reason=f"{len(waiting)} runs of the schedule wait to start, such as {waiting[0].id}."
        )
    earlier = blockers(rule, schedule_id, active)
    if not earlier or rule.mode is OverlapMode.ALLOW:
        return Judgement(True)
    if rule.mode is OverlapMode.SKIP:
        return Judgement(False, reason=f"Run {earlier[0].id} had not ended.")
    if rule.mode is OverlapMode.CANCEL_OLD:
        return Judgement(True, waits=True, cancelled=tuple(run.id for run in earlier))
    queued = [run for run in earlier if run.waits_for_overlap]
    if len(queued) >= rule.max_queued:
        return Judgement(False, reason=f"{len(queued)} runs wait already, such as {queued[0].id}.")
    return Judgement(True, waits=True)
