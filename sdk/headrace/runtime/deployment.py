"""The deployment of the flow run whose code runs now; see `headrace.runtime`.

In subflows it is that of the run at the top. What is not known here is asked of the server, once.

Attributes:
    id: the deployment; None for a flow that was called.
    name: its name.
    version: what its author called the version that the run was made from.
    flow_run_id: the flow run.
    parameters: what the run of the deployment was called with; of a flow that was called, what that was.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from headrace.context import FlowRunContext
from headrace.runtime.attributes import Attributes
from headrace.runtime.lookup import assigned_run, assigned_run_id

if TYPE_CHECKING:
    id: str | None
    name: str | None
    version: str | None
    flow_run_id: str | None
    parameters: dict[str, Any]

__all__ = ["flow_run_id", "id", "name", "parameters", "version"]


def _top() -> FlowRunContext | None:
    """The flow run around this one that no other in this process has called."""
    found = context = FlowRunContext.get()
    while context is not None:
        found = context
        around = context.parent
        context = None if around is None else around.enclosing_flow
    return found


def _id() -> str | None:
    top = _top()
    if top is not None and top.flow_run.deployment_id is not None:
        return top.flow_run.deployment_id
    run = assigned_run()
    return None if run is None else run.deployment_id or None


def _run_id() -> str | None:
    """The run of the deployment."""
    top = _top()
    if top is not None and top.flow_run.deployment_id is not None:
        return top.flow_run.id
    return assigned_run_id()


def _flow_run_id() -> str | None:
    context = FlowRunContext.get()
    return assigned_run_id() if context is None else context.flow_run.id


def _parameters() -> dict[str, Any]:
    top = _top()
    run = assigned_run()
    if run is not None and run.deployment_id:
        return dict(json.loads(run.parameters.inline)) if run.HasField("parameters") else {}
    return {} if top is None else dict(top.parameters)


def _name() -> str | None:
    deployment_id, run_id = _id(), _run_id()
    return None if deployment_id is None or run_id is None else _names(deployment_id, run_id)[0]


def _version() -> str | None:
    deployment_id, run_id = _id(), _run_id()
    return None if deployment_id is None or run_id is None else _names(deployment_id, run_id)[1]


@lru_cache(maxsize=64)
def _names(deployment_id: str, run_id: str) -> tuple[str, str | None]:
    """Name and version of the deployment that a run was made from."""
    from headrace.client import get_client

    with get_client(sync_client=True) as client:
        made_from = client.get_run(run_id).deployment_version_id
        for version in client.iter_deployment_versions(deployment_id):
            if version.id == made_from:
                return version.deployment.name, version.deployment.version or None
        deployment = client.get_deployment(deployment_id)
        return deployment.name, deployment.version or None


_attributes = Attributes(
    __name__,
    {
        "id": _id,
        "name": _name,
        "version": _version,
        "flow_run_id": _flow_run_id,
        "parameters": _parameters,
    },
)


def __getattr__(name: str) -> Any:
    return _attributes.get(name)


def __dir__() -> list[str]:
    return _attributes.names()
