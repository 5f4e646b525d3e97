"""Why a run does not run: for each cause the situation is made, and that one is named."""

from __future__ import annotations

import pytest

from headrace.core.ids import new_id
from headrace.v1 import run_service_pb2 as pb
from headrace.v1.state_pb2 import STATE_TYPE_CRASHED
from headrace.v1.work_pool_service_pb2 import PauseWorkPoolRequest, ResumeWorkPoolRequest
from tests.dispatch.stand import Stand

pytestmark = pytest.mark.anyio


async def explain(stand: Stand, run_id: str) -> pb.ExplainRunResponse:
    answer: pb.ExplainRunResponse = await stand.client.runs.ExplainRun(pb.ExplainRunRequest(run_id=run_id))
    return answer


async def cause(stand: Stand, run_id: str) -> str:
    return pb.BlockingCause.Name((await explain(stand, run_id)).cause).removeprefix("BLOCKING_CAUSE_")


async def test_each_cause_is_named(stand: Stand) -> None:
    run = await stand.create()
    answer = await explain(stand, run.id)
    assert answer.cause == pb.BLOCKING_CAUSE_NO_WORKER
    assert answer.remedy == "headrace worker start --pool default"
    assert (answer.subject, answer.position) == ("default", 1)

    later = await stand.create(delay_seconds=3600)
    answer = await explain(stand, later.id)
    assert answer.cause == pb.BLOCKING_CAUSE_NOT_DUE
    assert answer.until == later.state.scheduled.scheduled_time

    assert await cause(stand, (await stand.create("elsewhere")).id) == "NO_WORK_POOL"

    await stand.pools.PauseWorkPool(PauseWorkPoolRequest(name="default"))
    assert await cause(stand, run.id) == "WORK_POOL_PAUSED"
    await stand.pools.ResumeWorkPool(ResumeWorkPoolRequest(name="default"))

    async with stand.worker(labels={"zone": "a"}) as worker:
        assert await cause(stand, run.id) == "NO_CREDIT"
        labelled = await stand.create(required_labels={"zone": "b"})
        answer = await explain(stand, labelled.id)
        assert answer.cause == pb.BLOCKING_CAUSE_NO_MATCHING_WORKER
        assert "zone=b" in answer.message

        await worker.grant(1)
        assignment = await worker.assignment()
        assert await cause(stand, run.id) == "OFFERED"
        await worker.accept(assignment)
        await worker.heartbeat(assignment.attempt)
        assert await cause(stand, run.id) == "INFRASTRUCTURE"
        waiting = await stand.create()
        answer = await explain(stand, waiting.id)
        assert answer.cause == pb.BLOCKING_CAUSE_NO_CREDIT
        assert list(answer.holder_run_ids) == [run.id]
        await stand.complete(assignment.attempt)
        assert await cause(stand, run.id) == "NONE"


async def test_limits_are_named_with_who_holds_them(stand: Stand) -> None:
    await stand.make_pool("narrow", concurrency_limit=1)
    async with stand.worker("narrow", credit=5) as worker:
        first, second = await stand.create("narrow"), await stand.create("narrow")
        assignment = await worker.assignment()
        assert assignment.run.id == first.id
        answer = await explain(stand, second.id)
        assert answer.cause == pb.BLOCKING_CAUSE_WORK_POOL_LIMIT
        assert list(answer.holder_run_ids) == [first.id]
        assert "limit of 1" in answer.message
        await stand.complete(assignment.attempt)
        assert (await worker.assignment()).run.id == second.id


async def test_a_run_that_ended_is_run_again(stand: Stand) -> None:
    async with stand.worker(credit=2) as worker:
        run = await stand.create(deployment_id="")
        assignment = await worker.assignment()
        await worker.report_exit(assignment.attempt, 1, 9, message="Killed.")
        await stand.until(run.id, STATE_TYPE_CRASHED)
        request = pb.RetryRunRequest(run_id=run.id, state_id=new_id())
        verdict = (await stand.client.runs.RetryRun(request)).verdict
        # Without a deployment nobody knows how to run it again.
        assert "no deployment" in verdict.abort.reason


async def test_a_run_that_waits_gets_another_time(stand: Stand) -> None:
    run = await stand.create(delay_seconds=3600)
    request = pb.RescheduleRunRequest(run_id=run.id, state_id=new_id())
    request.scheduled_time.FromMicroseconds(stand.client.server.clock.now())
    async with stand.worker(credit=1) as worker:
        verdict = (await stand.client.runs.RescheduleRun(request)).verdict
        assert verdict.WhichOneof("verdict") == "accepted"
        assert (await worker.assignment()).run.id == run.id
        again = pb.RescheduleRunRequest(
            run_id=run.id, state_id=new_id(), scheduled_time=request.scheduled_time
        )
        verdict = (await stand.client.runs.RescheduleRun(again)).verdict
        assert "Somebody executes the run" in verdict.abort.reason
