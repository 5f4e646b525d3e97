"""A worker's streams over real sockets, against a server that does what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from headrace.client.channel import open_channel
from headrace.core.errors import ServiceError, Unauthenticated
from headrace.core.ids import new_id
from headrace.v1 import worker_service_pb2 as pb
from headrace_workers.actions import Attempt, Notice
from headrace_workers.session import SessionOptions, WorkerSession
from headrace_workers.stream import SessionDriver
from tests.support.worker_server import WorkerServer


class Executor:
    """Starts nothing, and notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Attempt]] = []
        self.changed = asyncio.Event()

    def begin(self, attempt: Attempt, assignment: pb.Assignment) -> None:
        self._note("begin", attempt)

    def cancel(self, attempt: Attempt, grace_seconds: float, reason: str) -> None:
        self._note("cancel", attempt)

    def kill(self, attempt: Attempt, reason: str) -> None:
        self._note("kill", attempt)

    def let_go(self, attempt: Attempt) -> None:
        raise AssertionError("nothing here outlives its worker")

    def remove(self, attempt: Attempt, infrastructure_id: str) -> None:
        self._note("remove", attempt)

    def _note(self, what: str, attempt: Attempt) -> None:
        self.asked.append((what, attempt))
        self.changed.set()

    async def until(self, what: str, attempt: Attempt) -> None:
        async with asyncio.timeout(60):
            while (what, attempt) not in self.asked:
                self.changed.clear()
                await self.changed.wait()


class Driven:
    """A session that runs."""

    def __init__(self, server: WorkerServer) -> None:
        hello = pb.WorkerHello(worker_id=new_id(), name="driven", work_pool="pool", type="process")
        self.executor = Executor()
        self.warned = asyncio.Event()

        async def dial() -> tuple[str, Any]:
            return server.address, open_channel(server.address)

        session = WorkerSession(SessionOptions(hello, limit=2), lambda: 0.1)
        self.driver = SessionDriver(session, self.executor, dial, (), self._tell)
        self.task = asyncio.ensure_future(self.driver.run())

    def _tell(self, notice: Notice) -> None:
        if notice.is_warning:
            self.warned.set()


@pytest.fixture
async def server(one_event_loop: None) -> AsyncIterator[WorkerServer]:
    async with WorkerServer() as server:
        yield server


@pytest.fixture
async def driven(server: WorkerServer) -> AsyncIterator[Driven]:
    driven = Driven(server)
    yield driven
    driven.task.cancel()
    await asyncio.gather(driven.task, return_exceptions=True)


def run_attempt() -> Attempt:
    return Attempt(new_id(), 1, 1)


async def test_a_run_from_assignment_to_report(server: WorkerServer, driven: Driven) -> None:
    stream = await server.connected()
    attempt = run_attempt()
    stream.assign(attempt)
    await driven.executor.until("begin", attempt)
    await server.until(lambda: stream.of("reply"))
    driven.driver.started(attempt, "here:1")
    driven.driver.exited(attempt, 3, "so it goes", False)
    reports = await server.until(lambda: len(found := stream.of("report")) == 2 and found)
    assert reports[0].started.infrastructure_id == "here:1"
    assert (reports[1].exited.exit_code, reports[1].exited.message) == (3, "so it goes")


async def test_a_stream_that_is_cut_is_followed_by_another_of_the_same_session(
    server: WorkerServer, driven: Driven
) -> None:
    first = await server.connected()
    attempt = run_attempt()
    first.assign(attempt)
    await driven.executor.until("begin", attempt)
    first.end()
    second = await server.connected(2)
    assert second.hello.session_id
    assert [held.attempt.run_id for held in second.hello.held] == [attempt.run_id]
    assert ("kill", attempt) not in driven.executor.asked


async def test_a_server_that_is_away_is_waited_for(server: WorkerServer, driven: Driven) -> None:
    await server.connected()
    await server.stop()
    await asyncio.wait_for(driven.warned.wait(), 60)
    await server.start()
    await server.connected(2)
    assert not driven.task.done()


async def test_a_server_that_answers_no_heartbeat_is_left(server: WorkerServer, driven: Driven) -> None:
    server.answers = False
    first = await server.connected()
    second = await server.connected(2)
    assert len(first.of("heartbeat")) >= 2
    assert second.hello.session_id


async def test_the_new_stream_is_there_before_the_old_one_goes(server: WorkerServer, driven: Driven) -> None:
    first = await server.connected()
    first.say(drain=pb.ServerDrain(reason="upgrade"))
    second = await server.connected(2)
    late = run_attempt()
    if not first.ended:
        first.assign(late)
    attempt = run_attempt()
    second.assign(attempt)
    await driven.executor.until("begin", attempt)
    await server.until(lambda: first.ended == "end")
    assert not any(what == "kill" for what, _ in driven.executor.asked)


async def test_a_drained_worker_says_goodbye_and_ends(server: WorkerServer, driven: Driven) -> None:
    stream = await server.connected()
    attempt = run_attempt()
    stream.assign(attempt)
    await driven.executor.until("begin", attempt)
    driven.driver.drain(None)
    await server.until(lambda: stream.of("drain"))
    assert not driven.task.done()
    driven.driver.exited(attempt, 0, "", False)
    await asyncio.wait_for(driven.task, 60)
    assert stream.ended == "goodbye"


async def test_a_defect_ends_it_and_is_seen(server: WorkerServer, driven: Driven) -> None:
    def begin(attempt: Attempt, assignment: pb.Assignment) -> None:
        raise KeyError("a defect")

    driven.executor.begin = begin  # type: ignore[method-assign]
    (await server.connected()).assign(run_attempt())
    with pytest.raises(KeyError, match="a defect"):
        await asyncio.wait_for(driven.task, 60)


async def test_a_refusal_ends_it(server: WorkerServer) -> None:
    server.refuse = lambda _: (grpc.StatusCode.UNAUTHENTICATED, "no")
    driven = Driven(server)
    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(driven.task, 60)


async def test_another_process_with_its_session_ends_it(server: WorkerServer, driven: Driven) -> None:
    from headrace.v1.record_service_pb2 import GoAway

    stream = await server.connected()
    stream.say(go_away=GoAway(reason="SESSION_SUPERSEDED"))
    with pytest.raises(ServiceError, match="taken over"):
        await asyncio.wait_for(driven.task, 60)
