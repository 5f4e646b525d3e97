"""`print` in runs that asked for it becomes log lines.

`print` is replaced once in the process, by a function that looks at the run it is called in: two flows in two
threads, one with `log_prints` and one without, do not disturb each other.
"""

from __future__ import annotations

import builtins
import io
import sys
import threading
from typing import Any

from headrace.context import current_run

__all__ = ["watch_prints"]


class _Here(threading.local):
    is_logging = False


_here = _Here()


class _WatchedPrint:
    """A `print` that looks at the run it is called in; what is not for a log goes to the one before it.

    Who else replaces `print` (progress bars, Ray) may keep this one and call it: each holds the one that it
    found, so that however they are stacked, the innermost is Python's own.
    """

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, *values: Any, **options: Any) -> None:
        context = current_run()
        if (
            context is None
            or not context.log_prints
            or not _is_terminal(options.get("file"))
            or _here.is_logging
        ):
            self._before(*values, **options)
            return
        from headrace.logging.loggers import get_run_logger

        text = io.StringIO()
        self._before(*values, **{**options, "file": text, "flush": False})
        # A handler that prints must not begin again.
        _here.is_logging = True
        try:
            get_run_logger(context).info("%s", text.getvalue().removesuffix("\n"))
        finally:
            _here.is_logging = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _print_there, ()


def _print_there() -> Any:
    """`print` of the process that a pickled one has come to."""
    return builtins.print


def watch_prints() -> None:
    """From now on `print` looks at the run it is called in; called when a run with `log_prints` begins."""
    if not isinstance(builtins.print, _WatchedPrint):
        builtins.print = _WatchedPrint(builtins.print)


def _is_terminal(file: Any) -> bool:
    return file is None or file is sys.stdout or file is sys.stderr
