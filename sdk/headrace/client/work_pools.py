"""Calls of `WorkPoolService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from headrace.client.service_calls import ServiceCalls
from headrace.core.limits import PAGE_SIZE_DEFAULT
from headrace.v1 import work_pool_service_pb2 as pools
from headrace.v1.work_pool_pb2 import FairnessRule, WorkPool, WorkQueue

__all__ = ["WorkPoolCalls"]


class WorkPoolCalls(ServiceCalls):
    """Work pools and their queues."""

    async def create_work_pool(
        self, work_pool: WorkPool, *, return_existing: bool = False, timeout: float | None = None
    ) -> pools.CreateWorkPoolResponse:
        """Make a pool, with its default queue.

        Args:
            work_pool: `name` and `type` must be set. Without a base job template it gets its type's.
            return_existing: a pool of that name and type is fine, whatever else it says.
            timeout: seconds for this call.

        Raises:
            ObjectAlreadyExists: there is another pool of the name.
            FieldsInvalid: a field breaks a rule, or the template is not sound.
        """
        request = pools.CreateWorkPoolRequest(work_pool=work_pool, return_existing=return_existing)
        answer = pools.CreateWorkPoolResponse.FromString
        return await self._call("WorkPoolService/CreateWorkPool", request, answer, timeout)

    async def get_work_pool(self, name: str, *, timeout: float | None = None) -> WorkPool:
        """The pool with that name."""
        request = pools.GetWorkPoolRequest(name=name)
        answer = pools.GetWorkPoolResponse.FromString
        return (await self._call("WorkPoolService/GetWorkPool", request, answer, timeout)).work_pool

    async def list_work_pools(
        self, request: pools.ListWorkPoolsRequest, *, timeout: float | None = None
    ) -> pools.ListWorkPoolsResponse:
        """One page of pools, by name."""
        answer = pools.ListWorkPoolsResponse.FromString
        return await self._call("WorkPoolService/ListWorkPools", request, answer, timeout)

    async def iter_work_pools(
        self, name_contains: str = "", *, types: Sequence[str] = (), page_size: int = PAGE_SIZE_DEFAULT
    ) -> AsyncIterator[WorkPool]:
        """Every pool whose name contains the text, of one of the types if any are given."""
        request = pools.ListWorkPoolsRequest(types=types, name_contains=name_contains, page_size=page_size)
        while True:
            page = await self.list_work_pools(request)
            for pool in page.work_pools:
                yield pool
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def update_work_pool(
        self, work_pool: WorkPool, paths: Sequence[str], *, timeout: float | None = None
    ) -> WorkPool:
        """Change the fields in `paths`: `description`, `base_job_template`, `concurrency_limit`, `paused`.

        Raises:
            EtagMismatch: `work_pool.etag` is set, and the pool has changed.
        """
        request = pools.UpdateWorkPoolRequest(work_pool=work_pool, update_mask=FieldMask(paths=paths))
        answer = pools.UpdateWorkPoolResponse.FromString
        return (await self._call("WorkPoolService/UpdateWorkPool", request, answer, timeout)).work_pool

    async def delete_work_pool(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a pool with its queues; deployments and runs keep its name, and wait."""
        request = pools.DeleteWorkPoolRequest(name=name)
        answer = pools.DeleteWorkPoolResponse.FromString
        await self._call("WorkPoolService/DeleteWorkPool", request, answer, timeout)

    async def pause_work_pool(self, name: str, *, timeout: float | None = None) -> WorkPool:
        """Hand out no more runs of the pool; what runs goes on."""
        request = pools.PauseWorkPoolRequest(name=name)
        answer = pools.PauseWorkPoolResponse.FromString
        return (await self._call("WorkPoolService/PauseWorkPool", request, answer, timeout)).work_pool

    async def resume_work_pool(self, name: str, *, timeout: float | None = None) -> WorkPool:
        """Hand out runs of the pool again."""
        request = pools.ResumeWorkPoolRequest(name=name)
        answer = pools.ResumeWorkPoolResponse.FromString
        return (await self._call("WorkPoolService/ResumeWorkPool", request, answer, timeout)).work_pool

    async def create_work_queue(
        self, work_queue: WorkQueue, *, return_existing: bool = False, timeout: float | None = None
    ) -> pools.CreateWorkQueueResponse:
        """Make a queue. Priority 0 is the first that is free; who has the one asked for makes room.

        Raises:
            ObjectNotFound: there is no such pool.
            ObjectAlreadyExists: the pool has another queue of the name.
        """
        request = pools.CreateWorkQueueRequest(work_queue=work_queue, return_existing=return_existing)
        answer = pools.CreateWorkQueueResponse.FromString
        return await self._call("WorkPoolService/CreateWorkQueue", request, answer, timeout)

    async def get_work_queue(self, work_pool: str, name: str, *, timeout: float | None = None) -> WorkQueue:
        """The queue of the pool with that name."""
        request = pools.GetWorkQueueRequest(work_pool=work_pool, name=name)
        answer = pools.GetWorkQueueResponse.FromString
        return (await self._call("WorkPoolService/GetWorkQueue", request, answer, timeout)).work_queue

    async def list_work_queues(
        self, request: pools.ListWorkQueuesRequest, *, timeout: float | None = None
    ) -> pools.ListWorkQueuesResponse:
        """One page of queues, by pool and priority."""
        answer = pools.ListWorkQueuesResponse.FromString
        return await self._call("WorkPoolService/ListWorkQueues", request, answer, timeout)

    async def iter_work_queues(
        self, work_pool: str = "", *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> AsyncIterator[WorkQueue]:
        """Every queue of the pool, or of all pools, by pool and priority."""
        request = pools.ListWorkQueuesRequest(work_pool=work_pool, page_size=page_size)
        while True:
            page = await self.list_work_queues(request)
            for queue in page.work_queues:
                yield queue
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def update_work_queue(
        self,
        work_queue: WorkQueue,
        paths: Sequence[str] = (),
        *,
        new_name: str = "",
        timeout: float | None = None,
    ) -> WorkQueue:
        """Change `description`, `priority`, `concurrency_limit` or `paused`, as `paths` says, or the name.

        Raises:
            EtagMismatch: `work_queue.etag` is set, and the queue has changed.
            ObjectAlreadyExists: another queue of the pool has the new name.
        """
        request = pools.UpdateWorkQueueRequest(
            work_queue=work_queue, update_mask=FieldMask(paths=paths), new_name=new_name
        )
        answer = pools.UpdateWorkQueueResponse.FromString
        return (await self._call("WorkPoolService/UpdateWorkQueue", request, answer, timeout)).work_queue

    async def delete_work_queue(self, work_pool: str, name: str, *, timeout: float | None = None) -> None:
        """Delete a queue; the runs that wait in it wait in the pool's default one.

        Raises:
            PreconditionFailed: it is the default one.
        """
        request = pools.DeleteWorkQueueRequest(work_pool=work_pool, name=name)
        answer = pools.DeleteWorkQueueResponse.FromString
        await self._call("WorkPoolService/DeleteWorkQueue", request, answer, timeout)

    async def pause_work_queue(self, work_pool: str, name: str, *, timeout: float | None = None) -> WorkQueue:
        """Hand out no more runs of the queue; what runs goes on."""
        request = pools.PauseWorkQueueRequest(work_pool=work_pool, name=name)
        answer = pools.PauseWorkQueueResponse.FromString
        return (await self._call("WorkPoolService/PauseWorkQueue", request, answer, timeout)).work_queue

    async def resume_work_queue(
        self, work_pool: str, name: str, *, timeout: float | None = None
    ) -> WorkQueue:
        """Hand out runs of the queue again."""
        request = pools.ResumeWorkQueueRequest(work_pool=work_pool, name=name)
        answer = pools.ResumeWorkQueueResponse.FromString
        return (await self._call("WorkPoolService/ResumeWorkQueue", request, answer, timeout)).work_queue

    async def set_fairness_rule(self, rule: FairnessRule, *, timeout: float | None = None) -> FairnessRule:
        """Make the rule of a fairness key what is said.

        Args:
            rule: `work_pool` and `fairness_key` must be set; without `weight` it is 1, without
                `concurrency_limit` there is none.
            timeout: seconds for this call.

        Raises:
            ObjectNotFound: there is no such work pool.
            FieldsInvalid: the weight is not between 0.01 and 100.
        """
        request = pools.SetFairnessRuleRequest(rule=rule)
        answer = pools.SetFairnessRuleResponse.FromString
        return (await self._call("WorkPoolService/SetFairnessRule", request, answer, timeout)).rule

    async def list_fairness_rules(
        self, request: pools.ListFairnessRulesRequest, *, timeout: float | None = None
    ) -> pools.ListFairnessRulesResponse:
        """One page of rules of fairness keys, by work pool and key."""
        answer = pools.ListFairnessRulesResponse.FromString
        return await self._call("WorkPoolService/ListFairnessRules", request, answer, timeout)

    async def iter_fairness_rules(
        self, work_pool: str = "", *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> AsyncIterator[FairnessRule]:
        """Every rule of the work pool, or of all, with what waits and runs under each."""
        request = pools.ListFairnessRulesRequest(work_pool=work_pool, page_size=page_size)
        while True:
            page = await self.list_fairness_rules(request)
            for rule in page.rules:
                yield rule
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete_fairness_rule(
        self, work_pool: str, fairness_key: str, *, timeout: float | None = None
    ) -> None:
        """Give a fairness key weight 1 and no limit again.

        Raises:
            ObjectNotFound: there is no such work pool, or it has no rule for the key.
        """
        request = pools.DeleteFairnessRuleRequest(work_pool=work_pool, fairness_key=fairness_key)
        answer = pools.DeleteFairnessRuleResponse.FromString
        await self._call("WorkPoolService/DeleteFairnessRule", request, answer, timeout)
