"""What tests of dispatch ask of a server, short to write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from headrace.core.ids import new_id
from headrace.v1 import run_service_pb2, state_pb2
from headrace.v1.record_service_pb2 import RecordBatchRequest, RecordEntries, RecordEntry, RecorderOpen
from headrace.v1.run_pb2 import RUN_KIND_FLOW, AttemptRef, Run
from headrace.v1.work_pool_pb2 import WorkPool
from headrace.v1.work_pool_service_pb2 import CreateWorkPoolRequest
from headrace.v1.work_pool_service_pb2_grpc import WorkPoolServiceStub
from headrace.v1.worker_pb2 import Worker
from headrace.v1.worker_service_pb2 import GetWorkerRequest
from headrace.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.rpc.servers import Client
from tests.support.workers import WireWorker, complete

__all__ = ["Stand", "eventually"]


async def eventually(ask: Callable[[], Awaitable[Any]], timeout: float = 20.0) -> Any:
    """The first answer that is true."""
    async with asyncio.timeout(timeout):
        while True:
            answer = await ask()
            if answer:
                return answer
            await asyncio.sleep(0.01)


class Stand:
    """A server and its clients.

    Attributes:
        client: the server and everything a client may ask it.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def pools(self) -> Any:
        return WorkPoolServiceStub(self.client.channel)

    @property
    def workers(self) -> Any:
        return WorkerServiceStub(self.client.channel)

    async def make_pool(self, name: str = "default", **fields: Any) -> None:
        """A pool for workers of the type `process`."""
        pool = WorkPool(name=name, type="process", **fields)
        await self.pools.CreateWorkPool(CreateWorkPoolRequest(work_pool=pool))

    def worker(self, pool: str = "default", **hello: Any) -> WireWorker:
        """A worker that is to connect."""
        return WireWorker(self.client.channel, pool, **hello)

    async def create(self, pool: str = "default", *, delay_seconds: float = 0.0, **fields: Any) -> Run:
        """A flow run that waits for a worker of the pool."""
        run = Run(id=new_id(), kind=RUN_KIND_FLOW, name="otter", flow_name="etl", work_pool=pool, **fields)
        if delay_seconds:
            state = state_pb2.State(id=new_id(), type=state_pb2.STATE_TYPE_SCHEDULED)
            now = self.client.server.clock.now()
            state.event_time.FromMicroseconds(now)
            state.scheduled.scheduled_time.FromMicroseconds(now + int(delay_seconds * 1e6))
            run.state.CopyFrom(state)
        created = await self.client.runs.CreateRun(run_service_pb2.CreateRunRequest(run=run))
        made: Run = created.run
        return made

    async def get(self, run_id: str) -> Run:
        """The run as it is."""
        response = await self.client.runs.GetRun(run_service_pb2.GetRunRequest(run_id=run_id))
        run: Run = response.run
        return run

    async def until(self, run_id: str, type: state_pb2.StateType.ValueType) -> Run:
        """The run, once it is in a state of the type."""

        async def ask() -> Run | None:
            run = await self.get(run_id)
            return run if run.state.type == type else None

        found: Run = await eventually(ask)
        return found

    async def names(self, run_id: str) -> list[str]:
        """The names of the states that the run has been in."""
        request = run_service_pb2.ListStatesRequest(run_id=run_id)
        return [state.name for state in (await self.client.runs.ListStates(request)).states]

    async def propose(self, attempt: AttemptRef, state: state_pb2.State) -> str:
        """What the attempt's process is told when it proposes a state: the name of the verdict."""
        proposed = state_pb2.State()
        proposed.CopyFrom(state)
        proposed.id = new_id()
        proposed.event_time.FromMicroseconds(self.client.server.clock.now())
        request = run_service_pb2.ProposeStateRequest(run_id=attempt.run_id, attempt=attempt, state=proposed)
        verdict = await self.client.runs.ProposeState(request)
        return str(verdict.WhichOneof("verdict"))

    async def complete(self, attempt: AttemptRef) -> None:
        """Record the attempt's RUNNING and COMPLETED, as its process would."""
        await self._record(complete(attempt))

    async def suspend(self, attempt: AttemptRef) -> None:
        """Record the attempt's RUNNING and that it is suspended, as its process would."""
        entries = complete(attempt)
        state = entries[-1].state.state
        state.type, state.name, state.paused.reschedule = state_pb2.STATE_TYPE_PAUSED, "Suspended", True
        state.paused.timeout_time.FromMicroseconds(self.client.server.clock.now() + 3600_000_000)
        entries[-1].state.want_verdict = True
        await self._record(entries)

    async def _record(self, entries: list[RecordEntry]) -> None:
        open = RecorderOpen(protocol_min=1, protocol_max=1, recorder_id=new_id())
        batch = RecordBatchRequest(open=open, entries=RecordEntries(first_seq=1, entries=entries), seal=True)
        response = await self.client.records.RecordBatch(batch)
        assert all(result.verdict.HasField("accepted") for result in response.ack.results), response

    async def begin(self, attempt: AttemptRef) -> None:
        """Record the attempt's RUNNING, as a process would that is not heard of again."""
        open = RecorderOpen(protocol_min=1, protocol_max=1, recorder_id=new_id())
        entries = RecordEntries(first_seq=1, entries=complete(attempt)[:1])
        response = await self.client.records.RecordBatch(RecordBatchRequest(open=open, entries=entries))
        assert not response.ack.results, response

    async def worker_of(self, worker: WireWorker) -> Worker:
        """The worker as the server shows it."""
        response = await self.workers.GetWorker(GetWorkerRequest(worker_id=worker.hello.worker_id))
        shown: Worker = response.worker
        return shown

    async def queued(self) -> list[tuple[Any, ...]]:
        """(pass, blocked by) of all that waits."""
        return await self.select("SELECT pass_number, blocked_by FROM run_queue")

    async def held(self) -> int:
        """How many attempts are alive."""
        count: int = (await self.select("SELECT count(*) FROM attempt_holders"))[0][0]
        return count

    async def select(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows as the server's database has them."""
        backend = self.client.server.database.reader._backend  # pyright: ignore[reportPrivateUsage]
        return [tuple(row) for row in await backend.fetch(sql)]
