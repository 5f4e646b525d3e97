"""Whether and when a failed run gets another attempt."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.core.retry import delay_before_retry

if TYPE_CHECKING:
    from headrace.engine.api import Ops
    from headrace.runs import TaskRun
    from headrace.states import State
    from headrace.tasks import Task

__all__ = ["retry_allowed", "retry_delay"]


async def retry_allowed(
    ops: Ops, log: logging.Logger, task: Task[..., Any], run: TaskRun, failed: State[Any]
) -> bool:
    """Ask the task's retry condition, if it has one; a condition that raises says no."""
    condition = task.retry_condition_fn
    if condition is None:
        return True
    try:
        allowed = bool(await ops.call(condition, task, run, failed))
    except Exception:
        log.error("The retry condition of task %r failed; it is not retried.", task.name, exc_info=True)
        allowed = False
    if not allowed:
        failed.state_details = replace(failed.state_details, retriable=False)
    return allowed


def retry_delay(task: Task[..., Any], retry: int) -> float:
    """Seconds before a retry, counted from 1."""
    return delay_before_retry(retry, task.retry_delays, task.retry_jitter_factor or 0.0, random)
