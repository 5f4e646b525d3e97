"""The task run whose body runs now; see `headrace.runtime`.

Attributes:
    id: UUIDv7.
    name: what people see.
    task_name: name of the task.
    tags: those of the run.
    parameters: what the body is called with.
    run_count: how many times the run has entered RUNNING.
    api_url: where the server has it.
    ui_url: where people can look at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.context import TaskRunContext
from headrace.runtime.attributes import Attributes
from headrace.runtime.lookup import api_url_of

if TYPE_CHECKING:
    from headrace.runs import TaskRun

    id: str | None
    name: str | None
    task_name: str | None
    tags: list[str]
    parameters: dict[str, Any]
    run_count: int
    api_url: str | None
    ui_url: str | None

__all__ = ["api_url", "id", "name", "parameters", "run_count", "tags", "task_name", "ui_url"]


def _run() -> TaskRun | None:
    context = TaskRunContext.get()
    return None if context is None else context.task_run


def _id() -> str | None:
    run = _run()
    return None if run is None else run.id


def _name() -> str | None:
    run = _run()
    return None if run is None else run.name


def _task_name() -> str | None:
    run = _run()
    return None if run is None else run.task_name


def _tags() -> list[str]:
    run = _run()
    return [] if run is None else list(run.tags)


def _parameters() -> dict[str, Any]:
    context = TaskRunContext.get()
    return {} if context is None else dict(context.parameters)


def _run_count() -> int:
    run = _run()
    return 0 if run is None else run.run_count


def _api_url() -> str | None:
    return api_url_of(_id())


def _ui_url() -> str | None:
    # Servers of this version have no pages.
    return None


_attributes = Attributes(
    __name__,
    {
        "id": _id,
        "name": _name,
        "task_name": _task_name,
        "tags": _tags,
        "parameters": _parameters,
        "run_count": _run_count,
        "api_url": _api_url,
        "ui_url": _ui_url,
    },
)


def __getattr__(name: str) -> Any:
    return _attributes.get(name)


def __dir__() -> list[str]:
    return _attributes.names()
