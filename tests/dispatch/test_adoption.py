"""Infrastructure that outlives its worker: who is given it, and what is to be removed."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from headrace.core.ids import new_id
from headrace.v1.record_service_pb2 import RecordBatchRequest, RecordEntries, RecorderOpen
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.run_service_pb2 import CancelRunRequest
from headrace.v1.state_pb2 import (
    STATE_TYPE_CANCELLED,
    STATE_TYPE_COMPLETED,
    STATE_TYPE_RUNNING,
    STATE_TYPE_SCHEDULED,
)
from headrace.v1.worker_pb2 import WORKER_CAPABILITY_TEARDOWN
from headrace.v1.worker_service_pb2 import Assignment, AttemptReport, FoundInfrastructure, TeardownReply
from tests.dispatch.stand import Stand
from tests.support.workers import WireWorker, complete

pytestmark = pytest.mark.anyio


class Process:
    """A run's own process: it records, and so holds its attempt itself."""

    def __init__(self, stand: Stand, attempt: AttemptRef) -> None:
        self._records = stand.client.records
        self._open = RecorderOpen(protocol_min=1, protocol_max=1, recorder_id=new_id(), executing=[attempt])
        self._entries = complete(attempt)

    async def begins(self) -> None:
        await self._send(1, 1)

    async def completes(self) -> None:
        await self._send(2, 2)

    async def _send(self, first: int, last: int) -> None:
        entries = RecordEntries(first_seq=first, entries=self._entries[first - 1 : last])
        answer = await self._records.RecordBatch(RecordBatchRequest(open=self._open, entries=entries))
        assert not answer.ack.results, answer


async def assigned(stand: Stand, worker: WireWorker) -> Assignment:
    """A run that the worker has started somewhere."""
    await stand.create()
    assignment = await worker.assignment()
    await worker.accept(assignment)
    return assignment


async def dies(stand: Stand, worker: WireWorker) -> None:
    """The worker's lease is over."""
    worker.cut()
    await stand.client.server.database.writer.expire_session(worker.session_id)


async def finds(worker: WireWorker, *attempts: AttemptRef) -> None:
    """The worker has found the infrastructure of these attempts; it is answered when this returns."""
    items = [FoundInfrastructure.Item(attempt=one, infrastructure_id=f"box-{one.fence}") for one in attempts]
    await worker.say(found=FoundInfrastructure(items=items))
    await worker.heartbeat()


async def test_a_run_whose_worker_has_died_goes_on_with_the_one_that_finds_it(stand: Stand) -> None:
    async with stand.worker(credit=1) as first:
        assignment = await assigned(stand, first)
        process = Process(stand, assignment.attempt)
        await process.begins()
        await dies(stand, first)
    async with stand.worker(credit=1) as second:
        await finds(second, assignment.attempt)
        adopted = await second.assignment()
        assert adopted.infrastructure_id == f"box-{assignment.attempt.fence}"
        assert (adopted.attempt, adopted.run.name) == (assignment.attempt, assignment.run.name)
        run = await stand.get(assignment.run.id)
        assert (run.state.type, run.attempt) == (STATE_TYPE_RUNNING, 1)
        assert not (await second.heartbeat(adopted.attempt)).lost
        # It has cost no credit.
        await stand.create()
        assert not (await second.assignment()).infrastructure_id
        await process.completes()
        await second.report_exit(adopted.attempt, 1, 0)
        assert (await stand.until(run.id, STATE_TYPE_COMPLETED)).attempt == 1


async def test_what_another_worker_answers_for_is_left_to_it(stand: Stand) -> None:
    async with stand.worker(credit=1) as first, stand.worker() as second:
        assignment = await assigned(stand, first)
        await finds(second, assignment.attempt)
        assert not (second.assignments or second.has("teardown"))
        assert not (await first.heartbeat(assignment.attempt)).lost


