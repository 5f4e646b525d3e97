"""Where log lines go: the console, and the record of the run."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Final, TextIO

from headrace.core.errors import ServiceError
from headrace.exceptions import MissingContextError
from headrace.logging.records import entry_of, first_time, run_of
from headrace.settings import get_current_settings

if TYPE_CHECKING:
    from headrace.runs import FlowRun, TaskRun

__all__ = ["LINE_MARK", "MARKED_LINES", "ConsoleHandler", "RecordHandler", "mark_lines", "show_lines_on"]

LINE_MARK: Final = "\x02"
"""Begins a line that is on record already. A terminal shows nothing of it."""
MARKED_LINES: Final = "marked"
"""What `HEADRACE__CONSOLE` says for `mark_lines`."""
_OWN_LOGGERS: Final = ("headrace.recorder", "headrace.client")
"""Loggers of what carries log lines to the server: their own lines stay here."""

_FRAMES_TO_CALLER: Final = 8


class _Here(threading.local):
    is_recording = False


_here = _Here()
_plain = logging.Formatter("%(message)s")


class RecordHandler(logging.Handler):
    """Puts lines on the record of the run they belong to.

    A line with `extra={"send_to_api": False}` is left out. A line that belongs to no run is an occasion for a
    warning, an error or nothing, as the setting `logging.to_api.when_missing_flow` says. Nothing else that
    goes wrong here is raised.
    """

    def emit(self, record: logging.LogRecord) -> None:
        settings = get_current_settings()
        if not settings.logging_to_api_enabled or not getattr(record, "send_to_api", True):
            return
        if _here.is_recording or record.name.startswith(_OWN_LOGGERS):
            return
        run = run_of(record)
        if run is None:
            _missing_run(record, settings.logging_to_api_when_missing_flow)
            return
        if not first_time(record):
            return
        _here.is_recording = True
        try:
            self._record(record, run, settings.logging_to_api_max_log_size)
        finally:
            _here.is_recording = False

    def close(self) -> None:
        _tell_lost()
        super().close()

    def _record(self, record: logging.LogRecord, run: FlowRun | TaskRun, limit_bytes: int) -> None:
        from headrace.recorder import get_recorder

        try:
            get_recorder().post(entry_of(record, run, self._text(record), limit_bytes))
        except ServiceError as error:
            _count_lost(error)
        except Exception:
            self.handleError(record)

    def _text(self, record: logging.LogRecord) -> str:
        """The message, with its traceback if there is one."""
        if self.formatter is None and not (record.exc_info or record.exc_text or record.stack_info):
            return record.getMessage()
        return (self.formatter or _plain).format(record)


def _missing_run(record: logging.LogRecord, what_to_do: str) -> None:
    message = (
        f"Logger {record.name!r} attempted to send logs to the server without a flow or task run: its lines"
        " can only be recorded inside of one. Give the line `extra={'send_to_api': False}`, or set"
        " HEADRACE_LOGGING_TO_API_WHEN_MISSING_FLOW to 'ignore'."
    )
    if what_to_do == "warn":
        warnings.warn(message, stacklevel=_FRAMES_TO_CALLER)
    elif what_to_do == "error":
        raise MissingContextError(message)


class _Lost:
    lines = 0


def _count_lost(error: ServiceError) -> None:
    _Lost.lines += 1
    if _Lost.lines == 1:
        _say(f"headrace: a log line could not be recorded: {error}")


def _tell_lost() -> None:
    lines, _Lost.lines = _Lost.lines, 0
    if lines > 1:
        _say(f"headrace: {lines} log lines could not be recorded.")


def _say(text: str) -> None:
    # Not through `logging`, which is what has just failed.
    if sys.stderr is not None and not sys.stderr.closed:
        print(text, file=sys.stderr)


class _Console:
    stream: TextIO | None = None
    mark = ""


def show_lines_on(descriptor: int) -> None:
    """From now on the lines of this process's console handlers go to an open file, not to `sys.stderr`.

    Whoever reads what the process prints would take these lines, which are on record, for more of it.
    """
    _Console.stream = os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace")


def mark_lines() -> None:
    """From now on each line of this process's console handlers begins with `LINE_MARK`.

    For whoever reads all that the process prints as one stream, as with containers.
    """
    _Console.mark = LINE_MARK


class ConsoleHandler(logging.Handler):
    """Writes lines to what `sys.stderr` is at the time.

    Silent when the program has told the root logger to write to the terminal: then that prints our lines too.
    """

    terminator = "\n"

    def emit(self, record: logging.LogRecord) -> None:
        stream = _Console.stream or sys.stderr
        if stream is None or stream.closed or _root_prints():
            return
        try:
            text = self._printable(self.format(record), stream)
            if mark := _Console.mark:
                text = mark + text.replace("\n", f"\n{mark}")
            stream.write(text + self.terminator)
            stream.flush()
        except Exception:
            self.handleError(record)

    def _printable(self, text: str, stream: TextIO) -> str:
        """What the stream's encoding can say of `text`."""
        if text.isascii():
            return text
        encoding = getattr(stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)


def _root_prints() -> bool:
    handlers = logging.getLogger().handlers
    if not handlers:
        return False
    terminals = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    return any(getattr(handler, "stream", None) in terminals for handler in handlers)
