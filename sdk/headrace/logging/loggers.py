"""Loggers for the code of flows and tasks, and for the rest of the program."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

from headrace.context import FlowRunContext, TaskRunContext, current_run
from headrace.exceptions import MissingContextError
from headrace.logging.configuration import FLOW_RUNS, ROOT, TASK_RUNS, ensure_configured
from headrace.logging.records import run_fields
from headrace.runs import FlowRun, TaskRun

__all__ = ["RunLogger", "disable_run_logger", "get_logger", "get_run_logger"]

_RUN_LOGGERS: Final = (FLOW_RUNS, TASK_RUNS)


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines belong to one run, wherever they are written.

    The names and ids of the run are fields of every record, next to what is given as `extra`.
    """

    def __init__(self, logger: logging.Logger, run: FlowRun | TaskRun, extra: Mapping[str, Any]) -> None:
        super().__init__(logger, extra)
        self._run = run

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        given: Mapping[str, Any] = kwargs.get("extra") or {}
        # The run's own fields are read anew: its name may have been decided since.
        kwargs["extra"] = {**run_fields(self._run), **(self.extra or {}), **given}
        return msg, kwargs

    def getChild(self, suffix: str, extra: Mapping[str, Any] | None = None) -> RunLogger:
        """A logger of the same run, with `suffix` at the end of its name and more fields."""
        return RunLogger(self.logger.getChild(suffix), self._run, {**(self.extra or {}), **(extra or {})})


def get_logger(name: str | None = None) -> logging.Logger:
    """The logger `headrace`, or a child of it.

    Its lines go to the console; those of a run belong to `get_run_logger`.

    Args:
        name: what follows `headrace.`; a full name is taken as it is.
    """
    ensure_configured()
    root = logging.getLogger(ROOT)
    if not name or name == ROOT:
        return root
    return root.getChild(name.removeprefix(f"{ROOT}."))


def get_run_logger(
    context: FlowRunContext | TaskRunContext | None = None, **extra: Any
) -> RunLogger | logging.Logger:
    """The logger of the run whose body this is.

    Args:
        context: the run, if it is not the innermost one.
        extra: fields of every record.

    Raises:
        MissingContextError: no flow or task runs here, and `disable_run_logger` is not in force.
    """
    ensure_configured()
    context = context or current_run()
    if context is not None:
        is_task = isinstance(context, TaskRunContext)
        return RunLogger(logging.getLogger(TASK_RUNS if is_task else FLOW_RUNS), context.run, extra)
    if all(logging.getLogger(name).disabled for name in _RUN_LOGGERS):
        silent = logging.getLogger("null")
        silent.disabled = True
        return silent
    raise MissingContextError(
        "There is no active flow or task run context. Call get_run_logger() inside of a flow or task, or use"
        " `with disable_run_logger():` to call their functions without a run."
    )


@contextmanager
def disable_run_logger() -> Generator[None]:
    """Let `get_run_logger` be called outside of runs, and silence the lines of runs, while inside.

    with disable_run_logger():
        assert my_task.fn(1) == 2
    """
    ensure_configured()  # else the first logger asked for inside would configure them, and switch them on
    loggers = [logging.getLogger(name) for name in _RUN_LOGGERS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
