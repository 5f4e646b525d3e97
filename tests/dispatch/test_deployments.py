"""Runs of deployments: what their workers are told, and the limits of the deployment."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.core.ids import new_id
from headrace.v1.deployment_pb2 import (
    COLLISION_STRATEGY_CANCEL_NEW,
    COLLISION_STRATEGY_UNSPECIFIED,
    CollisionStrategy,
    Deployment,
    DeploymentConcurrency,
)
from headrace.v1.deployment_service_pb2 import (
    ApplyDeploymentRequest,
    CreateDeploymentRunRequest,
    DeploymentKey,
)
from headrace.v1.deployment_service_pb2_grpc import DeploymentServiceStub
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_RESCHEDULE, Run
from headrace.v1.run_service_pb2 import (
    BLOCKING_CAUSE_DEPLOYMENT_LIMIT,
    ExplainRunRequest,
    ResumeRunRequest,
    RetryRunRequest,
)
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLED, STATE_TYPE_CRASHED, STATE_TYPE_SCHEDULED
from tests.dispatch.stand import Stand, eventually

pytestmark = pytest.mark.anyio


class Deployed:
    """One deployment of the stand's server."""

    def __init__(self, stand: Stand) -> None:
        self._stub: Any = DeploymentServiceStub(stand.client.channel)

    async def apply(self, **fields: Any) -> Deployment:
        """Declare it so."""
        deployment = Deployment(
            flow_name="etl", name="nightly", entrypoint="etl.py:main", work_pool="default", **fields
        )
        response = await self._stub.ApplyDeployment(ApplyDeploymentRequest(deployment=deployment))
        made: Deployment = response.deployment
        return made

    async def run(self) -> Run:
        """Make a run of it."""
        key = DeploymentKey(name="etl/nightly")
        response = await self._stub.CreateDeploymentRun(CreateDeploymentRunRequest(deployment=key))
        run: Run = response.run
        return run


def limit(
    slots: int, strategy: CollisionStrategy.ValueType = COLLISION_STRATEGY_UNSPECIFIED
) -> DeploymentConcurrency:
    return DeploymentConcurrency(limit=slots, collision_strategy=strategy)


async def test_a_worker_is_told_how_the_deployment_is_run(stand: Stand) -> None:
    deployed = Deployed(stand)
    policy = LOST_ATTEMPT_POLICY_RESCHEDULE
    await deployed.apply(environment={"A": "1"}, path="/srv", on_lost=policy, required_labels={"gpu": "a"})
    async with stand.worker(credit=1), stand.worker(credit=1, labels={"gpu": "a"}) as worker:
        await deployed.run()
        assignment = await worker.assignment()
        assert assignment.entrypoint == "etl.py:main"
        assert (assignment.deployment_name, assignment.path) == ("nightly", "/srv")
        assert dict(assignment.environment) == {"A": "1"}
        assert assignment.on_lost == LOST_ATTEMPT_POLICY_RESCHEDULE
        # What the deployment says of lost attempts is done.
        await worker.accept(assignment)
        await worker.report_exit(assignment.attempt, 1, 9, message="Killed.")
        await worker.grant(1)
        assert (await worker.assignment()).attempt.attempt == 2


async def test_a_deployment_at_its_limit_queues_first_come_first_served(stand: Stand) -> None:
    deployed = Deployed(stand)
    await deployed.apply(concurrency=limit(1))
    async with stand.worker(credit=9) as worker:
        runs = [await deployed.run() for _ in range(3)]
        other = await stand.create()
        first, beside = await worker.assignment(), await worker.assignment()
        assert [first.run.id, beside.run.id] == [runs[0].id, other.id]

        async def blocked() -> bool:
            return (await stand.get(runs[1].id)).state.name == "AwaitingConcurrencySlot"

        await eventually(blocked)
        answer = await stand.client.runs.ExplainRun(ExplainRunRequest(run_id=runs[1].id))
        assert answer.cause == BLOCKING_CAUSE_DEPLOYMENT_LIMIT
        assert list(answer.holder_run_ids) == [runs[0].id]
        await stand.complete(first.attempt)
        second = await worker.assignment()
        assert second.run.id == runs[1].id
        # A limit that is raised lets the next one go.
        await deployed.apply(concurrency=limit(2))
        assert (await worker.assignment()).run.id == runs[2].id


async def test_a_deployment_at_its_limit_may_cancel_what_is_new(stand: Stand) -> None:
    deployed = Deployed(stand)
    await deployed.apply(concurrency=limit(1, COLLISION_STRATEGY_CANCEL_NEW))
    async with stand.worker(credit=9) as worker:
        first, second = await deployed.run(), await deployed.run()
        assert (await worker.assignment()).run.id == first.id
        cancelled = await stand.until(second.id, STATE_TYPE_CANCELLED)
        assert "limit" in cancelled.state.message


async def test_a_run_of_a_deployment_that_ended_is_run_again(stand: Stand) -> None:
    deployed = Deployed(stand)
    await deployed.apply()
    async with stand.worker(credit=2) as worker:
        run = await deployed.run()
        assignment = await worker.assignment()
        await worker.report_exit(assignment.attempt, 1, 9, message="Killed.")
        await stand.until(run.id, STATE_TYPE_CRASHED)
        request = RetryRunRequest(run_id=run.id, state_id=new_id())
        for _ in range(2):
            verdict = (await stand.client.runs.RetryRun(request)).verdict
            assert verdict.accepted.state.name == "AwaitingRetry"
        again = await worker.assignment()
        assert again.attempt.attempt == 2
        assert again.attempt.fence > assignment.attempt.fence
        await stand.complete(again.attempt)
        assert await stand.held() == 0


async def test_a_process_serves_its_own_deployments(stand: Stand) -> None:
    stub: Any = DeploymentServiceStub(stand.client.channel)
    deployment = Deployment(flow_name="etl", name="served", entrypoint="etl.py:main")
    response = await stub.ApplyDeployment(ApplyDeploymentRequest(deployment=deployment))
    key = DeploymentKey(name="etl/served")
    made = await stub.CreateDeploymentRun(CreateDeploymentRunRequest(deployment=key))
    assert made.run.state.type == STATE_TYPE_SCHEDULED
    async with stand.worker(credit=1, deployment_ids=[response.deployment.id]) as worker:
        assert (await worker.assignment()).run.id == made.run.id


async def test_the_process_of_a_suspended_run_may_end(stand: Stand) -> None:
    deployed = Deployed(stand)
    async with stand.worker(credit=1) as worker:
        await deployed.apply()
        run = await deployed.run()
        assignment = await worker.assignment()
        await worker.accept(assignment)
        await stand.suspend(assignment.attempt)
        await worker.report_exit(assignment.attempt, 1, 0)
        await worker.heartbeat()
        assert (await stand.get(run.id)).state.name == "Suspended"
        await stand.client.runs.ResumeRun(ResumeRunRequest(run_id=run.id, state_id=new_id()))
        # Said again, by a stream that has been cut meanwhile.
        await worker.report_exit(assignment.attempt, 2, 0)
        await worker.heartbeat()
        await worker.grant(1)
        again = await worker.assignment()
        assert (again.run.id, again.attempt.fence) == (run.id, assignment.attempt.fence + 1)
        assert await stand.names(run.id) == [
            "Scheduled",
            "Pending",
            "Running",
            "Suspended",
            "Resuming",
            "Pending",
        ]
