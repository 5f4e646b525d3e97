"""Workflows as plain Python functions: every run recorded, nothing lost.

    from headrace import flow, task

    @task(retries=3)
    def fetch(url: str) -> bytes: ...

    @flow
    def nightly() -> None:
        fetch.map(["https://a.example", "https://b.example"]).wait()

Names are loaded by their first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace import runtime as runtime
    from headrace.client import get_client as get_client
    from headrace.context import tags as tags
    from headrace.deployments.deploying_flows import deploy as deploy
    from headrace.flow_runs import apause_flow_run as apause_flow_run
    from headrace.flow_runs import aresume_flow_run as aresume_flow_run
    from headrace.flow_runs import asuspend_flow_run as asuspend_flow_run
    from headrace.flow_runs import pause_flow_run as pause_flow_run
    from headrace.flow_runs import resume_flow_run as resume_flow_run
    from headrace.flow_runs import suspend_flow_run as suspend_flow_run
    from headrace.flows import Flow as Flow
    from headrace.flows import flow as flow
    from headrace.logging import get_run_logger as get_run_logger
    from headrace.runner import aserve as aserve
    from headrace.runner import serve as serve
    from headrace.states import State as State
    from headrace.tasks import Task as Task
    from headrace.tasks import task as task
    from headrace.transactions import Transaction as Transaction
    from headrace.utilities.annotations import allow_failure as allow_failure
    from headrace.utilities.annotations import opaque as opaque
    from headrace.utilities.annotations import quote as quote
    from headrace.utilities.annotations import unmapped as unmapped

__all__ = [
    "Flow",
    "State",
    "Task",
    "Transaction",
    "allow_failure",
    "apause_flow_run",
    "aresume_flow_run",
    "aserve",
    "asuspend_flow_run",
    "deploy",
    "flow",
    "get_client",
    "get_run_logger",
    "opaque",
    "pause_flow_run",
    "quote",
    "resume_flow_run",
    "runtime",
    "serve",
    "suspend_flow_run",
    "tags",
    "task",
    "unmapped",
]

_HOMES = {
    "Flow": "headrace.flows",
    "State": "headrace.states",
    "Task": "headrace.tasks",
    "Transaction": "headrace.transactions",
    "allow_failure": "headrace.utilities.annotations",
    "apause_flow_run": "headrace.flow_runs",
    "aresume_flow_run": "headrace.flow_runs",
    "aserve": "headrace.runner",
    "asuspend_flow_run": "headrace.flow_runs",
    "deploy": "headrace.deployments.deploying_flows",
    "flow": "headrace.flows",
    "get_client": "headrace.client",
    "get_run_logger": "headrace.logging",
    "opaque": "headrace.utilities.annotations",
    "pause_flow_run": "headrace.flow_runs",
    "quote": "headrace.utilities.annotations",
    "resume_flow_run": "headrace.flow_runs",
    "serve": "headrace.runner",
    "suspend_flow_run": "headrace.flow_runs",
    "tags": "headrace.context",
    "task": "headrace.tasks",
    "unmapped": "headrace.utilities.annotations",
}


def __getattr__(name: str) -> Any:
    if name == "runtime":
        return import_module("headrace.runtime")
    if name == "__version__":
        return import_module("importlib.metadata").version("headrace")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
