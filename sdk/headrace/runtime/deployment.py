"""The deployment of the flow run whose code runs now; see `headrace.runtime`.

Attributes:
    id: the deployment; None for a flow that was called.
    name: its name.
    version: its version.
    flow_run_id: the flow run.
    parameters: the parameters that the deployment has given to the flow run.
"""

from __future__ import annotations

import json
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


def _id() -> str | None:
    context = FlowRunContext.get()
    if context is not None:
        return context.flow_run.deployment_id
    run = assigned_run()
    return None if run is None else run.deployment_id or None


def _flow_run_id() -> str | None:
    return assigned_run_id()


def _parameters() -> dict[str, Any]:
    run = assigned_run()
    if run is None or not run.deployment_id or not run.HasField("parameters"):
        return {}
    return dict(json.loads(run.parameters.inline))


def _nothing() -> None:
    # Servers of this version keep no deployments: no run comes from one.
    return None


_attributes = Attributes(
    __name__,
    {
        "id": _id,
        "name": _nothing,
        "version": _nothing,
        "flow_run_id": _flow_run_id,
        "parameters": _parameters,
    },
)


def __getattr__(name: str) -> Any:
    return _attributes.get(name)


def __dir__() -> list[str]:
    return _attributes.names()
