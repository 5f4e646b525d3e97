"""What runs print: shown by the worker, and kept with the run's log."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from typing import Final

from headrace.core.errors import ServiceError
from headrace.core.limits import LOG_MESSAGE_BYTES
from headrace.recorder import get_recorder
from headrace.v1.log_pb2 import LogEntry
from headrace.v1.record_service_pb2 import RecordEntry

__all__ = ["OutputLog", "read_lines"]

_LINES: Final = 200
_TAIL_LINES: Final = 100
_CHUNK_BYTES: Final = 64 * 1024
_log = logging.getLogger("headrace.worker")


async def read_lines(descriptor: int, take: Callable[[list[str]], object]) -> None:
    """Read a pipe to its end, and close it.

    Args:
        descriptor: its end to read from.
        take: given the lines that have come, without their ends; what it returns is awaited if it can be.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    rest = b""
    try:
        while data := await reader.read(_CHUNK_BYTES):
            *whole, rest = (rest + data).split(b"\n")
            if len(rest) > LOG_MESSAGE_BYTES:
                whole.append(rest)
                rest = b""
            await _give(take, whole)
        await _give(take, [rest] if rest else [])
    finally:
        transport.close()


async def _give(take: Callable[[list[str]], object], lines: Sequence[bytes]) -> None:
    if lines:
        given = take([line.decode(errors="backslashreplace").rstrip("\r") for line in lines])
        if asyncio.iscoroutine(given):
            await given


class OutputLog:
    """Puts what one run prints on the run's record, and remembers the end of it.

    The record may have to wait for room; then the run's own `print` waits, and nothing else does.

    Args:
        run_id: the run.
        root_run_id: the run at the top of its tree.
        attempt: which try it is.
        writer: a thread for what may block.
    """

    def __init__(self, run_id: str, root_run_id: str, attempt: int, writer: ThreadPoolExecutor) -> None:
        self._run_id = run_id
        self._root_run_id = root_run_id or run_id
        self._attempt = attempt
        self._writer = writer
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self._tail)

    async def keep(
        self, lines: list[str], logger: str, level: int, times_ns: Iterable[int | None] = ()
    ) -> None:
        """Put lines on record.

        Args:
            lines: in their order.
            logger: the name under which they are found.
            level: as of `logging`.
            times_ns: when each was printed, by whoever knows; None, or no more of them: now.
        """
        self._tail.extend(lines)
        times = chain(times_ns, repeat(None))
        entries = [self._entry(line, logger, level, time) for line, time in zip(lines, times) if line]  # noqa: B905
        loop = asyncio.get_running_loop()
        for first in range(0, len(entries), _LINES):
            await loop.run_in_executor(self._writer, _post, entries[first : first + _LINES])

    def _entry(self, line: str, logger: str, level: int, time_ns: int | None) -> RecordEntry:
        entry = LogEntry(
            run_id=self._run_id,
            root_run_id=self._root_run_id,
            level=level,
            logger=logger,
            message=line.replace("\0", "\\0"),
            attempt=self._attempt,
        )
        entry.time.FromNanoseconds((time.time_ns() if time_ns is None else time_ns) // 1000 * 1000)
        return RecordEntry(log=entry)


def _post(entries: list[RecordEntry]) -> None:
    try:
        get_recorder().post(*entries)
    except ServiceError as error:
        _log.warning("%d lines of a run could not be recorded: %s", len(entries), error)
