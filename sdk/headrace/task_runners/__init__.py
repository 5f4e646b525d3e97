"""How submitted tasks are executed.

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
    def load(urls: list[str]) -> None:
        fetch.map(urls).wait()

Every flow run has a runner of its own, a duplicate of the one its flow was given.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.task_runners.base import TaskRunner
from headrace.task_runners.processes import ProcessPoolTaskRunner
from headrace.task_runners.threads import ConcurrentTaskRunner, ThreadPoolTaskRunner

if TYPE_CHECKING:
    from headrace.task_runners.dask import DaskTaskRunner
    from headrace.task_runners.ray import RayTaskRunner

__all__ = [
    "ConcurrentTaskRunner",
    "DaskTaskRunner",
    "ProcessPoolTaskRunner",
    "RayTaskRunner",
    "TaskRunner",
    "ThreadPoolTaskRunner",
]

_MODULES = {"DaskTaskRunner": "headrace.task_runners.dask", "RayTaskRunner": "headrace.task_runners.ray"}


def __getattr__(name: str) -> Any:
    # Not with the package: most flows run on neither.
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
