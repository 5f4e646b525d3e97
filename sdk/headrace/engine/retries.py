"""Whether and when a failed task run gets another attempt."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.core.retry import delay_before_retry
from headrace.core.states import StateType
from headrace.engine.deadlines import no_more_tries, retries_text, seconds_left
from headrace.engine.endings import Ending
from headrace.exceptions import FailedRun
from headrace.states.value import NO_DATA

if TYPE_CHECKING:
    from headrace.context import TaskRunContext
    from headrace.engine.api import Ops
    from headrace.engine.journal import Journal
    from headrace.runs import TaskRun
    from headrace.states import State
    from headrace.tasks import Task

__all__ = ["given_up", "may_try", "unless_retried"]

_log = logging.getLogger("headrace.task_runs")


async def unless_retried(
    ops: Ops, context: TaskRunContext, journal: Journal, ending: Ending, failed: State[Any]
) -> State[Any] | None:
    """The state in which a failed run ends; None: there is another attempt, and the wait for it is over."""
    task, run, tries = context.task, context.task_run, context.tries
    context.check_cancelled()
    if tries > task.retry_limit or ending.is_cut:
        return failed
    delay = delay_before_retry(tries, task.retry_delays, task.retry_jitter_factor or 0.0, random)
    if not may_try(ops, context, delay):
        return _past_deadline(journal, task, tries, failed)
    if not await _is_allowed(ops, task, run, failed):
        return failed
    _log.warning(
        "%s - Retry %s/%s will start %s",
        failed.message or f"Task run failed: {failed}",
        tries,
        retries_text(task.retries),
        f"{delay:g} second(s) from now" if delay else "immediately",
        exc_info=ending.error,
    )
    if delay:
        journal.enter(journal.make_scheduled("AwaitingRetry", delay, failed.message))
        await ops.sleep(delay)
        if not may_try(ops, context):
            return _past_deadline(journal, task, tries, failed)
    return None


def may_try(ops: Ops, context: TaskRunContext, delay_seconds: float = 0) -> bool:
    """Whether an attempt that begins after the delay begins before the deadline, if there is one."""
    left = seconds_left(ops, context, context.task_run, context.task.retry_deadline_seconds)
    return left is None or delay_seconds < left


def _past_deadline(journal: Journal, task: Task[..., Any], tries: int, failed: State[Any]) -> State[Any]:
    """How a run ends that failed, and whose deadline leaves no time for another attempt."""
    deadline = task.retry_deadline_seconds
    assert deadline is not None
    message = no_more_tries("Task", tries, deadline, failed.message or str(failed))
    data = failed.data if failed.has_data else NO_DATA
    return journal.make(failed.type, "Failed", message, data, failed.state_details)


def given_up(task: Task[..., Any]) -> Ending:
    """How a run ends whose deadline has passed before this process could try it."""
    deadline = task.retry_deadline_seconds
    assert deadline is not None
    message = no_more_tries("Task", 0, deadline, None)
    error = FailedRun(message)
    return Ending(StateType.FAILED, "Failed", message, error, error=error)


async def _is_allowed(ops: Ops, task: Task[..., Any], run: TaskRun, failed: State[Any]) -> bool:
    """Ask the task's retry condition, if it has one; a condition that raises says no."""
    condition = task.retry_condition_fn
    if condition is None:
        return True
    try:
        allowed = bool(await ops.call(condition, task, run, failed))
    except Exception:
        _log.error("The retry condition of task %r failed; it is not retried.", task.name, exc_info=True)
        allowed = False
    if not allowed:
        failed.state_details = replace(failed.state_details, retriable=False)
    return allowed
