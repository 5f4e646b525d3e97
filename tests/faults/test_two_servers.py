"""Two servers on one PostgreSQL: one is killed while runs are handed out, and nothing is lost or done twice.

What was done is known from a journal that the workers keep, outside of what is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import grpc
import pytest

from headrace.core.ids import new_id
from headrace.v1.record_service_pb2 import RecordBatchRequest, RecordEntries, RecorderOpen
from headrace.v1.record_service_pb2_grpc import RecordServiceStub
from headrace.v1.run_pb2 import RUN_KIND_FLOW, AttemptRef, Run
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.run_service_pb2_grpc import RunServiceStub
from headrace.v1.work_pool_pb2 import WorkPool
from headrace.v1.work_pool_service_pb2 import CreateWorkPoolRequest
from headrace.v1.work_pool_service_pb2_grpc import WorkPoolServiceStub
from headrace_services.storage.urls import postgresql_dsn
from tests.support.servers import ServerProcess
from tests.support.workers import WireWorker, complete, held

pytestmark = pytest.mark.anyio
RUNS, LIMIT = 120, 7
_AWAY = (grpc.aio.AioRpcError, EOFError, TimeoutError)
_connect: Any = asyncpg.connect


@pytest.fixture
def pair(tmp_path: Path, postgresql_url: str) -> Iterator[list[ServerProcess]]:
    """Two servers on one database."""
    settings = {"HEADRACE_SERVER_WORKER_HEARTBEAT_SECONDS": "0.5"}
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ServerProcess(tmp_path / name, postgresql_url, settings)) for name in "ab"]


class Robot:
    """A worker that completes what it is given, and connects to whichever server it finds.

    Attributes:
        journal: the runs that it has begun, each time with the fence.
        is_stopped: it connects no more.
    """

    def __init__(self, channels: list[grpc.aio.Channel], first: int) -> None:
        self._channels = channels
        self._turn = first
        self._worker_id, self._session_id = new_id(), ""
        self._held: dict[str, AttemptRef] = {}
        self.journal: list[tuple[str, int]] = []
        self.is_stopped = False

    async def run(self) -> None:
        while not self.is_stopped:
            with contextlib.suppress(*_AWAY):
                await self._stream()
            self._turn += 1
            await asyncio.sleep(0.05)

    async def _stream(self) -> None:
        channel = self._channels[self._turn % len(self._channels)]
        worker = WireWorker(
            channel, credit=2 - len(self._held), worker_id=self._worker_id, session_id=self._session_id
        )
        worker.hello.held.extend(held(attempt) for attempt in self._held.values())
        async with worker:
            self._session_id = worker.session_id
            for verdict in worker.welcome.verdicts:
                if verdict.lost:
                    self._held.pop(verdict.attempt.run_id, None)
            beats = asyncio.create_task(self._beat(worker))
            left = list(self._held.values())
            try:
                while True:
                    if not left:
                        assignment = await worker.assignment()
                        left.append(assignment.attempt)
                        self._held[assignment.run.id] = assignment.attempt
                        self.journal.append((assignment.run.id, assignment.attempt.fence))
                        await worker.accept(assignment)
                    attempt = left.pop()
                    await self._complete(attempt)
                    self._held.pop(attempt.run_id, None)
                    await worker.grant(1)
            finally:
                beats.cancel()
                await asyncio.gather(beats, return_exceptions=True)

    async def _beat(self, worker: WireWorker) -> None:
        while True:
            ack = await worker.heartbeat(*self._held.values())
            for verdict in ack.lost:
                self._held.pop(verdict.attempt.run_id, None)
            await asyncio.sleep(0.2)

    async def _complete(self, attempt: AttemptRef) -> None:
        open = RecorderOpen(protocol_min=1, protocol_max=1, recorder_id=new_id())
        entries = RecordEntries(first_seq=1, entries=complete(attempt))
        batch = RecordBatchRequest(open=open, entries=entries, seal=True)
        for number in range(200):
            channel = self._channels[(self._turn + number) % len(self._channels)]
            try:
                await RecordServiceStub(channel).RecordBatch(batch)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            else:
                return
        raise AssertionError("no server takes what was done")


async def counts(url: str) -> Counter[str]:
    """How many runs are in which state; and how many attempts are held."""
    connection = await _connect(postgresql_dsn(url))
    try:
        rows = await connection.fetch("SELECT state_name, count(*) FROM runs GROUP BY state_name")
        held_now = await connection.fetchval("SELECT count(*) FROM attempt_holders")
        return Counter({row[0]: row[1] for row in rows} | {"held": held_now})
    finally:
        await connection.close()


async def test_a_server_that_is_killed_costs_no_run_and_repeats_none(
    pair: list[ServerProcess], postgresql_url: str, one_event_loop: None
) -> None:
    most_held = 0
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.address)) for server in pair
        ]
        pool = WorkPool(name="default", type="process", concurrency_limit=LIMIT)
        await WorkPoolServiceStub(channels[0]).CreateWorkPool(CreateWorkPoolRequest(work_pool=pool))
        robots = [Robot(channels, first=number) for number in range(6)]
        tasks = [asyncio.create_task(robot.run()) for robot in robots]
        for number in range(RUNS):
            run = Run(
                id=new_id(), kind=RUN_KIND_FLOW, name=f"r{number}", flow_name="etl", work_pool="default"
            )
            await RunServiceStub(channels[1]).CreateRun(CreateRunRequest(run=run))
        async with asyncio.timeout(60):
            while True:
                now = await counts(postgresql_url)
                most_held = max(most_held, now["held"])
                if now["Completed"] >= RUNS // 3 and pair[0].process is not None:
                    pair[0].kill()
                if now["Completed"] == RUNS:
                    break
                await asyncio.sleep(0.02)
        for robot, task in zip(robots, tasks, strict=True):
            robot.is_stopped = True
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [end for end in ends if isinstance(end, Exception)] == []
        assert pair[0].process is None, "the server was to be killed in the middle"
        assert (await counts(postgresql_url))["held"] == 0
    begun = Counter(attempt for robot in robots for attempt in robot.journal)
    assert len({run_id for run_id, _ in begun}) == RUNS
    # Its workers went on at the other server: under one fence a run is begun once.
    assert [attempt for attempt, times in begun.items() if times > 1] == []
    assert most_held <= LIMIT
