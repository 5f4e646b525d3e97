"""The inputs of a run as the server keeps them: JSON values under keys."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from headrace.client.background import offloaded
from headrace.context import FlowRunContext
from headrace.execution.background import dispatched
from headrace.execution.server import recorded_everything, server_for
from headrace.v1.run_service_pb2 import ListRunInputsRequest
from headrace.v1.run_service_pb2 import RunInput as RunInputMessage

__all__ = [
    "acreate_flow_run_input",
    "adelete_flow_run_input",
    "afilter_flow_run_input",
    "aread_flow_run_input",
    "create_flow_run_input",
    "delete_flow_run_input",
    "ensure_flow_run_id",
    "filter_flow_run_input",
    "is_own_run",
    "read_flow_run_input",
]

_WHAT = "The input of a flow run"


def ensure_flow_run_id(flow_run_id: str | UUID | None = None) -> str:
    """The id of the given run, or of the one around the call.

    Raises:
        RuntimeError: there is neither.
    """
    if flow_run_id is not None:
        return str(flow_run_id)
    context = FlowRunContext.get()
    if context is None:
        raise RuntimeError("Must either provide a flow run ID or be within a flow run.")
    return context.flow_run.id


def is_own_run(flow_run_id: str) -> bool:
    """Whether this code runs in that flow run, so that the server may not know of it yet."""
    context = FlowRunContext.get()
    return context is not None and flow_run_id in context.run_ids


@offloaded
async def acreate_flow_run_input(
    key: str, value: Any, flow_run_id: str | UUID | None = None, sender: str | None = None
) -> None:
    """Tell a flow run something.

    Args:
        key: unique in the run.
        value: anything that pydantic can make JSON of.
        flow_run_id: the run; None: the one around the call.
        sender: who tells it.

    Raises:
        ObjectAlreadyExists: the run was told something else under the key.
        ObjectNotFound: there is no such run.
        RuntimeError: no run is given, and there is none around the call.
        ServerUnavailable: there is no server, and none can be started.
    """
    from pydantic_core import to_json

    run_id = ensure_flow_run_id(flow_run_id)
    said = RunInputMessage(run_id=run_id, key=key, value=to_json(value).decode(), sender=sender or "")
    async with server_for(_WHAT) as client:
        if is_own_run(run_id):
            await recorded_everything()
        await client.send_run_input(said)


def create_flow_run_input(
    key: str, value: Any, flow_run_id: str | UUID | None = None, sender: str | None = None
) -> None:
    """Tell a flow run something; see `acreate_flow_run_input`."""
    return dispatched(acreate_flow_run_input(key, value, flow_run_id, sender))


@offloaded
async def aread_flow_run_input(key: str, flow_run_id: str | UUID | None = None) -> Any:
    """What a flow run was told under `key`; None when nothing. Raises as `afilter_flow_run_input`."""
    run_id = ensure_flow_run_id(flow_run_id)
    async with server_for(_WHAT) as client:
        if is_own_run(run_id):
            await recorded_everything()
        found = await client.list_run_inputs(ListRunInputsRequest(run_id=run_id, keys=[key]))
    return json.loads(found.inputs[0].value) if found.inputs else None


def read_flow_run_input(key: str, flow_run_id: str | UUID | None = None) -> Any:
    """What a flow run was told under `key`; see `aread_flow_run_input`."""
    return dispatched(aread_flow_run_input(key, flow_run_id))


@offloaded
async def afilter_flow_run_input(
    key_prefix: str,
    limit: int = 1,
    exclude_keys: set[str] | None = None,
    flow_run_id: str | UUID | None = None,
) -> list[RunInputMessage]:
    """What a flow run was told under keys with a prefix, oldest first.

    Args:
        key_prefix: that the keys begin with.
        limit: at most so many.
        exclude_keys: not these.
        flow_run_id: the run; None: the one around the call.

    Raises:
        ObjectNotFound: there is no such run.
        RuntimeError: no run is given, and there is none around the call.
        ServerUnavailable: there is no server, and none can be started.
    """
    run_id = ensure_flow_run_id(flow_run_id)
    request = ListRunInputsRequest(run_id=run_id, key_prefix=key_prefix)
    kept: list[RunInputMessage] = []
    async with server_for(_WHAT) as client:
        if is_own_run(run_id):
            await recorded_everything()
        while len(kept) < limit:
            page = await client.list_run_inputs(request)
            kept += [said for said in page.inputs if said.key not in (exclude_keys or ())]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
    return kept[:limit]


def filter_flow_run_input(
    key_prefix: str,
    limit: int = 1,
    exclude_keys: set[str] | None = None,
    flow_run_id: str | UUID | None = None,
) -> list[RunInputMessage]:
    """What a flow run was told under keys with a prefix; see `afilter_flow_run_input`."""
    return dispatched(afilter_flow_run_input(key_prefix, limit, exclude_keys, flow_run_id))


@offloaded
async def adelete_flow_run_input(key: str, flow_run_id: str | UUID | None = None) -> None:
    """Have what a flow run was told under `key` forgotten."""
    async with server_for(_WHAT) as client:
        await client.delete_run_input(ensure_flow_run_id(flow_run_id), key)


def delete_flow_run_input(key: str, flow_run_id: str | UUID | None = None) -> None:
    """Have what a flow run was told under `key` forgotten; see `adelete_flow_run_input`."""
    return dispatched(adelete_flow_run_input(key, flow_run_id))
