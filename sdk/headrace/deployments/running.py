"""Runs of deployments, asked for by a program: inside a flow as its subflows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from headrace.client.deployments import deployment_key
from headrace.context import FlowRunContext, TaskRunContext, current_run
from headrace.core.ids import new_id
from headrace.exceptions import FlowRunWaitTimeout
from headrace.execution.background import dispatched
from headrace.execution.calls import origins_around
from headrace.execution.server import recorded_everything, server_for
from headrace.flow_runs import wait_for_flow_run
from headrace.tracing import current_traceparent
from headrace.upstreams import collect_inputs, resolve_inputs
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest
from headrace.v1.run_pb2 import RunInputEdge

if TYPE_CHECKING:
    from headrace.runs import FlowRun

__all__ = ["arun_deployment", "run_deployment"]


async def arun_deployment(
    name: str | UUID,
    parameters: Mapping[str, Any] | None = None,
    scheduled_time: datetime | None = None,
    flow_run_name: str | None = None,
    timeout: float | None = None,
    poll_interval: float | None = 5,
    tags: Iterable[str] | None = None,
    idempotency_key: str | None = None,
    work_queue_name: str | None = None,
    as_subflow: bool = True,
    job_variables: Mapping[str, Any] | None = None,
) -> FlowRun:
    """Ask for a run of a deployment, and wait until it has ended.

    Inside a flow or task the run is a subflow: it shows below the run that asks for it, with the runs from
    which its parameters came, and cancelling that run cancels it.

    Args:
        name: the deployment: `flow-name/deployment-name`, or its id.
        parameters: over the deployment's. Futures are waited for and stand for their results.
        scheduled_time: when it is to start, in local time if it names no zone; None: now.
        flow_run_name: None: one is made up.
        timeout: seconds; None: for as long as it takes; 0: return at once. When it is over the run is
            returned as it is, and goes on.
        poll_interval: seconds between two tries to watch the run while the server is away. The end of the
            run is told at once.
        tags: besides the deployment's.
        idempotency_key: the run that was made with the same key before, finished or not, is taken instead of
            a new one. Without it every call makes one run, even when its answer is lost on the way.
        work_queue_name: another queue of the deployment's work pool.
        as_subflow: False: the run has nothing to do with the one around the call.
        job_variables: over the deployment's.

    Returns:
        The run. It does not raise when the run has failed: `run.state.result()` does.

    Raises:
        ParametersInvalid: the parameters do not fit the deployment.
        ObjectNotFound: there is no such deployment.
        ValueError: `timeout` is negative.
        ServerUnavailable: there is no server, and none can be started.
    """
    if timeout is not None and timeout < 0:
        raise ValueError("`timeout` cannot be negative")
    given = dict(parameters or {})
    around = current_run()
    own_run_ids = () if around is None else around.run_ids
    inputs = collect_inputs(given, origins=origins_around(around), own_run_ids=own_run_ids)
    for future in inputs.waits_for:
        await asyncio.to_thread(future.wait)
    request = CreateDeploymentRunRequest(
        deployment=deployment_key(str(name)),
        run_id=new_id(),
        name=flow_run_name or "",
        parameters=_as_json(resolve_inputs(given)),
        tags=sorted(set(tags or ())),
        idempotency_key=idempotency_key or "",
        work_queue=work_queue_name or "",
        traceparent=current_traceparent(),
    )
    if scheduled_time is not None:
        request.scheduled_time.FromDatetime(scheduled_time.astimezone())
    if job_variables:
        request.job_variables.update(json.loads(_as_json(job_variables)))
    if as_subflow and around is not None:
        request.parent_run_id = _run_id(around)
        edges = inputs.edges
        request.inputs.extend(RunInputEdge(parameter=p, run_ids=ids) for p, ids in edges.items())
        await recorded_everything()
    return await _made(request, timeout, poll_interval)


def run_deployment(
    name: str | UUID,
    parameters: Mapping[str, Any] | None = None,
    scheduled_time: datetime | None = None,
    flow_run_name: str | None = None,
    timeout: float | None = None,
    poll_interval: float | None = 5,
    tags: Iterable[str] | None = None,
    idempotency_key: str | None = None,
    work_queue_name: str | None = None,
    as_subflow: bool = True,
    job_variables: Mapping[str, Any] | None = None,
) -> FlowRun:
    """Ask for a run of a deployment, and wait until it has ended; see `arun_deployment`."""
    return dispatched(
        arun_deployment(
            name,
            parameters,
            scheduled_time,
            flow_run_name,
            timeout,
            poll_interval,
            tags,
            idempotency_key,
            work_queue_name,
            as_subflow,
            job_variables,
        )
    )


async def _made(
    request: CreateDeploymentRunRequest, timeout: float | None, poll_interval: float | None
) -> FlowRun:
    from headrace.execution.attempts import recorded_flow_run

    async with server_for("Running a deployment") as client:
        run = (await client.create_deployment_run(request)).run
        if timeout != 0:
            try:
                return await wait_for_flow_run(run.id, timeout, poll_interval, client)
            except FlowRunWaitTimeout:
                run = await client.get_run(run.id)
        return recorded_flow_run(run, run.attempt, run.fence)


def _run_id(around: FlowRunContext | TaskRunContext) -> str:
    return around.task_run.id if isinstance(around, TaskRunContext) else around.flow_run.id


def _as_json(value: object) -> str:
    """JSON text of what is not plain JSON too: the run's process makes of it what its annotations say."""
    from pydantic_core import to_json

    return to_json(value).decode()
