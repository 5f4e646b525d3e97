"""Each run in a process of its own, started in milliseconds and ended with everything it has started."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import re
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pydantic import field_validator

from headrace.cli.executing import CODE_VARIABLES
from headrace.v1.worker_pb2 import WORKER_CAPABILITY_GRACEFUL_CANCEL
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.base import BaseJobConfiguration, BaseWorker, BaseWorkerResult
from headrace_workers.output import OutputLog, read_lines
from headrace_workers.process.child import FAILED_TO_START
from headrace_workers.process.cold import ColdProcess
from headrace_workers.process.endings import exit_code_of, explain_exit
from headrace_workers.process.warm import Ended, TemplateLost, WarmProcess, WarmProcesses

__all__ = ["ProcessJobConfiguration", "ProcessWorker"]

SPARE_PROCESSES: Final = 2
"""Processes that wait for a run."""
MAX_LOADING: Final = max(4, 2 * (os.cpu_count() or 1))
"""How many processes may be importing the code of their flow at once."""
_ENDED_BY_ITSELF: Final = (0, 1)
"""Exit codes of a process that has told how its run has ended, and has called the hooks."""
_LAST_SECONDS: Final = 10.0
_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
# What an interpreter, its allocator and the dynamic linker read once, when a process begins.
_EARLY: Final = ("PYTHON", "LD_", "DYLD_", "MALLOC_", "GRPC_")
_AFTERWARDS: Final = frozenset({"PYTHONPATH"})


class ProcessJobConfiguration(BaseJobConfiguration):
    """What a run process is started with.

    Attributes:
        stream_output: show what the run prints in the worker's own output.
        working_dir: folder in which it starts; None: a temporary one, which is removed afterwards.
        memory_limit: how much memory it may allocate, e.g. "512m" or "2g"; None: as much as there is.
    """

    stream_output: bool = True
    working_dir: Path | None = None
    memory_limit: str | None = None

    @field_validator("memory_limit")
    @classmethod
    def _known_size(cls, value: str | None) -> str | None:
        if value is not None and _SIZE.fullmatch(value.strip()) is None:
            raise ValueError(f"'{value}' is no size: give one like 512m or 2g")
        return value

    @property
    def memory_limit_bytes(self) -> int | None:
        """`memory_limit` as a number."""
        if self.memory_limit is None:
            return None
        match = _SIZE.fullmatch(self.memory_limit.strip())
        assert match is not None
        return int(float(match[1]) * _UNITS[match[2].lower()])


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
        self._running: dict[str, _Running] = {}
        self._hooks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._warm = WarmProcesses(self._spare, dict(os.environ))
        await self._warm.__aenter__()
        return self

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

    async def run(
        self,
        configuration: ProcessJobConfiguration,
        assignment: Assignment,
        started: Callable[[str], None],
    ) -> BaseWorkerResult:
        with contextlib.ExitStack() as stack:
            run_id = assignment.run.id
            folder = configuration.working_dir
            if folder is None:
                temporary = tempfile.TemporaryDirectory(prefix="headrace-run-", ignore_cleanup_errors=True)
                folder = Path(stack.enter_context(temporary))
            elif not folder.is_dir():
                message = f"The working directory {folder} is not there."
                return BaseWorkerResult(None, message, never_started=True)
            environment = {**_inherited(), **configuration.env}
            loading = _Once(self._loading)
            await loading.acquire()
            try:
                process = await self._start(configuration, assignment, folder, environment)
                running = _Running(process, assignment, configuration, self._writer, self.facts.tell)
                identifier = f"{socket.gethostname()}:{process.pid}"
                self._running[identifier] = running
                started(identifier)
                result = await running.see_through(loading.release)
                if result.status_code not in _ENDED_BY_ITSELF:
                    self._look_after(assignment, environment)
                return result
            finally:
                loading.release()
                self._running = {name: one for name, one in self._running.items() if one.run_id != run_id}

    def _look_after(self, assignment: Assignment, environment: dict[str, str]) -> None:
        """Have the hooks called that the process of a run could not call; nobody waits for it."""
        task = asyncio.ensure_future(_call_hooks(assignment, environment))
        self._hooks.add(task)
        task.add_done_callback(self._hooks.discard)

    async def _start(
        self,
        configuration: ProcessJobConfiguration,
        assignment: Assignment,
        folder: Path,
        environment: dict[str, str],
    ) -> WarmProcess | ColdProcess:
        if not (configuration.is_default_command and _can_be_warm(environment)):
            command = shlex.split(configuration.command)
            if configuration.is_default_command:
                command = [sys.executable, "-m", "headrace", "flow-run", "execute", assignment.run.id]
            return await ColdProcess.start(command, folder, environment, configuration.memory_limit_bytes)
        assert self._warm is not None
        process = await self._warm.take()
        await process.forked
        attempt = assignment.attempt
        await process.say(
            kind="job",
            run_id=attempt.run_id,
            attempt=attempt.attempt,
            fence=attempt.fence,
            run=base64.b64encode(assignment.run.SerializeToString()).decode(),
            env=environment,
            working_dir=str(folder),
            memory_limit_bytes=configuration.memory_limit_bytes,
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

    def _signal(self, running: _Running, signum: int) -> None:
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


async def _call_hooks(assignment: Assignment, environment: dict[str, str]) -> None:
    ref = assignment.attempt
    command = [sys.executable, "-m", "headrace_workers.process.hooks", ref.run_id, str(ref.attempt)]
    with tempfile.TemporaryDirectory(prefix="headrace-hooks-", ignore_cleanup_errors=True) as folder:
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


class _Once:
    """A place that is given back once, however often that is asked for."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._is_held = False

    async def acquire(self) -> None:
        await self._places.acquire()
        self._is_held = True

    def release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._places.release()


