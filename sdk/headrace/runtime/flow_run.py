"""The flow run whose code runs now, from inside its tasks too; see `headrace.runtime`.

Attributes:
    id: UUIDv7.
    name: what people see.
    tags: those of the run.
    parameters: what the flow was called with; validated values once they are.
    flow_name: name of the flow.
    flow_version: its version, or None.
    run_count: how many times the run has entered RUNNING.
    scheduled_start_time: when it was meant to start, aware UTC; outside of a run: now.
    parent_flow_run_id: the flow run that called this one.
    parent_deployment_id: the deployment of that flow run.
    root_flow_run_id: the flow run at the top of the tree.
    api_url: where the server has it.
    ui_url: where people can look at it.
    job_variables: what was asked of the infrastructure.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.context import FlowRunContext, TaskRunContext
from headrace.core.clock import from_micros
from headrace.runtime.attributes import Attributes
from headrace.runtime.lookup import api_url_of, assigned_run, assigned_run_id

if TYPE_CHECKING:
    from headrace.runs import FlowRun

    id: str | None
    name: str | None
    tags: list[str]
    parameters: dict[str, Any]
    flow_name: str | None
    flow_version: str | None
    run_count: int
    scheduled_start_time: datetime
    parent_flow_run_id: str | None
    parent_deployment_id: str | None
    root_flow_run_id: str | None
    api_url: str | None
    ui_url: str | None
    job_variables: dict[str, Any]

__all__ = [
    "api_url",
    "flow_name",
    "flow_version",
    "id",
    "job_variables",
    "name",
    "parameters",
    "parent_deployment_id",
    "parent_flow_run_id",
    "root_flow_run_id",
    "run_count",
    "scheduled_start_time",
    "tags",
    "ui_url",
]


def _run() -> FlowRun | None:
    context = FlowRunContext.get()
    return None if context is None else context.flow_run


def _id() -> str | None:
    run = _run()
    return assigned_run_id() if run is None else run.id


def _name() -> str | None:
    run = _run() or assigned_run()
    return None if run is None else run.name


def _tags() -> list[str]:
    run = _run() or assigned_run()
    return [] if run is None else list(run.tags)


def _parameters() -> dict[str, Any]:
    context = FlowRunContext.get()
    if context is not None:
        return dict(context.parameters)
    run = assigned_run()
    if run is None or not run.HasField("parameters"):
        return {}
    return dict(json.loads(run.parameters.inline))


def _flow_name() -> str | None:
    run = _run() or assigned_run()
    return None if run is None else run.flow_name


def _flow_version() -> str | None:
    run = _run() or assigned_run()
    return None if run is None else run.flow_version or None


def _run_count() -> int:
    run = _run() or assigned_run()
    return 0 if run is None else run.run_count


def _scheduled_start_time() -> datetime:
    run = _run()
    if run is not None:
        return from_micros(run.expected_start_micros)
    assigned = assigned_run()
    if assigned is not None and assigned.HasField("expected_start_time"):
        return assigned.expected_start_time.ToDatetime(UTC)
    return datetime.now(UTC)


def _parent_flow_run_id() -> str | None:
    run = _run()
    if run is not None:
        return run.parent_flow_run_id
    assigned = assigned_run()
    return None if assigned is None else assigned.parent_run_id or None


def _parent_deployment_id() -> str | None:
    context = FlowRunContext.get()
    parent = None if context is None else context.parent
    flow = parent.flow_context if isinstance(parent, TaskRunContext) else parent
    return None if flow is None else flow.flow_run.deployment_id


def _root_flow_run_id() -> str | None:
    run = _run()
    if run is not None:
        return run.root_flow_run_id
    assigned = assigned_run()
    return None if assigned is None else assigned.root_run_id


def _api_url() -> str | None:
    return api_url_of(_id())


def _ui_url() -> str | None:
    # Servers of this version have no pages.
    return None


def _job_variables() -> dict[str, Any]:
    assigned = assigned_run()
    if assigned is None:
        return {}
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(assigned.job_variables)


_attributes = Attributes(
    __name__,
    {
        "id": _id,
        "name": _name,
        "tags": _tags,
        "parameters": _parameters,
        "flow_name": _flow_name,
        "flow_version": _flow_version,
        "run_count": _run_count,
        "scheduled_start_time": _scheduled_start_time,
        "parent_flow_run_id": _parent_flow_run_id,
        "parent_deployment_id": _parent_deployment_id,
        "root_flow_run_id": _root_flow_run_id,
        "api_url": _api_url,
        "ui_url": _ui_url,
        "job_variables": _job_variables,
    },
)


def __getattr__(name: str) -> Any:
    return _attributes.get(name)


def __dir__() -> list[str]:
    return _attributes.names()
