"""Infrastructure that outlives its worker: who is given it, and what is to be removed."""

from __future__ import annotations

import pytest

from headrace.core.ids import new_id
from headrace.v1.record_service_pb2 import RecordBatchRequest, RecordEntries, RecorderOpen
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.state_pb2 import STATE_TYPE_COMPLETED, STATE_TYPE_RUNNING, STATE_TYPE_SCHEDULED
from headrace.v1.worker_service_pb2 import Assignment, FoundInfrastructure
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
