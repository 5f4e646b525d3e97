"""Names that the shell may complete, from the server if one answers quickly; else none, and no word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.core.errors import HeadraceException
from headrace.settings import get_current_settings

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient

__all__ = [
    "deployment_names",
    "flow_names",
    "flow_run_names",
    "profile_names",
    "task_run_names",
    "work_pool_names",
    "work_queue_names",
]

MOST = 100
PATIENCE_SECONDS = 1.0


def flow_run_names(context: object) -> list[str]:
    """Names of the newest flow runs."""
    from headrace.v1.run_pb2 import RunKind

    return _ask(lambda client: _run_names(client, RunKind.RUN_KIND_FLOW))


def task_run_names(context: object) -> list[str]:
    """Names of the newest task runs."""
    from headrace.v1.run_pb2 import RunKind

    return _ask(lambda client: _run_names(client, RunKind.RUN_KIND_TASK))


def flow_names(context: object) -> list[str]:
    """Names of flows."""
    return _ask(_flow_names)


def deployment_names(context: object) -> list[str]:
    """Names of deployments, with their flows'."""
    return _ask(_deployment_names)


def work_pool_names(context: object) -> list[str]:
    """Names of work pools."""
    return _ask(_work_pool_names)


def work_queue_names(context: object) -> list[str]:
    """Names of work queues."""
    return _ask(_work_queue_names)


def profile_names(context: object) -> list[str]:
    """Names of profiles."""
    from headrace.cli import profile_store

    try:
        return profile_store.read().names
    except HeadraceException:
        return []


async def _run_names(client: HeadraceClient, kind: Any) -> list[str]:
    from headrace.v1.run_pb2 import RunFilter
    from headrace.v1.run_service_pb2 import ListRunsRequest

    page = await client.list_runs(ListRunsRequest(filter=RunFilter(kinds=[kind]), page_size=MOST))
    return list(dict.fromkeys(run.name for run in page.runs))


async def _flow_names(client: HeadraceClient) -> list[str]:
    from headrace.v1.flow_service_pb2 import ListFlowsRequest

    page = await client.list_flows(ListFlowsRequest(page_size=MOST))
    return [flow.name for flow in page.flows]


async def _deployment_names(client: HeadraceClient) -> list[str]:
    from headrace.v1.deployment_service_pb2 import ListDeploymentsRequest

    page = await client.list_deployments(ListDeploymentsRequest(page_size=MOST))
    return [f"{deployment.flow_name}/{deployment.name}" for deployment in page.deployments]


async def _work_pool_names(client: HeadraceClient) -> list[str]:
    from headrace.v1.work_pool_service_pb2 import ListWorkPoolsRequest

    return [p.name for p in (await client.list_work_pools(ListWorkPoolsRequest(page_size=MOST))).work_pools]


async def _work_queue_names(client: HeadraceClient) -> list[str]:
    from headrace.v1.work_pool_service_pb2 import ListWorkQueuesRequest

    page = await client.list_work_queues(ListWorkQueuesRequest(page_size=MOST))
    return list(dict.fromkeys(queue.name for queue in page.work_queues))


def _ask(question: Callable[[HeadraceClient], Coroutine[Any, Any, list[str]]]) -> list[str]:
    async def ask() -> list[str]:
        from headrace.client import get_client

        settings = replace(get_current_settings(), api_request_timeout_seconds=PATIENCE_SECONDS)
        async with get_client(settings, start_server=False) as client:
            return await question(client)

    try:
        return asyncio.run(ask())
    except HeadraceException:
        return []
