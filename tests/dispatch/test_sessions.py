"""Sessions of workers: leases, amnesty, drain on both sides, and what is shown of workers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.protobuf.struct_pb2 import Struct

from headrace.core.errors import DatabaseUnavailable
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_CRASH, RetryPolicy
from headrace.v1.state_pb2 import STATE_TYPE_CRASHED, STATE_TYPE_SCHEDULED, CrashedDetails
from headrace.v1.work_pool_pb2 import WorkPool
from headrace.v1.work_pool_service_pb2 import (
    DeleteWorkPoolRequest,
    PauseWorkPoolRequest,
    UpdateWorkPoolRequest,
)
from headrace.v1.worker_pb2 import WORKER_STATUS_DRAINING, WORKER_STATUS_OFFLINE, WORKER_STATUS_ONLINE
from headrace.v1.worker_service_pb2 import (
    DeleteWorkerRequest,
    DrainWorkerRequest,
    ListWorkersRequest,
    WorkerDrain,
)
from headrace_services.loops.amnesty import Amnesty
from headrace_services.settings import ServerSettings
from tests.dispatch.stand import Stand, eventually
from tests.rpc.servers import serving
from tests.storage.build import ManualClock

pytestmark = pytest.mark.anyio


def test_silence_proves_nothing_to_who_could_not_hear() -> None:
    clock = ManualClock()
    amnesty = Amnesty(35.0, clock)

    def look_for(seconds: int) -> bool:
        """Look every five seconds; what the last look says."""
        answer = False
        for _ in range(0, seconds, 5):
            clock.advance(5)
            with amnesty.watching():
                answer = amnesty.is_over()
        return answer

    assert not look_for(35)
    with pytest.raises(DatabaseUnavailable), amnesty.watching():
        raise DatabaseUnavailable
    assert not look_for(35), "it begins anew with a failure"
    assert look_for(5)
    clock.advance(20)  # frozen, or kept waiting by the database: that is no failure, and it has heard nobody
    with amnesty.watching():
        assert not amnesty.is_over()
    assert not look_for(30)
    assert look_for(5)


async def test_a_silent_worker_is_given_up_after_its_lease(stand: Stand) -> None:
    async with stand.worker(credit=1) as worker:
        run = await stand.create()
        assignment = await worker.assignment()
        await worker.accept(assignment)
        await worker.heartbeat(assignment.attempt)
    assert (await stand.worker_of(worker)).status == WORKER_STATUS_ONLINE
    again = await stand.until(run.id, STATE_TYPE_SCHEDULED)
    assert again.attempt == 2
    assert "silent" in again.state.message
    assert (await stand.worker_of(worker)).status == WORKER_STATUS_OFFLINE
    # It was only cut off: it may begin anew, and hears that its attempt is lost.
    back = stand.worker(worker_id=worker.hello.worker_id, session_id=worker.session_id)
    back.hello.held.add(attempt=assignment.attempt)
    async with back:
        assert [verdict.lost for verdict in back.welcome.verdicts] == [True]
        assert (await stand.worker_of(worker)).status == WORKER_STATUS_ONLINE


async def test_a_worker_that_drains_gets_nothing_new(stand: Stand) -> None:
    async with stand.worker(credit=5) as worker:
        await worker.say(drain=WorkerDrain())
        await worker.heartbeat()
        assert (await stand.worker_of(worker)).status == WORKER_STATUS_DRAINING
        await stand.create()
        await worker.heartbeat()
        assert not worker.assignments


async def test_an_administrator_drains_a_worker(stand: Stand) -> None:
    async with stand.worker(credit=5) as worker:
        request = DrainWorkerRequest(worker_id=worker.hello.worker_id)
        request.deadline.FromSeconds(60)
        shown = (await stand.workers.DrainWorker(request)).worker
        assert shown.status == WORKER_STATUS_DRAINING
        asked = (await worker.expect("drain_request")).drain_request
        assert 50 < asked.deadline.ToMicroseconds() / 1e6 < 61
        await worker.goodbye()
        await worker.ended()

        async def is_offline() -> bool:
            return (await stand.worker_of(worker)).status == WORKER_STATUS_OFFLINE

        await eventually(is_offline)
    await stand.workers.DeleteWorker(DeleteWorkerRequest(worker_id=worker.hello.worker_id))
    assert not (await stand.workers.ListWorkers(ListWorkersRequest())).workers


async def test_a_server_that_stops_sends_its_workers_elsewhere(stand: Stand) -> None:
    async with stand.worker(credit=5) as worker:
        stand.client.server.drain.begin()
        told = (await worker.expect("drain")).drain
        assert told.reason == "SERVER_DRAINING"
        # Nothing new comes, while what is said is still heard.
        await stand.create()
        await worker.heartbeat()
        assert not worker.assignments
        assert isinstance(await worker.ended(), EOFError)


async def test_a_stream_that_has_lasted_long_enough_is_replaced_and_its_run_stays(
    settings: ServerSettings, one_event_loop: None
) -> None:
    async with serving(replace(settings, server_worker_stream_seconds=1.0)) as client:
        stand = Stand(client)
        await stand.make_pool()
        async with stand.worker(credit=1) as worker:
            await stand.create()
            assignment = await worker.assignment()
            await worker.accept(assignment)
            assert (await worker.expect("drain")).drain.reason == "STREAM_ROTATED"
            again = stand.worker(worker_id=worker.hello.worker_id, session_id=worker.session_id)
            again.hello.held.add(attempt=assignment.attempt)
            async with again:
                assert again.welcome.session_epoch > worker.welcome.session_epoch
                assert not [verdict for verdict in again.welcome.verdicts if verdict.lost]
                assert isinstance(await worker.ended(), EOFError)
                assert not (await again.heartbeat(assignment.attempt)).lost
            assert await stand.held() == 1


async def test_workers_are_listed_by_name_and_status(stand: Stand) -> None:
    async with stand.worker(name="b"), stand.worker(name="a"):
        async with stand.worker(name="c") as gone:
            await gone.goodbye()
            await gone.ended()
        found: list[str] = []
        token = ""
        while True:
            page = await stand.workers.ListWorkers(ListWorkersRequest(page_size=1, page_token=token))
            found += [worker.name for worker in page.workers]
            token = page.next_page_token
            if not token:
                break
        assert found == ["a", "b", "c"]
        online = ListWorkersRequest(statuses=[WORKER_STATUS_ONLINE], work_pool="default")
        assert [w.name for w in (await stand.workers.ListWorkers(online)).workers] == ["a", "b"]


async def test_a_worker_that_thaws_is_told_to_end_what_was_given_up(stand: Stand) -> None:
    policy = RetryPolicy(on_lost=LOST_ATTEMPT_POLICY_CRASH)
    async with stand.worker(credit=1) as worker:
        run = await stand.create(retry_policy=policy)
        assignment = await worker.assignment()
        await worker.accept(assignment)
        await stand.begin(assignment.attempt)
        await worker.heartbeat(assignment.attempt)
    crashed = await stand.until(run.id, STATE_TYPE_CRASHED)
    assert crashed.state.crashed.cause == CrashedDetails.CAUSE_LEASE_EXPIRED
    back = stand.worker(worker_id=worker.hello.worker_id)
    back.hello.held.add(attempt=assignment.attempt)
    async with back:
        # Nobody else has the run: but it has ended, and its process is not to go on.
        assert [(v.lost, "given up" in v.reason) for v in back.welcome.verdicts] == [(True, True)]

        async def lost() -> list[str]:
            ack = await back.heartbeat(assignment.attempt)
            return [verdict.attempt.run_id for verdict in ack.lost]

        assert await eventually(lost) == [run.id], "and said again as long as it is named"
    assert await stand.held() == 0


async def test_workers_hear_what_their_pool_says_now(stand: Stand) -> None:
    await stand.make_pool("other")
    async with stand.worker() as worker, stand.worker("other") as elsewhere:
        before = worker.welcome.pool
        template = Struct()
        template.update({"job_configuration": {"env": {"LEVEL": "{{ level }}"}}, "variables": {}})
        template["variables"].update({"properties": {"level": {"default": "debug"}}})
        change = WorkPool(name="default", base_job_template=template, concurrency_limit=7)
        request = UpdateWorkPoolRequest(work_pool=change)
        request.update_mask.paths.extend(["base_job_template", "concurrency_limit"])
        await stand.pools.UpdateWorkPool(request)
        said = (await worker.expect("pool")).pool
        assert (said.concurrency_limit, said.paused) == (7, False)
        assert said.base_job_template == template
        assert said.etag != before.etag
        await stand.pools.PauseWorkPool(PauseWorkPoolRequest(name="default"))
        assert (await worker.expect("pool", lambda pool: pool.paused)).pool.concurrency_limit == 7
        await stand.pools.PauseWorkPool(PauseWorkPoolRequest(name="other"))
        assert (await elsewhere.expect("pool")).pool.paused
        assert not elsewhere.has("pool"), "it hears of its own pool alone"
        # Another pool of the name.
        await stand.pools.DeleteWorkPool(DeleteWorkPoolRequest(name="default"))
        await stand.make_pool()
        assert not (await worker.expect("pool")).pool.HasField("concurrency_limit")
