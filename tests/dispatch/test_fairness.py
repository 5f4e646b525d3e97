"""Rules of fairness keys over the wire, and what they do to a worker that is connected."""

from __future__ import annotations

import grpc
import pytest

from headrace.v1 import run_service_pb2 as pb
from headrace.v1.work_pool_pb2 import FairnessRule
from headrace.v1.work_pool_service_pb2 import (
    DeleteFairnessRuleRequest,
    ListFairnessRulesRequest,
    SetFairnessRuleRequest,
)
from tests.dispatch.stand import Stand

pytestmark = pytest.mark.anyio


async def set_rule(stand: Stand, **fields: object) -> FairnessRule:
    rule = FairnessRule(work_pool="default", **fields)  # type: ignore[arg-type]
    answer = await stand.pools.SetFairnessRule(SetFairnessRuleRequest(rule=rule))
    made: FairnessRule = answer.rule
    return made


async def test_a_key_at_its_limit(stand: Stand) -> None:
    await set_rule(stand, fairness_key="tenant", concurrency_limit=1)
    many = [await stand.create(fairness_key="tenant", priority=9) for _ in range(40)]
    other = await stand.create()
    async with stand.worker(credit=3) as worker:
        first, second = [await worker.assignment() for _ in range(2)]
        tenant = first if first.run.fairness_key else second
        assert {first.run.id, second.run.id} == {tenant.run.id, other.id}
        waiting = next(run for run in many if run.id != tenant.run.id)
        why = await stand.client.runs.ExplainRun(pb.ExplainRunRequest(run_id=waiting.id))
        assert why.cause == pb.BLOCKING_CAUSE_FAIRNESS_KEY_LIMIT
        assert list(why.holder_run_ids) == [tenant.run.id] and why.subject == "tenant"
        assert why.message == "Its fairness key 'tenant' is at its limit of 1 in the work pool 'default'."
        await stand.complete(tenant.attempt)
        assert (await worker.assignment()).run.fairness_key == "tenant"


async def test_the_rules_of_a_pool_are_set_and_taken_away(stand: Stand) -> None:
    made = await set_rule(stand, fairness_key="tenant", weight=2.5)
    assert made.weight == 2.5 and not made.HasField("concurrency_limit")
    assert (await set_rule(stand, fairness_key="tenant", weight=2.5)).update_time == made.update_time
    listed = await stand.pools.ListFairnessRules(ListFairnessRulesRequest(work_pool="default"))
    assert [rule.fairness_key for rule in listed.rules] == ["tenant"]
    request = DeleteFairnessRuleRequest(work_pool="default", fairness_key="tenant")
    await stand.pools.DeleteFairnessRule(request)
    assert not (await stand.pools.ListFairnessRules(ListFairnessRulesRequest())).rules
    for call, code in (
        (set_rule(stand, fairness_key="tenant", weight=1000), grpc.StatusCode.INVALID_ARGUMENT),
        (set_rule(stand), grpc.StatusCode.INVALID_ARGUMENT),
        (stand.pools.DeleteFairnessRule(request), grpc.StatusCode.NOT_FOUND),
        (
            stand.pools.ListFairnessRules(ListFairnessRulesRequest(work_pool="none")),
            grpc.StatusCode.NOT_FOUND,
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is code