async def test_what_is_over_is_torn_down(stand: Stand) -> None:
    async with stand.worker(credit=1) as first:
        assignment = await assigned(stand, first)
        # It had not begun: the run goes to somebody else, under another fence.
        await dies(stand, first)
    await stand.until(assignment.run.id, STATE_TYPE_SCHEDULED)
    async with stand.worker() as second:
        await finds(second, assignment.attempt)
        teardown = (await second.expect("teardown")).teardown
        assert (teardown.attempt, teardown.infrastructure_id) == (assignment.attempt, "box-2")


async def test_runs_of_another_server_or_pool_are_left_alone(stand: Stand) -> None:
    await stand.make_pool("other")
    unknown = AttemptRef(run_id=new_id(), attempt=1, fence=2)
    async with stand.worker(credit=1) as first, stand.worker("other") as second:
        assignment = await assigned(stand, first)
        await dies(stand, first)
        await finds(second, assignment.attempt, unknown)
        assert not (second.assignments or second.has("teardown"))


async def test_a_process_that_has_just_completed_its_run_may_leave_in_peace(stand: Stand) -> None:
    async with stand.worker(credit=1) as first:
        assignment = await assigned(stand, first)
        await stand.complete(assignment.attempt)
        await dies(stand, first)
    async with stand.worker() as second:
        await finds(second, assignment.attempt)
        assert not (second.assignments or second.has("teardown"))


TEARS_DOWN = [WORKER_CAPABILITY_TEARDOWN]


async def hung(stand: Stand, worker: WireWorker) -> AttemptRef:
    """A run whose process has begun and moves no more, and whose worker is dead; it was cancelled."""
    assignment = await assigned(stand, worker)
    started = AttemptReport.InfrastructureStarted(infrastructure_id="box")
    await worker.say(report=AttemptReport(attempt=assignment.attempt, started=started, report_seq=1))
    await Process(stand, assignment.attempt).begins()
    await worker.heartbeat(assignment.attempt)
    await dies(stand, worker)
    grace = Duration(nanos=1)
    await stand.client.runs.CancelRun(
        CancelRunRequest(run_id=assignment.run.id, state_id=new_id(), grace=grace)
    )
    await stand.until(assignment.run.id, STATE_TYPE_CANCELLED)
    return assignment.attempt


async def test_what_a_dead_worker_left_is_torn_down_by_one_that_can(stand: Stand) -> None:
    async with stand.worker(credit=1, capabilities=TEARS_DOWN) as first:
        attempt = await hung(stand, first)
    await stand.make_pool("other")
    async with (
        stand.worker() as unable,
        stand.worker("other", capabilities=TEARS_DOWN) as stranger,
        stand.worker(capabilities=TEARS_DOWN) as far,
    ):
        teardown = (await far.expect("teardown")).teardown
        assert (teardown.attempt, teardown.infrastructure_id) == (attempt, "box")
        async with stand.worker(capabilities=TEARS_DOWN) as near:
            # It cannot reach it: another one may.
            await far.say(teardown_reply=TeardownReply(attempt=attempt, removed=False))
            assert (await near.expect("teardown")).teardown == teardown
            await near.say(teardown_reply=TeardownReply(attempt=attempt, removed=True))
            await near.heartbeat()
        assert await stand.select("SELECT * FROM teardowns") == []
        for worker in (unable, stranger, far):
            await worker.heartbeat()
            assert not worker.has("teardown")


async def test_a_teardown_that_nobody_can_do_is_given_up(stand: Stand) -> None:
    async with stand.worker(credit=1, capabilities=TEARS_DOWN) as first:
        attempt = await hung(stand, first)
    async with stand.worker(capabilities=TEARS_DOWN) as far:
        for _ in range(3):
            await far.expect("teardown")
            await far.say(teardown_reply=TeardownReply(attempt=attempt, removed=False))
        await far.heartbeat()
        assert await stand.select("SELECT * FROM teardowns") == []


async def test_nothing_is_torn_down_of_a_type_of_worker_that_cannot(stand: Stand) -> None:
    async with stand.worker(credit=1) as first:
        await hung(stand, first)
    assert await stand.select("SELECT * FROM teardowns") == []
