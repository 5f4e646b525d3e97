"""Tasks in processes of their own on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from headrace.settings import get_current_settings
from headrace.task_runners.elsewhere import ElsewhereTaskRunner

if TYPE_CHECKING:
    from headrace.engine.tasks import TaskCall
    from headrace.execution.processes.children import Children
    from headrace.execution.processes.messages import Ended, Job, Refused

__all__ = ["ProcessPoolTaskRunner"]


class ProcessPoolTaskRunner(ElsewhereTaskRunner):
    """Runs tasks in processes of their own, so that Python code runs on several processors at once.

    Processes are started anew, never forked, when there is work for them, and serve until the flow run ends.
    Task, arguments and result are pickled (cloudpickle: what `__main__` defines, local functions and lambdas
    too; no `if __name__ == "__main__":` is needed). What cannot be pickled fails its task, and no other.
    Futures among the arguments become values before they are sent. The settings, the environment, the tags
    and the runs around a task are those of its submission; context variables of the program stay behind.

    A process that is killed ends its task CRASHED; the next task gets a new process. What a task submits
    itself runs in threads of its process, and has ended when the task has.

    When the body of the flow ends, as many tasks as there are workers are waited for, in the order of
    submission; those beyond them that have not started end CANCELLED.

    Args:
        max_workers: how many processes there are at most. Default: the setting
            `tasks.runner.process_pool.max_workers`, else the number of processors that this process may use.
        initializer: called in each process before its first task. If it fails, so do the tasks.
        initargs: arguments for it.

    Raises:
        ValueError: `max_workers` is less than 1.
        TypeError: `initializer` cannot be called.
    """

    _carries_environment = True

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if max_workers is None:
            max_workers = get_current_settings().tasks_runner_process_pool_max_workers or _processors()
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, got {initializer!r}")
        super().__init__(max_workers)
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._children: Children | None = None

    def duplicate(self) -> Self:
        return type(self)(self._max_workers, self._initializer, self._initargs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ProcessPoolTaskRunner):
            return NotImplemented
        return type(self) is type(other) and self._configuration == other._configuration

    def __hash__(self) -> int:
        return hash((type(self), self._max_workers, self._initializer))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._configuration

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_workers={self._max_workers})"

    @property
    def _configuration(self) -> tuple[Any, ...]:
        return self._max_workers, self._initializer, self._initargs

    def cancel_all(self) -> None:
        super().cancel_all()
        if self._children is not None:
            self._children.cancel_all()

    def _has_abandoned(self) -> bool:
        if not super()._has_abandoned():
            return False
        if self._children is not None:
            self._children.kill_all()
        self._abandon_at = None  # a killed process ends its task at once
        return super()._has_abandoned()

    def __enter__(self) -> Self:
        """Start the runner.

        Raises:
            SerializationError: the initializer or its arguments cannot be pickled.
        """
        from headrace.execution.processes.children import Children
        from headrace.execution.processes.shipping import packed

        call = None if self._initializer is None else packed((self._initializer, self._initargs))
        super().__enter__()
        self._children = Children(call)
        return self

    def _thread_count(self) -> int:
        return self._max_workers or 1

    def _run(
        self, call: TaskCall, make_job: Callable[[bool], Job], references: Sequence[Any]
    ) -> Ended | Refused:
        assert self._children is not None
        return self._children.run(call, make_job)

    def _leave(self) -> None:
        if self._children is not None:
            self._children.close()


def _processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
