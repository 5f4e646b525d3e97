"""What runs elsewhere print: shown by the worker, and kept with the run's log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

from headrace.client import get_client
from headrace.core.errors import HeadraceException
from headrace.logging.handlers import LINE_MARK
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.log_service_pb2 import LOG_ORDER_NEWEST_FIRST, ListLogsRequest
from headrace.v1.run_pb2 import Run
from headrace_workers.output import OutputLog

__all__ = ["FollowedOutput", "LogLine", "last_output_ns"]

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


class FollowedOutput:
    """Takes what one run prints.

    Lines that begin with `LINE_MARK` are log lines, which the run has recorded itself: they are only shown.

    Args:
        run: as it was assigned.
        writer: a thread for what may block.
        show: shows a line to whoever looks at the worker.

    Attributes:
        last_ns: when the last line was printed, by the engine's clock; None: not known.
    """

    def __init__(self, run: Run, writer: ThreadPoolExecutor, show: Callable[[str], None]) -> None:
        self._name = run.name or run.id
        self._show = show
        # Adopted in the middle of a try, or handed out before it.
        is_begun = run.HasField("start_time") and not run.HasField("end_time")
        self._log = OutputLog(run.id, run.root_run_id, max(run.run_count + (not is_begun), 1), writer)
        self.last_ns: int | None = None

    @property
    def tail(self) -> str:
        """The last lines."""
        return self._log.tail

    async def take(self, lines: Sequence[LogLine]) -> None:
        """Show and keep lines."""
        for line in lines:
            self._show(f"{self._name} | {line.text.removeprefix(LINE_MARK)}")
            self.last_ns = line.time_ns if line.time_ns is not None else self.last_ns
        printed = [line for line in lines if not line.text.startswith(LINE_MARK)]
        for is_error, group in groupby(printed, key=lambda line: line.is_error):
            some = list(group)
            times = [line.time_ns for line in some]
            level = logging.WARNING if is_error else logging.INFO
            await self._log.keep([line.text for line in some], _LOGGERS[is_error], level, times)


async def last_output_ns(run_id: str) -> int | None:
    """The instant after the last line on record that the run has printed; None: there is none, or the server
    does not say."""
    wanted = LogFilter(run_ids=[run_id], loggers=_LOGGERS)
    request = ListLogsRequest(filter=wanted, order=LOG_ORDER_NEWEST_FIRST, page_size=1)
    try:
        async with get_client() as client:
            found = (await client.list_logs(request)).logs
    except HeadraceException:
        return None
    # Times on record are whole microseconds, rounded down.
    return found[0].time.ToNanoseconds() + 1000 if found else None
