"""`run_deployment`, against a real server; the run itself is played by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from headrace import flow, get_client, task
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.errors import ObjectNotFound, ParametersInvalid
from headrace.core.ids import new_id
from headrace.deployments import arun_deployment, run_deployment
from headrace.runs import FlowRun
from headrace.testing import headrace_test_harness
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.run_service_pb2 import ProposeStateRequest
from headrace.v1.state_pb2 import (
    STATE_TYPE_COMPLETED,
    STATE_TYPE_FAILED,
    STATE_TYPE_PENDING,
    STATE_TYPE_RUNNING,
    State,
    StateType,
)
from headrace.v1.work_pool_pb2 import WorkPool

SCHEMA = json.dumps({"properties": {"n": {"type": "integer"}, "price": {"type": "string"}}})


@pytest.fixture(scope="module")
def client() -> Iterator[SyncHeadraceClient]:
    """A client of the server that runs for this module, which has one deployment."""
    with headrace_test_harness(), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPool(name="pool", type="process"))
        client.apply_deployment(
            Deployment(flow_name="child", name="d", work_pool="pool", parameter_schema=SCHEMA, tags=["d"])
        )
        yield client


def play(client: SyncHeadraceClient, known: set[str], ends: StateType.ValueType) -> str:
    """Wait for a new run of the deployment, and let it run to its end."""
    for event in client.watch_runs(RunFilter(flow_names=["child"])):
        if event.HasField("upsert") and event.upsert.id not in known:
            run_id = event.upsert.id
            for kind in (STATE_TYPE_PENDING, STATE_TYPE_RUNNING, ends):
                state = State(id=new_id(), type=kind)
                state.event_time.GetCurrentTime()
                client.propose_state(ProposeStateRequest(run_id=run_id, state=state))
            return run_id
    raise AssertionError("the watch has ended")


def runs(client: SyncHeadraceClient) -> set[str]:
    return {run.id for run in client.iter_runs(RunFilter(flow_names=["child"]))}


def played(
    client: SyncHeadraceClient, call: Any, ends: StateType.ValueType = STATE_TYPE_COMPLETED
) -> FlowRun:
    """What `call` returns while somebody plays the run."""
    known = runs(client)
    with ThreadPoolExecutor(1) as pool:
        player = pool.submit(play, client, known, ends)
        run: FlowRun = call()
        assert player.result() == run.id
    return run


def test_a_run_is_waited_for(client: SyncHeadraceClient) -> None:
    run = played(client, lambda: run_deployment("child/d", {"n": 3, "price": Decimal("1.50")}, tags=["x"]))
    assert run.state is not None and run.state.is_completed()
    kept = client.get_run(run.id)
    assert json.loads(kept.parameters.inline) == {"n": 3, "price": "1.50"}
    assert (list(kept.tags), kept.parent_run_id) == (["d", "x"], "")


def test_a_run_that_fails_is_returned(client: SyncHeadraceClient) -> None:
    run = played(client, lambda: run_deployment("child/d"), STATE_TYPE_FAILED)
    assert run.state is not None and run.state.is_failed()


def test_time_that_is_over_leaves_the_run_alone(client: SyncHeadraceClient) -> None:
    at_once = run_deployment("child/d", timeout=0, flow_run_name="mine", idempotency_key="k")
    assert at_once.state is not None and at_once.state.is_scheduled()
    assert at_once.name == "mine"
    later = datetime.now(UTC) + timedelta(hours=1)
    soon = run_deployment("child/d", timeout=0.1, scheduled_time=later, work_queue_name="fast")
    assert soon.state is not None and soon.state.is_scheduled()
    kept = client.get_run(soon.id)
    assert kept.work_queue == "fast"
    assert abs(kept.next_scheduled_start_time.ToDatetime(UTC) - later) < timedelta(seconds=1)
    assert run_deployment("child/d", timeout=0, idempotency_key="k").id == at_once.id
    with pytest.raises(ValueError, match="negative"):
        run_deployment("child/d", timeout=-1)


def test_mistakes_are_told(client: SyncHeadraceClient) -> None:
    with pytest.raises(ObjectNotFound, match="child/none"):
        run_deployment("child/none")
    with pytest.raises(ParametersInvalid, match=r"parameters\.n: must be a whole number"):
        run_deployment("child/d", {"n": "many"})


@task
def count() -> int:
    return 7


@flow(name="asks")
def asks() -> tuple[str, str]:
    future = count.submit()
    run = run_deployment("child/d", {"n": future}, timeout=0, job_variables={"env.A": "1"})
    alone = run_deployment("child/d", timeout=0, as_subflow=False)
    return run.id, alone.id


@flow(name="asks-async")
async def asks_async() -> tuple[str, str]:
    future = count.submit()
    run = await arun_deployment("child/d", {"n": future}, timeout=0, job_variables={"env.A": "1"})
    alone = await arun_deployment("child/d", timeout=0, as_subflow=False)
    return run.id, alone.id


def below(client: SyncHeadraceClient, name: str) -> Run:
    return next(iter(client.iter_runs(RunFilter(flow_names=[name], top_level_only=True), page_size=1)))


def check_subflow(client: SyncHeadraceClient, name: str, ids: tuple[str, str]) -> None:
    parent, child, alone = below(client, name), client.get_run(ids[0]), client.get_run(ids[1])
    assert (child.parent_run_id, child.root_run_id, child.owner_run_id) == (parent.id, parent.id, child.id)
    assert json.loads(child.parameters.inline) == {"n": 7}
    [edge] = child.inputs
    [counted] = client.iter_runs(RunFilter(parent_run_ids=[parent.id], task_names=["count"]))
    assert (edge.parameter, list(edge.run_ids)) == ("n", [counted.id])
    assert dict(child.job_variables) == {"env.A": "1"}
    assert (alone.parent_run_id, alone.root_run_id) == ("", alone.id)


def test_inside_a_flow_it_is_a_subflow(client: SyncHeadraceClient) -> None:
    check_subflow(client, "asks", asks())


async def test_inside_a_coroutine_too(client: SyncHeadraceClient) -> None:
    ids = await asks_async()
    check_subflow(client, "asks-async", ids)
