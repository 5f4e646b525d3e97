"""One try of a task's body: called, timed, awaited, and told by how it ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from headrace.engine.api import LimitPassed
from headrace.engine.deadlines import AttemptLimit, attempt_limit
from headrace.engine.endings import Ending, ending_of_error, ending_of_value
from headrace.exceptions import Abort

if TYPE_CHECKING:
    from headrace.context import TaskRunContext
    from headrace.engine.api import Ops
    from headrace.engine.journal import Journal
    from headrace.tasks import Task

__all__ = ["run_body"]


async def run_body(
    ops: Ops, context: TaskRunContext, journal: Journal, args: list[Any], kwargs: dict[str, Any]
) -> Ending:
    """Run the body of a task once.

    Raises:
        BaseException: it was ended from outside, or by the time limit of a run around it.
    """
    task = context.task
    limit: AttemptLimit | None = None
    own_limit: TimeoutError | None = None
    try:
        if task.timeout_seconds or task.retry_deadline_seconds:
            limit = attempt_limit(ops, context, context.task_run, "Task", task)
        if limit is None:
            value = task.fn(*args, **kwargs)
            if task.is_coroutine:
                value = await value
            elif type(value) is CoroutineType or task.isgenerator:
                value = await _finished(ops, task, value)
        else:
            own_limit = context.limit_error = limit.error
            async with ops.limit(limit.seconds, own_limit, _early_ending(context, journal, limit)):
                value = task.fn(*args, **kwargs)
                value = await _finished(ops, task, value)
        if context.hand_over is not None:
            context.hand_over(value)
    except (Exception, LimitPassed) as raised:
        error = raised.error if isinstance(raised, LimitPassed) else raised
        if error is not own_limit and context.is_ended_by_outer_limit(error):
            raise
        ending = ending_of_error(error, "Task", own_limit)
        ending.is_cut = limit is not None and limit.is_deadline and error is own_limit
        return ending
    finally:
        context.limit_error = None
    return ending_of_value(value)


def _early_ending(
    context: TaskRunContext, journal: Journal, limit: AttemptLimit
) -> Callable[[], object] | None:
    """How to record that time is up without waiting for the body; None when it is to be retried."""
    if context.tries <= context.task.retry_limit and not limit.is_deadline:
        return None

    def record() -> None:
        # Not this process's any longer: the body's own thread finds that out, too.
        with suppress(Abort):
            journal.enter(journal.draft(ending_of_error(limit.error, "Task", limit.error)))

    return record


async def _finished(ops: Ops, task: Task[..., Any], value: Any) -> Any:
    """What a body gives, for one that has still to be awaited or iterated over."""
    if task.isgenerator:
        return await ops.drain(value)
    if task.is_coroutine or type(value) is CoroutineType:
        return await ops.finish(value)
    return value
