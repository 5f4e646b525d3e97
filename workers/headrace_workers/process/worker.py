"""Each run in a process of its own, started in milliseconds and ended with everything it has started."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pydantic import Field, field_validator

from headrace.cli.executing import CODE_VARIABLES
from headrace.settings import get_current_settings
from headrace.v1.worker_pb2 import WORKER_CAPABILITY_GRACEFUL_CANCEL
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.base import BaseJobConfiguration, BaseWorker, BaseWorkerResult
from headrace_workers.process.cgroups import ControlGroup, ControlGroups
from headrace_workers.process.cold import ColdProcess
from headrace_workers.process.folders import WorkerFolder, sweep_folders
from headrace_workers.process.limits import Limits, size_in_bytes
from headrace_workers.process.running import Once, Running
from headrace_workers.process.warm import TemplateLost, WarmProcess, WarmProcesses

__all__ = ["ProcessJobConfiguration", "ProcessWorker", "inherited_environment"]

SPARE_PROCESSES: Final = 2
"""Processes that wait for a run."""
MAX_LOADING: Final = max(4, 2 * (os.cpu_count() or 1))
"""How many processes may be importing the code of their flow at once."""
_ENDED_BY_ITSELF: Final = (0, 1)
"""Exit codes of a process that has told how its run has ended, and has called the hooks."""
_LAST_SECONDS: Final = 10.0
# What an interpreter, its allocator and the dynamic linker read once, when a process begins.
_EARLY: Final = ("PYTHON", "LD_", "DYLD_", "MALLOC_", "GRPC_")
_AFTERWARDS: Final = frozenset({"PYTHONPATH"})
_log = logging.getLogger("headrace.worker")


class ProcessJobConfiguration(BaseJobConfiguration):
    """What a run process is started with.

    Attributes:
        stream_output: show what the run prints in the worker's own output.
        working_dir: folder in which it starts; None: a temporary one, which is removed afterwards.
        memory_limit: how much memory it may allocate, e.g. "512m" or "2g"; None: as much as there is.
        cpu_time_limit_seconds: how much processor time each of its processes may use; None: any.
        process_limit: how many processes and threads there may be; None: as many as the system allows.
    """

    stream_output: bool = True
    working_dir: Path | None = None
    memory_limit: str | None = None
    cpu_time_limit_seconds: int | None = Field(default=None, ge=1)
    process_limit: int | None = Field(default=None, ge=1)

    @field_validator("memory_limit")
    @classmethod
    def _known_size(cls, value: str | None) -> str | None:
        if value is not None:
            size_in_bytes(value)
        return value

    @property
    def memory_limit_bytes(self) -> int | None:
        """`memory_limit` as a number."""
        return None if self.memory_limit is None else size_in_bytes(self.memory_limit)


class ProcessWorker(BaseWorker[ProcessJobConfiguration]):
    """Runs each flow run in a process on this machine.

    Args:
        spare: processes kept ready for the next runs.
    """

    type: ClassVar[str] = "process"
    job_configuration = ProcessJobConfiguration
    capabilities = (WORKER_CAPABILITY_GRACEFUL_CANCEL,)

    def __init__(self, spare: int = SPARE_PROCESSES) -> None:
        super().__init__()
        self._spare = spare
        self._warm: WarmProcesses | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="headrace-output")
        # Those beyond wait, so that the ones that have begun get to their flow.
        self._loading = asyncio.Semaphore(MAX_LOADING)
        self._running: dict[str, Running] = {}
        self._folder: WorkerFolder | None = None
        self._groups: ControlGroups | None = None
        self._hooks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        parent = get_current_settings().worker_cgroup
        self._folder = WorkerFolder()
        try:
            if parent is not None:
                self._groups = ControlGroups(parent, self._folder.path.name)
            await asyncio.to_thread(self._sweep)
            self._warm = WarmProcesses(self._spare, dict(os.environ))
            await self._warm.__aenter__()
        except BaseException:
            self._close()
            raise
        return self

    def _sweep(self) -> None:
        """Remove what workers have left that were killed."""
        for name in sweep_folders():
            _log.info("Removed the folder of a worker that was killed: %s", name)
        if self._groups is not None:
            self._groups.sweep()

    async def __aexit__(self, *error: object) -> None:
        hooks = list(self._hooks)
        if hooks:
            await asyncio.wait(hooks, timeout=_LAST_SECONDS)
        for task in hooks:
            task.cancel()
        await asyncio.gather(*hooks, return_exceptions=True)
        if self._warm is not None:
            await self._warm.__aexit__(*error)
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._groups is not None:
            self._groups.close()
        if self._folder is not None:
            self._folder.close()

    async def run(
        self,
        configuration: ProcessJobConfiguration,
        assignment: Assignment,
        started: Callable[[str], None],
    ) -> BaseWorkerResult:
        return await self.execute(configuration, assignment, started)

    async def execute(
        self,
        configuration: ProcessJobConfiguration,
        assignment: Assignment,
        started: Callable[[str], None],
        *,
        python: Path | None = None,
        identifier: str = "",
    ) -> BaseWorkerResult:
        """Run a run in a process.

        Args:
            configuration: what to start it with.
            assignment: the run.
            started: called with the id of the process.
            python: interpreter of another environment that has headrace; None: a copy of this one.
            identifier: what the process is called; empty: host and process id.
        """
        assert self._folder is not None
        async with contextlib.AsyncExitStack() as stack:
            folder = configuration.working_dir
            if folder is None:
                folder = Path(stack.enter_context(self._folder.temporary("run-")))
            elif not folder.is_dir():
                message = f"The working directory {folder} is not there."
                return BaseWorkerResult(None, message, never_started=True)
            environment = {**inherited_environment(python), **configuration.env}
            loading = Once(self._loading)
            stack.callback(loading.release)
            await loading.acquire()
            group = self._group_of(configuration, assignment)
            if group is not None:
                stack.push_async_callback(group.close)
            process = await self._start(configuration, assignment, folder, environment, group, python)
            show = self.facts.tell if configuration.stream_output else _nothing
            running = Running(process, assignment, self._writer, show, group)
            identifier = identifier or f"{socket.gethostname()}:{process.pid}"
            self._running[identifier] = running
            stack.callback(self._running.pop, identifier)
            started(identifier)
            result = await running.see_through(loading.release)
            if result.status_code not in _ENDED_BY_ITSELF:
                self._look_after(assignment, environment, python)
            return result

    def _group_of(
        self, configuration: ProcessJobConfiguration, assignment: Assignment
    ) -> ControlGroup | None:
        if self._groups is None:
            return None
        name = f"{assignment.attempt.run_id}-{assignment.attempt.fence}"
        return self._groups.make(name, configuration.memory_limit_bytes, configuration.process_limit)

    def _look_after(self, assignment: Assignment, environment: dict[str, str], python: Path | None) -> None:
        """Have the hooks called that the process of a run could not call; nobody waits for it."""
        assert self._folder is not None
        task = asyncio.ensure_future(_call_hooks(assignment, environment, python, self._folder))
        self._hooks.add(task)
        task.add_done_callback(self._hooks.discard)

    async def _start(
        self,
        configuration: ProcessJobConfiguration,
        assignment: Assignment,
        folder: Path,
        environment: dict[str, str],
        group: ControlGroup | None,
        python: Path | None,
    ) -> WarmProcess | ColdProcess:
        limits = Limits(
            memory_bytes=configuration.memory_limit_bytes if group is None else None,
            cpu_seconds=configuration.cpu_time_limit_seconds,
            processes=configuration.process_limit if group is None else None,
        )
        if python is not None or not (configuration.is_default_command and _can_be_warm(environment)):
            command = shlex.split(configuration.command)
            if configuration.is_default_command:
                interpreter = str(python or sys.executable)
                command = [interpreter, "-m", "headrace", "flow-run", "execute", assignment.run.id]
            entrances = [] if group is None else group.entrances
            return await ColdProcess.start(command, folder, environment, limits, entrances)
        assert self._warm is not None
        process = await self._warm.take()
        await process.forked
        if group is not None:
            # One that has ended meanwhile tells of its end.
            with contextlib.suppress(ProcessLookupError):
                group.enter(process.pid)
        attempt = assignment.attempt
        await process.say(
            kind="job",
            run_id=attempt.run_id,
            attempt=attempt.attempt,
            fence=attempt.fence,
            run=base64.b64encode(assignment.run.SerializeToString()).decode(),
            env=environment,
            working_dir=str(folder),
            limits=limits.to_message(),
            code={name: environment.get(variable, "") for name, variable in CODE_VARIABLES.items()},
        )
        return process

    async def kill_infrastructure(
        self, infrastructure_id: str, configuration: ProcessJobConfiguration, grace_seconds: float
    ) -> None:
        running = self._running.get(infrastructure_id)
        if running is None:
            return
        if grace_seconds > 0:
            self._signal(running, signal.SIGTERM)
            await asyncio.wait([running.process.ended], timeout=grace_seconds)
        self._signal(running, signal.SIGKILL)

    def end_at_once(self, identifier: str) -> None:
        """Kill the process of a run and everything it has started."""
        self._signal(self._running[identifier], signal.SIGKILL)

    def _signal(self, running: Running, signum: int) -> None:
        process = running.process
        if isinstance(process, ColdProcess):
            process.signal(signum)
        elif self._warm is not None:
            with contextlib.suppress(TemplateLost):
                self._warm.signal(process, signum)

    async def cancel_gently(
        self, infrastructure_id: str, configuration: ProcessJobConfiguration, reason: str
    ) -> None:
        running = self._running.get(infrastructure_id)
        if running is not None and isinstance(running.process, WarmProcess):
            await running.process.say(kind="cancel", reason=reason, grace_seconds=30.0)


async def _call_hooks(
    assignment: Assignment, environment: dict[str, str], python: Path | None, place: WorkerFolder
) -> None:
    ref, interpreter = assignment.attempt, str(python or sys.executable)
    command = [interpreter, "-m", "headrace_workers.process.hooks", ref.run_id, str(ref.attempt)]
    with place.temporary("hooks-") as folder:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, cwd=folder, env=environment, start_new_session=True
        )
        try:
            await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise


def _nothing(line: str) -> None:
    pass


def inherited_environment(python: Path | None) -> dict[str, str]:
    """The worker's own environment, without what makes the worker what it is.

    Args:
        python: interpreter of an environment that the run is to be in.
    """
    own = {name: text for name, text in os.environ.items() if not name.startswith("HEADRACE_WORKER_")}
    if python is not None:
        own["VIRTUAL_ENV"] = str(python.parent.parent)
        own["PATH"] = os.pathsep.join([str(python.parent), own.get("PATH", os.defpath)])
    return own


def _can_be_warm(environment: Mapping[str, str]) -> bool:
    """Whether a copy of a process that runs already can be given this environment."""

    def early(variables: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: text
            for name, text in variables.items()
            if name.startswith(_EARLY) and name not in _AFTERWARDS
        }

    return early(environment) == early(os.environ)
