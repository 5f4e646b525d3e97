"""Tasks in threads of this process."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING, Any, Final, Self

from headrace.execution import api
from headrace.settings import get_current_settings
from headrace.task_runners.base import PoolTaskRunner, logger

if TYPE_CHECKING:
    from headrace.engine.tasks import TaskCall

__all__ = ["ConcurrentTaskRunner", "ThreadPoolTaskRunner"]

_THREADS_MAX: Final = 1000


class ThreadPoolTaskRunner(PoolTaskRunner):
    """Runs tasks in threads of this process.

    A `def` task runs in a thread; an `async def` task in an event loop of its own in a thread, so that it
    goes on while other code blocks its loop. A task takes a thread when everything it depends on has
    ended, not before. Each runs in a copy of the context variables of whoever submitted it.

    A task that waits for tasks which it has submitted itself gives its place up meanwhile, or runs them where
    it stands: one worker is enough for any nesting.

    When the body of the flow ends, as many tasks as there are workers are waited for, in the order of
    submission; those beyond them that have not started end CANCELLED. Without a limit all are waited for.

    Args:
        max_workers: how many tasks run at once. Default: the setting
            `tasks.runner.thread_pool.max_workers`, else no limit worth speaking of: 1000, or fewer where the
            process may not open that many files.

    Raises:
        ValueError: `max_workers` is less than 1.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        if max_workers is None:
            max_workers = get_current_settings().tasks_runner_thread_pool_max_workers
        super().__init__(max_workers)
        self._has_warned = False

    def duplicate(self) -> Self:
        return type(self)(self._max_workers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ThreadPoolTaskRunner):
            return NotImplemented
        return type(self) is type(other) and self._max_workers == other._max_workers

    def __hash__(self) -> int:
        return hash((type(self), self._max_workers))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._max_workers,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_workers={self._max_workers})"

    def _thread_count(self) -> int:
        return self._max_workers or _default_max_workers()

    def _execute(self, call: TaskCall) -> None:
        if call.context.task.isasync:
            asyncio.run(api.run_task_async(call))
        else:
            api.run_task_sync(call)

    def _nested(self, call: TaskCall) -> None:
        if self._has_warned or not self._threads().is_saturated:
            return
        self._has_warned = True
        logger.warning(
            "Task '%s' was submitted from inside a task while all %s workers of the task runner are busy:"
            " it runs in the place of the task that waits for it. Give the task runner more `max_workers` to"
            " have both run at once.",
            call.run.task_name,
            self._thread_count(),
        )


ConcurrentTaskRunner = ThreadPoolTaskRunner


def _default_max_workers() -> int:
    """As many threads as do no harm: the event loop of an async task takes three file descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _THREADS_MAX if soft == resource.RLIM_INFINITY else max(1, min(_THREADS_MAX, soft // 4))
