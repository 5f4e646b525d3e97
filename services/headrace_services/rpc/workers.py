"""`headrace.v1.WorkerService`: the stream of workers, and what is known of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from headrace.core.clock import Clock
from headrace.core.errors import ServerDraining
from headrace.v1 import worker_service_pb2 as pb
from headrace_services.rpc.call import Call
from headrace_services.rpc.drain import Drain
from headrace_services.rpc.worker_stream import Dispatch, WorkerStream
from headrace_services.storage.database import Database

__all__ = ["WorkerService"]


class WorkerService:
    """Workers."""

    def __init__(self, database: Database, dispatch: Dispatch, drain: Drain, clock: Clock) -> None:
        self._reader = database.reader
        self._writer = database.writer
        self._dispatch = dispatch
        self._drain = drain
        self._clock = clock

    async def Connect(
        self, requests: AsyncIterator[pb.ConnectRequest], call: Call
    ) -> AsyncIterator[pb.ConnectResponse]:
        if self._drain.begun:
            raise ServerDraining
        stream = WorkerStream(self._dispatch, self._clock)
        responses = stream.responses(requests)
        try:
            async for response in responses:
                yield response
        finally:
            self._dispatch.remove(stream)
            await responses.aclose()

    async def GetWorker(self, request: pb.GetWorkerRequest, call: Call) -> pb.GetWorkerResponse:
        return pb.GetWorkerResponse(worker=await self._reader.get_worker(request.worker_id))

    async def ListWorkers(self, request: pb.ListWorkersRequest, call: Call) -> pb.ListWorkersResponse:
        workers, token = await self._reader.list_workers(
            request.work_pool, request.statuses, request.page_size, request.page_token
        )
        return pb.ListWorkersResponse(workers=workers, next_page_token=token)

    async def DrainWorker(self, request: pb.DrainWorkerRequest, call: Call) -> pb.DrainWorkerResponse:
        deadline = request.deadline.ToMicroseconds() / 1e6 if request.HasField("deadline") else None
        await self._writer.drain_worker(request.worker_id, deadline)
        return pb.DrainWorkerResponse(worker=await self._reader.get_worker(request.worker_id))

    async def DeleteWorker(self, request: pb.DeleteWorkerRequest, call: Call) -> pb.DeleteWorkerResponse:
        await self._writer.delete_worker(request.worker_id)
        return pb.DeleteWorkerResponse()