class _Running:
    """One process, from its job to its end."""

    def __init__(
        self,
        process: WarmProcess | ColdProcess,
        assignment: Assignment,
        configuration: ProcessJobConfiguration,
        writer: ThreadPoolExecutor,
        tell: Callable[[str], None],
    ) -> None:
        run = assignment.run
        self.process = process
        self.run_id = run.id
        self._name = run.name
        self._log = OutputLog(run.id, run.root_run_id, run.run_count + 1, writer)
        self._tell = tell if configuration.stream_output else _nothing
        self._failure = ""

    async def see_through(self, loaded: Callable[[], None]) -> BaseWorkerResult:
        """Until it has ended and everything that it has printed is kept.

        Args:
            loaded: called when the code of the flow is there, where that can be known.
        """
        output, errors, console = self.process.output
        tasks = [
            asyncio.ensure_future(read_lines(output, lambda lines: self._printed(lines, logging.INFO))),
            asyncio.ensure_future(read_lines(errors, lambda lines: self._printed(lines, logging.WARNING))),
            asyncio.ensure_future(read_lines(console, self._show)),
            asyncio.ensure_future(self._hear(loaded)),
        ]
        try:
            ended = await self.process.ended
            # A process that was started and left behind cannot hold them open: its group is gone.
            await asyncio.wait(tasks, timeout=5.0)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.process.close()
        return self._result(ended)

    async def _hear(self, loaded: Callable[[], None]) -> None:
        if isinstance(self.process, ColdProcess):
            loaded()
            return
        while (message := await self.process.hear()) is not None:
            if message["kind"] == "loaded":
                loaded()
            elif message["kind"] == "failed":
                self._failure = str(message["message"])

    async def _printed(self, lines: list[str], level: int) -> None:
        self._show(lines)
        await self._log.keep(lines, "stdout" if level == logging.INFO else "stderr", level)

    def _show(self, lines: list[str]) -> None:
        for line in lines:
            self._tell(f"{self._name} | {line}")

    def _result(self, ended: Ended) -> BaseWorkerResult:
        if ended.status is None:
            return BaseWorkerResult(None, "The process is gone with the one that had started it.")
        code = exit_code_of(ended.status)
        if self._failure and code == FAILED_TO_START:
            return BaseWorkerResult(1, self._failure)
        words = explain_exit(code, last_output=self._log.tail, peak_bytes=ended.peak_bytes)
        return BaseWorkerResult(code, words)


def _nothing(line: str) -> None:
    pass


def _inherited() -> dict[str, str]:
    """The worker's own environment, without what makes the worker what it is."""
    return {name: text for name, text in os.environ.items() if not name.startswith("HEADRACE_WORKER_")}


def _can_be_warm(environment: Mapping[str, str]) -> bool:
    """Whether a copy of a process that runs already can be given this environment."""

    def early(variables: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: text
            for name, text in variables.items()
            if name.startswith(_EARLY) and name not in _AFTERWARDS
        }

    return early(environment) == early(os.environ)
