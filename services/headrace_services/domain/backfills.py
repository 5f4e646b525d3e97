"""Backfills: which instants come next, what becomes of each, and what is told of their runs. No I/O."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from headrace.core.clock import from_micros, to_micros
from headrace.core.schedules import Timing, fires_between
from headrace.core.states import StateType
from headrace.v1.backfill_pb2 import (
    BACKFILL_ACTION_LEAVE,
    BACKFILL_ACTION_MAKE,
    BACKFILL_ACTION_RERUN,
    BACKFILL_RERUN_ALL,
    BACKFILL_RERUN_FAILED,
    BACKFILL_STATE_CANCELLING,
    BACKFILL_STATE_PAUSED,
    BACKFILL_STATE_RUNNING,
    BackfillAction,
    BackfillCounts,
    BackfillRerun,
)
from headrace_services.domain.states import CANCELLED, COMPLETED, CRASHED, FAILED, FINAL_TYPES

__all__ = [
    "FIRES_MAX",
    "LIMIT",
    "LIVE",
    "Rest",
    "action_of",
    "count_action",
    "count_fires",
    "count_outcome",
    "filled",
    "take_fires",
]

FIRES_MAX: Final = 50_000
"""How many instants the range of one backfill may have."""
LIMIT: Final = 100
"""How many runs of a backfill may be unfinished at once when it does not say."""
LIVE: Final = (BACKFILL_STATE_RUNNING, BACKFILL_STATE_PAUSED, BACKFILL_STATE_CANCELLING)
"""States in which a backfill has not ended."""
_PLACEHOLDER: Final = re.compile(r"\{\{\s*scheduled_time\s*\}\}")


class Rest(NamedTuple):
    """What is left of a range, microseconds: `begin` is in it and `end` is not."""

    begin: int
    end: int

    @property
    def is_empty(self) -> bool:
        """Nothing is left."""
        return self.begin >= self.end


def count_fires(timing: Timing, rest: Rest) -> int:
    """How many instants the schedule has in the range, counted to one more than `FIRES_MAX`."""
    fires = fires_between(timing, from_micros(rest.begin), from_micros(rest.end), FIRES_MAX + 1)
    return sum(1 for _ in fires)


def take_fires(timing: Timing, rest: Rest, count: int, *, newest: bool) -> tuple[list[int], Rest]:
    """The next instants, microseconds, and what is left after them.

    Args:
        timing: of the schedule.
        rest: what is left before.
        count: how many, at least 1.
        newest: from the end of the range, newest first; else from its beginning, oldest first.
    """
    if rest.is_empty:
        return [], rest
    fires = _last(timing, rest, count) if newest else _first(timing, rest, count)
    if len(fires) < count:
        return fires, Rest(rest.end, rest.end)
    return fires, Rest(rest.begin, fires[-1]) if newest else Rest(fires[-1] + 1, rest.end)


def _first(timing: Timing, rest: Rest, count: int) -> list[int]:
    found = fires_between(timing, from_micros(rest.begin), from_micros(rest.end), count)
    return [to_micros(fire) for fire in found]


def _last(timing: Timing, rest: Rest, count: int) -> list[int]:
    """A rule can only be followed forwards: from ever earlier beginnings, until there are enough."""
    width = count * 1_000_000
    while True:
        begin = max(rest.begin, rest.end - width)
        span = fires_between(timing, from_micros(begin), from_micros(rest.end), FIRES_MAX)
        found = deque(span, maxlen=count)
        if len(found) == count or begin == rest.begin:
            return [to_micros(fire) for fire in reversed(found)]
        width *= 2


def action_of(state: StateType | None, rerun: BackfillRerun.ValueType) -> BackfillAction.ValueType:
    """What becomes of one instant.

    Args:
        state: of its run; None: there is no run.
        rerun: what is asked for.
    """
    if state is None:
        return BACKFILL_ACTION_MAKE
    wanted = rerun == BACKFILL_RERUN_ALL or (rerun == BACKFILL_RERUN_FAILED and state is not COMPLETED)
    return BACKFILL_ACTION_RERUN if wanted and state in FINAL_TYPES else BACKFILL_ACTION_LEAVE


def count_action(counts: BackfillCounts, action: BackfillAction.ValueType) -> None:
    """One instant more has been come to."""
    if action == BACKFILL_ACTION_LEAVE:
        counts.existed += 1
        return
    counts.unfinished += 1
    if action == BACKFILL_ACTION_MAKE:
        counts.made += 1
    else:
        counts.rerun += 1


def count_outcome(counts: BackfillCounts, outcome: StateType | None) -> None:
    """One of the runs has ended; None: it was deleted before."""
    counts.unfinished -= 1
    if outcome is COMPLETED:
        counts.completed += 1
    elif outcome is FAILED:
        counts.failed += 1
    elif outcome is CRASHED:
        counts.crashed += 1
    elif outcome is CANCELLED:
        counts.cancelled += 1
    else:
        counts.deleted += 1


def filled(value: Any, fire: int) -> Any:
    """`value` with the instant of the run in place of `{{ scheduled_time }}` in its texts."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(f"{from_micros(fire):%Y-%m-%dT%H:%M:%SZ}", value)
    if isinstance(value, dict):
        return {key: filled(item, fire) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [filled(item, fire) for item in cast("Sequence[Any]", value)]
    return value
