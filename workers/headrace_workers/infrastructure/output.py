"""What runs elsewhere print: shown by the worker, and kept with the run's log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

from headrace.client import get_client
from headrace.core.errors import HeadraceException
from headrace.core.limits import PAGE_SIZE_MAX
from headrace.logging.handlers import LINE_MARK
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.log_service_pb2 import LOG_ORDER_NEWEST_FIRST, ListLogsRequest
from headrace.v1.run_pb2 import Run
from headrace_workers.output import OutputLog

__all__ = ["FollowedOutput", "LogLine", "ReadSoFar", "read_so_far"]

_LOGGERS = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a run has printed.

    Attributes:
        text: without its end.
        is_error: it went to standard error.
        time_ns: when, by the engine's clock; None: the engine does not say.
    """

    text: str
    is_error: bool = False
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ReadSoFar:
    """How far the output of a run has been read.

    Attributes:
        time_ns: of the last line, in whole microseconds, by the engine's clock.
        lines: how many lines of that instant were read; not every engine looks below the second.
    """

    time_ns: int
    lines: int


class FollowedOutput:
    """Takes what one run prints.

    Lines that begin with `LINE_MARK` are log lines, which the run has recorded itself: they are only shown.

    Args:
        run: as it was assigned.
        writer: a thread for what may block.
        show: shows a line to whoever looks at the worker.
        read: what is on record already, and passed over; None: nothing.
    """

    def __init__(
        self, run: Run, writer: ThreadPoolExecutor, show: Callable[[str], None], read: ReadSoFar | None
    ) -> None:
        self._name = run.name or run.id
        self._show = show
        # Adopted in the middle of a try, or handed out before it.
        is_begun = run.HasField("start_time") and not run.HasField("end_time")
        self._log = OutputLog(run.id, run.root_run_id, max(run.run_count + (not is_begun), 1), writer)
        self._read = self._from = read
        self._passed_over = 0

    @property
    def tail(self) -> str:
        """The last lines."""
        return self._log.tail

    def begin(self) -> int | None:
        """It is read from now on, for the first time or again.

        Returns:
            The instant from which on lines are wanted, by the engine's clock; None: from the first.
        """
        self._from, self._passed_over = self._read, 0
        return None if self._from is None else self._from.time_ns

    async def take(self, lines: Sequence[LogLine]) -> None:
        """Show and keep lines."""
        fresh = [line for line in lines if self._is_fresh(line)]
        for line in fresh:
            self._show(f"{self._name} | {line.text.removeprefix(LINE_MARK)}")
        for is_error, group in groupby(filter(_is_kept, fresh), key=lambda line: line.is_error):
            some = list(group)
            times = [line.time_ns for line in some]
            level = logging.WARNING if is_error else logging.INFO
            await self._log.keep([line.text for line in some], _LOGGERS[is_error], level, times)

    def _is_fresh(self, line: LogLine) -> bool:
        """Whether it was not read before; it is now."""
        if line.time_ns is None:
            return True
        time_ns = line.time_ns // 1000 * 1000
        if self._from is not None and time_ns <= self._from.time_ns:
            if time_ns < self._from.time_ns:
                return False
            if _is_kept(line) and self._passed_over < self._from.lines:
                self._passed_over += 1
                return False
        if _is_kept(line):
            is_same = self._read is not None and self._read.time_ns == time_ns
            self._read = ReadSoFar(time_ns, (self._read.lines if self._read and is_same else 0) + 1)
        return True


def _is_kept(line: LogLine) -> bool:
    """Whether it goes on record."""
    return bool(line.text) and not line.text.startswith(LINE_MARK)


async def read_so_far(run_id: str) -> ReadSoFar | None:
    """How much of what a run has printed is on record; None: nothing, or the server does not say."""
    wanted = LogFilter(run_ids=[run_id], loggers=_LOGGERS)
    request = ListLogsRequest(filter=wanted, order=LOG_ORDER_NEWEST_FIRST, page_size=PAGE_SIZE_MAX)
    try:
        async with get_client() as client:
            found = (await client.list_logs(request)).logs
    except HeadraceException:
        return None
    if not found:
        return None
    times = [entry.time.ToNanoseconds() for entry in found]
    return ReadSoFar(times[0], times.count(times[0]))
