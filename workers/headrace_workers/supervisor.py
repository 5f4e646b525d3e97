"""Between a session and a worker class: one task per run, from its configuration to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from headrace.core.errors import HeadraceException
from headrace.v1.worker_service_pb2 import Assignment, PoolSnapshot
from headrace_workers.actions import Attempt
from headrace_workers.base import BaseJobConfiguration, BaseWorker, BaseWorkerResult, json_object

__all__ = ["Listener", "Supervisor"]

SIGTERM_SHARE: Final = 0.5
"""After this part of a cancellation's grace a process that does not end by itself is asked to."""
LEAST_GRACE_SECONDS: Final = 0.1
_log = logging.getLogger("headrace.worker")


class Listener(Protocol):
    """Who wants to know what becomes of the work."""

    def removed(self, attempt: Attempt, removed: bool) -> None:
        """What the removal of something that was not begun here came to."""
        ...

    def started(self, attempt: Attempt, infrastructure_id: str) -> None:
        """The infrastructure is there."""
        ...

    def exited(self, attempt: Attempt, exit_code: int | None, message: str, never_started: bool) -> None:
        """The infrastructure is gone."""
        ...


@dataclass(slots=True)
class _Job:
    assignment: Assignment
    configuration: BaseJobConfiguration | None = None
    infrastructure_id: str = ""
    killed_because: str = ""
    is_cancelled: bool = False
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Has a worker class do what a session asks for.

    Args:
        worker: the class's instance, ready.
        pool: what the server last said of the pool.
        tell: shows a line.

    Attributes:
        listener: set before the first run is begun.
        begun: runs that were.
    """

    listener: Listener

    def __init__(
        self, worker: BaseWorker[Any], pool: Callable[[], PoolSnapshot], tell: Callable[[str], None]
    ) -> None:
        self._worker = worker
        self._pool = pool
        self._tell = tell
        self._jobs: dict[Attempt, _Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.begun = 0

    @property
    def running(self) -> int:
        """Runs that have not ended."""
        return len(self._jobs)

    async def idle(self, timeout_seconds: float) -> None:
        """Wait until nothing runs, or the time is up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_seconds)

    # What the session wants.

    def begin(self, attempt: Attempt, assignment: Assignment) -> None:
        """Start a run."""
        self.begun += 1
        job = self._jobs[attempt] = _Job(assignment)
        job.task = self._spawn(self._see_through(attempt, job))

    def cancel(self, attempt: Attempt, grace_seconds: float, reason: str) -> None:
        """Let a run end by itself, and make it end when the grace is over."""
        job = self._jobs.get(attempt)
        if job is not None and not job.is_cancelled:
            job.is_cancelled = True
            self._spawn(self._cancel(attempt, job, max(grace_seconds, LEAST_GRACE_SECONDS), reason))

    def kill(self, attempt: Attempt, reason: str) -> None:
        """End a run now."""
        job = self._jobs.get(attempt)
        if job is not None:
            job.killed_because = job.killed_because or reason
            self._spawn(self._end(job, 0.0))

    def let_go(self, attempt: Attempt) -> None:
        """Have nothing to do with a run any more; it goes on."""
        job = self._jobs.get(attempt)
        if job is not None and job.task is not None:
            self._tell(f"Run {attempt.run_id} goes on without this worker.")
            job.task.cancel()

    def remove(self, attempt: Attempt, infrastructure_id: str) -> None:
        """Remove what may be left of a run."""
        self._spawn(self._remove(attempt, infrastructure_id))

    # How it is done.

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("A worker class has failed: %s: %s", type(error).__name__, error, exc_info=error)

    async def _see_through(self, attempt: Attempt, job: _Job) -> None:
        name = job.assignment.run.name or attempt.run_id
        found = job.assignment.infrastructure_id
        self._tell(f"Run {name} ({attempt.run_id}) {f'goes on in {found}' if found else 'begins'}.")
        try:
            result = await self._run(attempt, job)
        finally:
            del self._jobs[attempt]
        message = result.message
        if job.killed_because:
            message = f"It was ended because {job.killed_because}."
        code = "" if result.status_code is None else f" with exit code {result.status_code}"
        self._tell(f"Run {name} ({attempt.run_id}) has ended{code}.")
        self.listener.exited(attempt, result.status_code, message, result.never_started)

    async def _run(self, attempt: Attempt, job: _Job) -> BaseWorkerResult:
        found = job.assignment.infrastructure_id
        try:
            job.configuration = self._configure(job.assignment)
        except (ValueError, HeadraceException) as error:
            return BaseWorkerResult(None, f"The job cannot be configured: {error}", never_started=True)

        def started(infrastructure_id: str) -> None:
            job.infrastructure_id = infrastructure_id
            self.listener.started(attempt, infrastructure_id)
            if job.killed_because:
                self._spawn(self._end(job, 0.0))

        try:
            if found:
                started(found)
                return await self._worker.adopt(job.configuration, job.assignment, found)
            return await self._worker.run(job.configuration, job.assignment, started)
        except Exception as error:
            _log.info("Run %s could not be started", attempt.run_id, exc_info=error)
            words = f"It could not be started: {type(error).__name__}: {error}"
            return BaseWorkerResult(None, words, never_started=not job.infrastructure_id)

    def _configure(self, assignment: Assignment) -> BaseJobConfiguration:
        configured: BaseJobConfiguration
        try:
            configured = self._worker.configure(assignment, self._template())
        except (ValueError, HeadraceException):
            if not assignment.infrastructure_id:
                raise
            # The template is another one by now; what runs already needs little of it.
            plain = Assignment(attempt=assignment.attempt, run=assignment.run)
            configured = self._worker.configure(plain, {})
        return configured

    async def _remove(self, attempt: Attempt, infrastructure_id: str) -> None:
        self.listener.removed(attempt, await self._worker.teardown(infrastructure_id))

    def _template(self) -> Mapping[str, Any]:
        return json_object(self._pool().base_job_template)

    async def _cancel(self, attempt: Attempt, job: _Job, grace_seconds: float, reason: str) -> None:
        self._tell(f"Run {attempt.run_id} is being cancelled: it may take {grace_seconds:g} s to end.")
        if job.infrastructure_id and job.configuration is not None:
            await self._worker.cancel_gently(job.infrastructure_id, job.configuration, reason)
        await asyncio.sleep(grace_seconds * SIGTERM_SHARE)
        if attempt in self._jobs:
            job.killed_because = "it was cancelled and did not end by itself"
            await self._end(job, grace_seconds * (1 - SIGTERM_SHARE))

    async def _end(self, job: _Job, grace_seconds: float) -> None:
        if job.infrastructure_id and job.configuration is not None:
            await self._worker.kill_infrastructure(job.infrastructure_id, job.configuration, grace_seconds)
