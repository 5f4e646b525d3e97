"""The worker of background tasks: it runs task runs in its own process."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Self

from headrace.core.errors import ServerUnavailable
from headrace.exceptions import Abort
from headrace.execution.server import recorded_everything
from headrace.execution.task_attempts import TaskAttempt
from headrace.tasks import Task
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.base import BaseJobConfiguration, BaseWorker, BaseWorkerResult
from headrace_workers.health import Vitals

__all__ = ["TaskRunWorker"]

_log = logging.getLogger("headrace.worker")
_LAST_SECONDS: Final = 1.0
"""A body that blocks the loop must not keep the process from ending."""
_RECENT: Final = 100


@dataclass(slots=True)
class _Running:
    attempt: TaskAttempt
    run_id: str
    task_key: str
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    is_abandoned: asyncio.Event = field(default_factory=asyncio.Event)


class TaskRunWorker(BaseWorker[BaseJobConfiguration]):
    """Runs plain functions in threads of their own and coroutine functions on a loop of their own.

    The loop of the stream carries no code of the user, so that heartbeats go on whatever a body does.

    Args:
        tasks: what is served, by task key.
    """

    type: ClassVar[str] = "task"

    def __init__(self, tasks: Mapping[str, Task[..., Any]]) -> None:
        super().__init__()
        self._tasks = tasks
        self._running: dict[str, _Running] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._carry, name="headrace-tasks", daemon=True)
        self._began = datetime.now(UTC)
        self._finished = 0
        # The runs that have ended last, oldest first: run, task key, when it ended, its state.
        self._recent: deque[dict[str, str | None]] = deque(maxlen=_RECENT)
        self._here = f"{socket.gethostname()}:{os.getpid()}"

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    def _carry(self) -> None:
        self._loop.run_forever()
        if not asyncio.all_tasks(self._loop):
            self._loop.close()

    async def __aexit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join, _LAST_SECONDS)

    def status(self, limit: int | None, vitals: Vitals) -> dict[str, Any]:
        """What it does and has done, as JSON.

        Args:
            limit: runs at once; None: any number.
            vitals: how the worker is.
        """
        in_flight: dict[str, dict[str, str]] = {}
        for running in self._running.values():
            in_flight.setdefault(running.task_key, {})[running.run_id] = running.began.isoformat()
        current = len(self._running)
        return {
            "client_id": self._here,
            "started_at": self._began.isoformat(),
            "stopping": vitals.is_draining,
            "limit": limit,
            "current": current,
            "available": None if limit is None else max(limit - current, 0),
            "tasks": sorted(self._tasks),
            "finished": self._finished,
            "in_flight": in_flight,
            "recent": list(self._recent),
        }

    def configure(self, assignment: Assignment, template: Mapping[str, Any]) -> BaseJobConfiguration:
        """There is nothing to configure: the run needs no infrastructure of its own."""
        return BaseJobConfiguration(name=assignment.run.name)

    async def run(
        self, configuration: BaseJobConfiguration, assignment: Assignment, started: Callable[[str], None]
    ) -> BaseWorkerResult:
        """Run a task run; it has ended, on the server too, when this returns."""
        ref, task = assignment.attempt, self._tasks[assignment.run.task_key]
        attempt = TaskAttempt(task, assignment.run, ref.attempt, ref.fence)
        name = f"{self._here}:{ref.run_id}:{ref.fence}"
        running = self._running[name] = _Running(attempt, ref.run_id, assignment.run.task_key)
        started(name)
        abandoned = asyncio.ensure_future(running.is_abandoned.wait())
        ended = asyncio.ensure_future(self._ended(task, attempt))
        try:
            await asyncio.wait((abandoned, ended), return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else BaseWorkerResult(None, "It was ended.")
        finally:
            abandoned.cancel()
            ended.cancel()
            del self._running[name]
            self._finished += 1
            self._recent.append(
                {
                    "run_id": running.run_id,
                    "task_key": running.task_key,
                    "ended_at": datetime.now(UTC).isoformat(),
                    "state": attempt.state_name,
                }
            )

    async def kill_infrastructure(
        self, infrastructure_id: str, configuration: BaseJobConfiguration, grace_seconds: float
    ) -> None:
        """Interrupt a task run, and have nothing to do with it any more."""
        running = self._running.get(infrastructure_id)
        if running is not None:
            running.attempt.abandon("the task worker was told to end it")
            running.is_abandoned.set()

    async def _ended(self, task: Task[..., Any], attempt: TaskAttempt) -> BaseWorkerResult:
        try:
            await asyncio.wrap_future(self._begin(task, attempt))
        except Abort as error:
            return BaseWorkerResult(None, str(error))
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                raise
            # The run is CRASHED, as its record says; others go on.
            _log.error("A task run has ended with %s: %s", type(error).__name__, error)
        while True:
            try:
                await recorded_everything()
                return BaseWorkerResult(0)
            except ServerUnavailable:
                # What has happened is told before the end is, or the run would count as crashed.
                continue

    def _begin(self, task: Task[..., Any], attempt: TaskAttempt) -> Future[Any]:
        if task.isasync:
            return Context().run(asyncio.run_coroutine_threadsafe, attempt.run_async(), self._loop)
        ended: Future[Any] = Future()

        def run() -> None:
            try:
                ended.set_result(attempt.run())
            except BaseException as error:
                ended.set_exception(error)

        # Not of a pool: one that cannot be interrupted must not keep the process from ending.
        threading.Thread(target=Context().run, args=(run,), name="headrace-task", daemon=True).start()
        return ended
