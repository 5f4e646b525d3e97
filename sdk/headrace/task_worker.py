"""Serving tasks: a process that runs what others ask of them with `delay`.

    from headrace.task_worker import serve

    if __name__ == "__main__":
        serve(send_mail, make_thumbnail)

A task worker holds a stream to the server and is handed runs by task key. It runs them in its own process:
plain functions in threads, coroutine functions on an event loop.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from headrace.core.errors import ConfigurationError
from headrace.settings import get_current_settings
from headrace.tasks import Task

__all__ = ["aserve", "serve"]

DEFAULT_LIMIT: Final = 10
_STATUS_HOST: Final = "127.0.0.1"


async def aserve(
    *tasks: Task[..., Any],
    limit: int | None = DEFAULT_LIMIT,
    status_server_port: int | None = None,
    timeout: float | None = None,
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
    worker = TaskRunWorker(by_key)
    options = WorkerOptions(
        task_keys=sorted(by_key),
        limit=limit,
        prefetch_seconds=0,
        health_address=None if status_server_port is None else (_STATUS_HOST, status_server_port),
        status=partial(worker.status, limit),
    )
    service = WorkerService(options, worker, get_current_settings(), writer)
    writer(f"Serving {', '.join(sorted({task.name for task in tasks}))}. Ctrl-C stops it.")
    if timeout is not None:
        asyncio.get_running_loop().call_later(timeout, service.leave)
    try:
        await service.run()
    finally:
        writer.close()


def serve(
    *tasks: Task[..., Any],
    limit: int | None = DEFAULT_LIMIT,
    status_server_port: int | None = None,
    timeout: float | None = None,
) -> None:
    """Run what others ask of the tasks with `delay`, from this process, until it is told to stop.

    SIGTERM and Ctrl-C let the runs end that have begun; the second time they are given back to others.

    Args:
        tasks: at least one, none of them a generator. A run is known by the task's key, which changes with
            the function's code.
        limit: runs at once; None: as many as there are.
        status_server_port: serve `/status`, `/health`, `/ready` and `/metrics` over HTTP there, on loopback;
            0: on any free port, which is printed; None: do not.
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
    asyncio.run(aserve(*tasks, limit=limit, status_server_port=status_server_port, timeout=timeout))
