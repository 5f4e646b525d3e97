"""Calls of `WorkerService`, but for the stream of a worker itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from headrace.client.service_calls import ServiceCalls
from headrace.core.limits import PAGE_SIZE_DEFAULT
from headrace.v1 import worker_service_pb2 as workers
from headrace.v1.worker_pb2 import Worker, WorkerStatus

__all__ = ["WorkerCalls"]


class WorkerCalls(ServiceCalls):
    """Workers."""

    async def get_worker(self, worker_id: str, *, timeout: float | None = None) -> Worker:
        """The worker with that id, with the attempts it holds."""
        request = workers.GetWorkerRequest(worker_id=worker_id)
        answer = workers.GetWorkerResponse.FromString
        return (await self._call("WorkerService/GetWorker", request, answer, timeout)).worker

    async def list_workers(
        self, request: workers.ListWorkersRequest, *, timeout: float | None = None
    ) -> workers.ListWorkersResponse:
        """One page of workers, by name."""
        answer = workers.ListWorkersResponse.FromString
        return await self._call("WorkerService/ListWorkers", request, answer, timeout)

    async def iter_workers(
        self,
        work_pool: str = "",
        *,
        statuses: Sequence[WorkerStatus.ValueType] = (),
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> AsyncIterator[Worker]:
        """Every worker, of the pool and in one of the statuses if any are given."""
        request = workers.ListWorkersRequest(work_pool=work_pool, statuses=statuses, page_size=page_size)
        while True:
            page = await self.list_workers(request)
            for worker in page.workers:
                yield worker
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def drain_worker(
        self, worker_id: str, *, deadline_seconds: float | None = None, timeout: float | None = None
    ) -> Worker:
        """Have the worker take nothing new, finish what it holds, and leave.

        Args:
            worker_id: the worker.
            deadline_seconds: what still runs then is given back; None: it may take as long as it likes.
            timeout: seconds for this call.

        Raises:
            ObjectNotFound: there is no such worker.
            PreconditionFailed: it is offline.
        """
        request = workers.DrainWorkerRequest(worker_id=worker_id)
        if deadline_seconds is not None:
            request.deadline.FromMicroseconds(round(deadline_seconds * 1e6))
        answer = workers.DrainWorkerResponse.FromString
        return (await self._call("WorkerService/DrainWorker", request, answer, timeout)).worker

    async def delete_worker(self, worker_id: str, *, timeout: float | None = None) -> None:
        """Forget a worker that is offline.

        Raises:
            ObjectNotFound: there is no such worker.
            PreconditionFailed: it is online.
        """
        request = workers.DeleteWorkerRequest(worker_id=worker_id)
        answer = workers.DeleteWorkerResponse.FromString
        await self._call("WorkerService/DeleteWorker", request, answer, timeout)
