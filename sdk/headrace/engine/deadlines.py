"""The budget of time over all attempts of a run: `retry_deadline_seconds`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.core.budget import UNTIL_DEADLINE
from headrace.engine.endings import deadline_error, limit_error

if TYPE_CHECKING:
    from headrace.context import RunContext
    from headrace.engine.api import Ops
    from headrace.runs import FlowRun, TaskRun

__all__ = ["AttemptLimit", "attempt_limit", "no_more_tries", "retries_text", "seconds_left"]


class AttemptLimit:
    """How long one attempt may take.

    Attributes:
        seconds: the attempt's own limit, or what is left of the budget, whichever ends first.
        error: what is raised when it has passed.
        is_deadline: it ends with the budget, so that no other attempt follows.
    """

    __slots__ = ("error", "is_deadline", "seconds")

    def __init__(self, seconds: float, error: TimeoutError, is_deadline: bool) -> None:
        self.seconds = seconds
        self.error = error
        self.is_deadline = is_deadline


def seconds_left(
    ops: Ops, context: RunContext, run: FlowRun | TaskRun, deadline_seconds: float | None
) -> float | None:
    """What is left of the budget, from the first entry into RUNNING on; None: there is no budget.

    Time in which the run was paused, or waited for a place, does not count.
    """
    if deadline_seconds is None or not run.start_micros:
        return deadline_seconds
    spent = ops.now() - run.start_micros - context.idle_micros
    return deadline_seconds - spent / 1_000_000


def attempt_limit(
    ops: Ops, context: RunContext, run: FlowRun | TaskRun, kind: str, definition: Any
) -> AttemptLimit | None:
    """The limit of an attempt that begins now; None: it has none.

    Args:
        ops: knows the time.
        context: the run's context.
        run: the run, which has entered RUNNING.
        kind: "Flow" or "Task".
        definition: the flow or task.
    """
    seconds, deadline = definition.timeout_seconds, definition.retry_deadline_seconds
    left = seconds_left(ops, context, run, deadline)
    if left is not None and (not seconds or left < seconds):
        # The limit itself: nobody is let in when nothing is left.
        return AttemptLimit(max(left, 0.001), deadline_error(kind, deadline), True)
    return AttemptLimit(seconds, limit_error(kind, seconds), False) if seconds else None


def retries_text(retries: int) -> str:
    """The number of retries, for people."""
    return "as long as the deadline allows" if retries == UNTIL_DEADLINE else str(retries)


def no_more_tries(kind: str, tries: int, deadline_seconds: float, failure: str | None) -> str:
    """Why a failed run is not tried again although it may be: the message of its final state.

    Args:
        kind: "Flow" or "Task".
        tries: how many attempts this process has made.
        deadline_seconds: the budget.
        failure: what the last of them ended with; None: none was made here.
    """
    if failure is None:
        return f"{kind} run was not tried: its retry deadline of {deadline_seconds:g} second(s) has passed."
    attempts = "1 attempt" if tries == 1 else f"{tries} attempts"
    return (
        f"{failure} (given up after {attempts}: the next one would begin past the retry deadline of "
        f"{deadline_seconds:g} second(s))"
    )
