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

_print: Any = builtins.print


class _Here(threading.local):
    is_logging = False


_here = _Here()


def watch_prints() -> None:
    """From now on `print` looks at the run it is called in; called when a run with `log_prints` begins."""
    if builtins.print is not _print_or_log:
        global _print
        _print = builtins.print
        builtins.print = _print_or_log


def _print_or_log(*values: Any, **options: Any) -> None:
    context = current_run()
    if context is None or not context.log_prints or not _is_terminal(options.get("file")) or _here.is_logging:
        _print(*values, **options)
        return
    from headrace.logging.loggers import get_run_logger

    text = io.StringIO()
    _print(*values, **{**options, "file": text, "flush": False})
    # A handler that prints must not begin again.
    _here.is_logging = True
    try:
        get_run_logger(context).info("%s", text.getvalue().removesuffix("\n"))
    finally:
        _here.is_logging = False


def _is_terminal(file: Any) -> bool:
    return file is None or file is sys.stdout or file is sys.stderr
