"""One run process, from its job to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.base import BaseWorkerResult
from headrace_workers.output import OutputLog, read_lines
from headrace_workers.process.cgroups import ControlGroup
from headrace_workers.process.child import FAILED_TO_START
from headrace_workers.process.cold import ColdProcess
from headrace_workers.process.endings import exit_code_of, explain_exit
from headrace_workers.process.warm import Ended, WarmProcess

__all__ = ["Once", "Running"]

OUT_OF_MEMORY: Final = "The kernel has killed a process of the run, which had all the memory that it may have"


class Once:
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


class Running:
    """One process, from its job to its end.

    Args:
        process: it has been told its job.
        assignment: the run.
        writer: a thread for what may block.
        show: shows a line that the run prints.
        group: the control group that it is in.
    """

    def __init__(
        self,
        process: WarmProcess | ColdProcess,
        assignment: Assignment,
        writer: ThreadPoolExecutor,
        show: Callable[[str], None],
        group: ControlGroup | None,
    ) -> None:
        run = assignment.run
        self.process = process
        self._group = group
        self.run_id = run.id
        self._name = run.name
        self._log = OutputLog(run.id, run.root_run_id, run.run_count + 1, writer)
        self._tell = show
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
            if self._group is not None:
                self._group.kill()
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
        reason = OUT_OF_MEMORY if self._group is not None and self._group.out_of_memory else ""
        words = explain_exit(code, reason=reason, last_output=self._log.tail, peak_bytes=ended.peak_bytes)
        return BaseWorkerResult(code, words)
