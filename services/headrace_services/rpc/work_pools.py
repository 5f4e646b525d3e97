"""`headrace.v1.WorkPoolService`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf.json_format import MessageToDict, ParseDict

from headrace.core.errors import FieldsInvalid, FieldViolation, PreconditionFailed
from headrace.core.job_templates import MANAGED, base_job_template
from headrace.core.job_variables import Problem, template_problems
from headrace.v1 import work_pool_service_pb2 as pb
from headrace.v1.work_pool_pb2 import WorkPool, WorkQueue
from headrace_services.domain.schema_checks import schema_faults
from headrace_services.domain.structs import whole_numbers
from headrace_services.rpc.call import Call
from headrace_services.storage.database import Database
from headrace_services.storage.fairness_commands import DeleteFairnessRule, SetFairnessRule
from headrace_services.storage.work_pool_commands import (
    CreateWorkPool,
    CreateWorkQueue,
    DeleteWorkPool,
    DeleteWorkQueue,
    UpdateWorkPool,
    UpdateWorkQueue,
)

__all__ = ["WorkPoolService"]

_RESERVED: Final = "headrace"
_TEMPLATE: Final = "work_pool.base_job_template"


class WorkPoolService:
    """Work pools, their queues, and the rules of their fairness keys.

    Args:
        database: where they are.
        changed: called when a pool was made, changed or deleted.
        refuses_managed: why there can be no managed pools; empty: there can.
    """

    def __init__(self, database: Database, changed: Callable[[], None], refuses_managed: str) -> None:
        self._changed = changed
        self._refuses_managed = refuses_managed
        self._writer = database.writer
        self._reader = database.reader.work_pools
        self._fairness = database.reader.fairness

    # Pools

    async def CreateWorkPool(
        self, request: pb.CreateWorkPoolRequest, call: Call
    ) -> pb.CreateWorkPoolResponse:
        pool = request.work_pool
        if pool.name.lower().startswith(_RESERVED):
            raise FieldsInvalid.of("work_pool.name", f"must not begin with '{_RESERVED}'")
        if not pool.type:
            raise FieldsInvalid.of("work_pool.type", "must be set, e.g. 'process'")
        if pool.type == MANAGED:
            if self._refuses_managed:
                raise PreconditionFailed(self._refuses_managed)
            _limit_to_cores(pool)
        if not pool.base_job_template.fields:
            ParseDict(base_job_template(pool.type), pool.base_job_template)
        _check_template(pool)
        made, existed = await self._writer.do(CreateWorkPool(pool, request.return_existing))
        self._changed()
        return pb.CreateWorkPoolResponse(work_pool=await self._reader.get(made.name), existed=existed)

    async def GetWorkPool(self, request: pb.GetWorkPoolRequest, call: Call) -> pb.GetWorkPoolResponse:
        return pb.GetWorkPoolResponse(work_pool=await self._reader.get(request.name))

    async def ListWorkPools(self, request: pb.ListWorkPoolsRequest, call: Call) -> pb.ListWorkPoolsResponse:
        pools, token = await self._reader.page(
            request.types, request.name_contains, request.page_size, request.page_token
        )
        return pb.ListWorkPoolsResponse(work_pools=pools, next_page_token=token)

    async def UpdateWorkPool(
        self, request: pb.UpdateWorkPoolRequest, call: Call
    ) -> pb.UpdateWorkPoolResponse:
        if "type" in request.update_mask.paths:
            raise FieldsInvalid.of("update_mask", "names 'type': the type of a pool cannot change")
        if "base_job_template" in request.update_mask.paths:
            _check_template(request.work_pool)
        if "concurrency_limit" in request.update_mask.paths:
            await self._limit(request.work_pool)
        return pb.UpdateWorkPoolResponse(
            work_pool=await self._updated(request.work_pool, request.update_mask.paths)
        )

    async def _limit(self, change: WorkPool) -> None:
        """Give a managed pool that is to have no limit of its own the usual one."""
        unlimited = not change.HasField("concurrency_limit")
        if unlimited and (await self._reader.get(change.name)).type == MANAGED:
            _limit_to_cores(change)

    async def DeleteWorkPool(
        self, request: pb.DeleteWorkPoolRequest, call: Call
    ) -> pb.DeleteWorkPoolResponse:
        await self._writer.do(DeleteWorkPool(request.name))
        self._changed()
        return pb.DeleteWorkPoolResponse()

    async def PauseWorkPool(self, request: pb.PauseWorkPoolRequest, call: Call) -> pb.PauseWorkPoolResponse:
        pool = WorkPool(name=request.name, paused=True)
        return pb.PauseWorkPoolResponse(work_pool=await self._updated(pool, ["paused"]))

    async def ResumeWorkPool(
        self, request: pb.ResumeWorkPoolRequest, call: Call
    ) -> pb.ResumeWorkPoolResponse:
        pool = WorkPool(name=request.name, paused=False)
        return pb.ResumeWorkPoolResponse(work_pool=await self._updated(pool, ["paused"]))

    async def _updated(self, pool: WorkPool, paths: Sequence[str]) -> WorkPool:
        await self._writer.do(UpdateWorkPool(pool, paths))
        self._changed()
        return await self._reader.get(pool.name)

    # Queues

    async def CreateWorkQueue(
        self, request: pb.CreateWorkQueueRequest, call: Call
    ) -> pb.CreateWorkQueueResponse:
        made, existed = await self._writer.do(CreateWorkQueue(request.work_queue, request.return_existing))
        queue = await self._reader.get_queue(made.work_pool, made.name)
        return pb.CreateWorkQueueResponse(work_queue=queue, existed=existed)

    async def GetWorkQueue(self, request: pb.GetWorkQueueRequest, call: Call) -> pb.GetWorkQueueResponse:
        return pb.GetWorkQueueResponse(
            work_queue=await self._reader.get_queue(request.work_pool, request.name)
        )

    async def ListWorkQueues(
        self, request: pb.ListWorkQueuesRequest, call: Call
    ) -> pb.ListWorkQueuesResponse:
        queues, token = await self._reader.queue_page(
            request.work_pool, request.page_size, request.page_token
        )
        return pb.ListWorkQueuesResponse(work_queues=queues, next_page_token=token)

    async def UpdateWorkQueue(
        self, request: pb.UpdateWorkQueueRequest, call: Call
    ) -> pb.UpdateWorkQueueResponse:
        if "/" in request.new_name or "%" in request.new_name:
            raise FieldsInvalid.of("new_name", "must not contain '/' or '%'")
        paths = request.update_mask.paths
        queue = await self._updated_queue(request.work_queue, paths, request.new_name)
        return pb.UpdateWorkQueueResponse(work_queue=queue)

    async def DeleteWorkQueue(
        self, request: pb.DeleteWorkQueueRequest, call: Call
    ) -> pb.DeleteWorkQueueResponse:
        await self._writer.do(DeleteWorkQueue(request.work_pool, request.name))
        return pb.DeleteWorkQueueResponse()

    async def PauseWorkQueue(
        self, request: pb.PauseWorkQueueRequest, call: Call
    ) -> pb.PauseWorkQueueResponse:
        queue = WorkQueue(work_pool=request.work_pool, name=request.name, paused=True)
        return pb.PauseWorkQueueResponse(work_queue=await self._updated_queue(queue, ["paused"]))

    async def ResumeWorkQueue(
        self, request: pb.ResumeWorkQueueRequest, call: Call
    ) -> pb.ResumeWorkQueueResponse:
        queue = WorkQueue(work_pool=request.work_pool, name=request.name, paused=False)
        return pb.ResumeWorkQueueResponse(work_queue=await self._updated_queue(queue, ["paused"]))

    # Fairness keys

    async def SetFairnessRule(
        self, request: pb.SetFairnessRuleRequest, call: Call
    ) -> pb.SetFairnessRuleResponse:
        made = await self._writer.do(SetFairnessRule(request.rule))
        found = await self._fairness.get(made.work_pool, made.fairness_key)
        return pb.SetFairnessRuleResponse(rule=found or made)

    async def ListFairnessRules(
        self, request: pb.ListFairnessRulesRequest, call: Call
    ) -> pb.ListFairnessRulesResponse:
        if request.work_pool:
            await self._reader.get(request.work_pool)
        rules, token = await self._fairness.page(request.work_pool, request.page_size, request.page_token)
        return pb.ListFairnessRulesResponse(rules=rules, next_page_token=token)

    async def DeleteFairnessRule(
        self, request: pb.DeleteFairnessRuleRequest, call: Call
    ) -> pb.DeleteFairnessRuleResponse:
        await self._writer.do(DeleteFairnessRule(request.work_pool, request.fairness_key))
        return pb.DeleteFairnessRuleResponse()

    async def _updated_queue(self, queue: WorkQueue, paths: Sequence[str], new_name: str = "") -> WorkQueue:
        changed = await self._writer.do(UpdateWorkQueue(queue, paths, new_name))
        return await self._reader.get_queue(changed.work_pool, changed.name)


def _limit_to_cores(pool: WorkPool) -> None:
    """A managed pool without a limit of its own has that of the machine which works it."""
    if not pool.HasField("concurrency_limit"):
        pool.concurrency_limit = os.cpu_count() or 1


def _check_template(pool: WorkPool) -> None:
    """Make sure that jobs can be made of the pool's template.

    Raises:
        FieldsInvalid: they cannot; every problem has its path.
    """
    template = whole_numbers(MessageToDict(pool.base_job_template))
    problems = template_problems(template)
    if not problems:
        faults = schema_faults(template["variables"])
        problems = [Problem(f"variables.{path}", reason) for path, reason in faults]
    violations = [
        FieldViolation(f"{_TEMPLATE}.{path}" if path else _TEMPLATE, reason) for path, reason in problems
    ]
    if violations:
        first = violations[0]
        raise FieldsInvalid(f"{first.field}: {first.description}", violations=violations)
