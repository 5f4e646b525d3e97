"""Workers inside the test's process: the real session on real streams, and runs that are over at once.

What such a worker did is known from its journal, outside of what is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc.aio

from headrace.client.channel import open_channel
from headrace.core.ids import new_id
from headrace.v1.record_service_pb2 import RecordBatchRequest, RecordEntries, RecorderOpen
from headrace.v1.record_service_pb2_grpc import RecordServiceStub
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.worker_service_pb2 import Assignment, WorkerHello
from headrace_workers.actions import Attempt
from headrace_workers.session import SessionOptions, WorkerSession
from headrace_workers.stream import SessionDriver
from tests.support.invariants import Execution
from tests.support.workers import complete

__all__ = ["Robot", "robots"]

_RETRY_SECONDS = 0.05


class Robot:
    """One worker; `async with` it.

    Args:
        addresses: of servers; each time that it connects, the next one.
        pool: its work pool.
        limit: runs at once.
        worker_id: which worker it is; a new one by default.

    Attributes:
        may_end: bodies wait for it.
        seconds: how long they take after that.
        executions: the bodies that it has begun.
        refused: attempts whose completion the servers did not take.
        error: what ended its session, if something did.
    """

    def __init__(
        self,
        addresses: Callable[[], Sequence[str]],
        pool: str = "default",
        limit: int = 2,
        worker_id: str = "",
    ) -> None:
        hello = WorkerHello(
            worker_id=worker_id or new_id(), name=f"robot {new_id()[-4:]}", work_pool=pool, type="process"
        )
        self.worker_id = hello.worker_id
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.seconds = 0.0
        self.session = WorkerSession(SessionOptions(hello, limit=limit), random.random)
        self.executions: list[Execution] = []
        self.refused: list[Attempt] = []
        self.error: BaseException | None = None
        self._addresses = addresses
        self._turn = random.randrange(1000)
        self._bodies: dict[Attempt, asyncio.Task[None]] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._driver = SessionDriver(self.session, self, self._dial, (), lambda notice: None)
        self._run: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._run = asyncio.create_task(self._driver.run())
        self._run.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It is gone, without a word."""
        for tasks in (list(self._bodies.values()), [self._run] if self._run is not None else []):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.error = task.exception()

    async def _dial(self) -> tuple[str, Any]:
        address = self._next()
        return address, open_channel(address)

    def _next(self) -> str:
        self._turn += 1
        addresses = self._addresses()
        return addresses[self._turn % len(addresses)]

    # What the session wants of it

    def begin(self, attempt: Attempt, assignment: Assignment) -> None:
        task = self._bodies[attempt] = asyncio.create_task(self._body(attempt))
        task.add_done_callback(lambda _: self._bodies.pop(attempt, None))

    def cancel(self, attempt: Attempt, grace_seconds: float, reason: str) -> None:
        self.kill(attempt, reason)

    def kill(self, attempt: Attempt, reason: str) -> None:
        body = self._bodies.get(attempt)
        if body is not None:
            body.cancel()
            self._driver.exited(attempt, 137, reason, False)

    def remove(self, attempt: Attempt, infrastructure_id: str) -> None:
        pass

    # Its runs

    async def _body(self, attempt: Attempt) -> None:
        begin, number = time.monotonic_ns(), len(self.executions)
        self.executions.append(Execution(attempt.run_id, attempt.fence, begin, None))
        self._driver.started(attempt, f"robot:{attempt.run_id}")
        await self.may_end.wait()
        await asyncio.sleep(self.seconds)
        self.executions[number] = Execution(attempt.run_id, attempt.fence, begin, time.monotonic_ns())
        await self._complete(attempt, attempt.to_message())
        self._driver.exited(attempt, 0, "", False)

    async def _complete(self, attempt: Attempt, ref: AttemptRef) -> None:
        """Have the end of a run recorded by any server, however long that takes."""
        open = RecorderOpen(protocol_min=1, protocol_max=1, recorder_id=new_id())
        entries = RecordEntries(first_seq=1, entries=complete(ref))
        batch = RecordBatchRequest(open=open, entries=entries, seal=True)
        while True:
            address = self._next()
            channel = self._channels.setdefault(address, grpc.aio.insecure_channel(address))
            try:
                response = await RecordServiceStub(channel).RecordBatch(batch, timeout=5)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                if response.ack.results:
                    self.refused.append(attempt)
                return


@contextlib.asynccontextmanager
async def robots(
    count: int, addresses: Callable[[], Sequence[str]], **more: Any
) -> AsyncGenerator[list[Robot]]:
    """So many of them."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Robot(addresses, **more)) for _ in range(count)]
