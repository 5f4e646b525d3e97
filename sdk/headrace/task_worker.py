"""Serving tasks: a process that runs what others ask of them with `delay`.

    from headrace.task_worker import serve

    if __name__ == "__main__":
        serve(send_mail, make_thumbnail)

A task worker holds a stream to the server and is handed runs by task key. It runs them in its own process:
plain functions in threads, coroutine functions on an event loop.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from headrace.core.errors import ConfigurationError
from headrace.settings import get_current_settings
from headrace.tasks import Task

__all__ = ["aserve", "serve"]

DEFAULT_LIMIT: Final = 10


async def aserve(
    *tasks: Task[..., Any], limit: int | None = DEFAULT_LIMIT, timeout: float | None = None
) -> None:
    """`serve`, for code on an event loop."""
    from headrace_workers.lines import LineWriter
    from headrace_workers.service import WorkerOptions, WorkerService
    from headrace_workers.tasks import TaskRunWorker

    if not tasks:
        raise ConfigurationError("A task worker without a task has nothing to run: name one.")
    for task in tasks:
        if task.isgenerator:
            raise ConfigurationError(f"Task '{task.name}' is a generator, which cannot be served.")
    by_key = {task.task_key: task for task in tasks}
    writer = LineWriter()
    options = WorkerOptions(task_keys=sorted(by_key), limit=limit, prefetch_seconds=0)
    service = WorkerService(options, TaskRunWorker(by_key), get_current_settings(), writer)
    writer(f"Serving {', '.join(sorted({task.name for task in tasks}))}. Ctrl-C stops it.")
    if timeout is not None:
        asyncio.get_running_loop().call_later(timeout, service.leave)
    try:
        await service.run()
    finally:
        writer.close()


def serve(*tasks: Task[..., Any], limit: int | None = DEFAULT_LIMIT, timeout: float | None = None) -> None:
    """Run what others ask of the tasks with `delay`, from this process, until it is told to stop.

    SIGTERM and Ctrl-C let the runs end that have begun; the second time they are given back to others.

    Args:
        tasks: at least one, none of them a generator. A run is known by the task's key, which changes with
            the function's code.
        limit: runs at once; None: as many as there are.
        timeout: seconds after which it takes nothing new, and returns when nothing runs; None: never.

    Raises:
        ConfigurationError: no task was given, or a generator.
        RuntimeError: an event loop runs here: await `aserve`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError(
            "serve() blocks, and an event loop runs here: await headrace.task_worker.aserve()."
        )
    asyncio.run(aserve(*tasks, limit=limit, timeout=timeout))
