"""How log lines look."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from headrace.logging.records import run_fields, run_of, user_fields
from headrace.runs import FlowRun, TaskRun
from headrace.settings import get_current_settings

__all__ = ["ConsoleFormatter", "JsonFormatter"]

_RUN_LOGGERS: Final = ("headrace.flow_runs", "headrace.task_runs")
_COLOURS: Final = (
    (logging.CRITICAL, "\x1b[1;31m"),
    (logging.ERROR, "\x1b[31m"),
    (logging.WARNING, "\x1b[33m"),
    (logging.INFO, "\x1b[36m"),
)
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"


class ConsoleFormatter(logging.Formatter):
    """`time | LEVEL | logger - message`; lines of runs show the run's name in place of the logger's."""

    # Asking the system whether a stream is a terminal takes as long as the rest of a line.
    _stream: TextIO | None = None
    _is_terminal = False
    # And so does putting a time of day into words.
    _second: tuple[int, str] = (-1, "")

    def formatMessage(self, record: logging.LogRecord) -> str:
        before, after = (_colour(record.levelno), _PLAIN) if self._wants_colours() else ("", "")
        level = f"{before}{record.levelname:<7}{after}"
        return f"{self._time_of_day(record)} | {level} | {_who(record)} - {record.message}"

    def _time_of_day(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        known, text = self._second
        if second != known:
            text = time.strftime("%H:%M:%S", self.converter(second))
            self._second = second, text
        return f"{text}.{int(record.msecs):03}"

    def _wants_colours(self) -> bool:
        if self._stream is not sys.stderr:
            self._stream = sys.stderr
            self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        return self._is_terminal and not os.environ.get("NO_COLOR") and get_current_settings().logging_colors


def _who(record: logging.LogRecord) -> str:
    run = run_of(record) if record.name.startswith(_RUN_LOGGERS) else None
    if run is None:
        return record.name
    kind = "Flow" if isinstance(run, FlowRun) else "Task"
    return f"{kind} run {run.name!r}"


def _colour(level: int) -> str:
    return next((colour for least, colour in _COLOURS if level >= least), _DIM)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the run, the author's fields, the exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        run = run_of(record)
        if run is not None:
            line |= _run_ids(run)
        line |= user_fields(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=_text, skipkeys=True)


def _run_ids(run: FlowRun | TaskRun) -> dict[str, Any]:
    return {key: value for key, value in run_fields(run).items() if isinstance(value, str)}


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a user's __str__ must not lose the line
        return f"<{type(value).__name__}>"
