"""Who gets what: queues, priorities, turns by key, limits, and what waits for its time."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import pytest

from headrace.core.ids import new_id
from headrace.v1.record_service_pb2 import SdkInfo
from headrace.v1.run_pb2 import RUN_KIND_TASK, Run
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import STATE_TYPE_SCHEDULED, State
from headrace.v1.work_pool_pb2 import WorkQueue
from headrace.v1.work_pool_service_pb2 import (
    CreateWorkQueueRequest,
    PauseWorkPoolRequest,
    ResumeWorkPoolRequest,
)
from headrace_services.storage.queueing import LATE_SECONDS
from tests.dispatch.stand import Stand

pytestmark = pytest.mark.anyio


async def make_queue(stand: Stand, name: str, priority: int, **fields: Any) -> None:
    queue = WorkQueue(work_pool="default", name=name, priority=priority, **fields)
    await stand.pools.CreateWorkQueue(CreateWorkQueueRequest(work_queue=queue))


async def order(stand: Stand, runs: list[Run], **hello: Any) -> list[int]:
    """The numbers of the runs in the order in which they are handed out, one at a time."""
    places = {run.id: number for number, run in enumerate(runs)}
    handed: list[int] = []
    async with stand.worker(**hello) as worker:
        for _ in runs:
            await worker.grant(1)
            assignment = await worker.assignment()
            handed.append(places[assignment.run.id])
            await stand.complete(assignment.attempt)
    return handed


async def test_first_come_first_served_within_a_priority(stand: Stand) -> None:
    runs = [await stand.create(priority=priority) for priority in (0, 0, 5, 9, 5)]
    assert await order(stand, runs) == [3, 2, 4, 0, 1]


async def test_queues_come_strictly_by_priority(stand: Stand) -> None:
    await make_queue(stand, "slow", 9)
    await make_queue(stand, "fast", 1)
    runs = [await stand.create(work_queue=queue) for queue in ("slow", "fast", "", "fast")]
    assert await order(stand, runs) == [1, 3, 2, 0]


async def test_a_worker_takes_only_from_its_queues(stand: Stand) -> None:
    await make_queue(stand, "slow", 9)
    runs = [await stand.create(work_queue=queue) for queue in ("", "slow", "slow")]
    assert await order(stand, runs[1:], work_queues=["slow", "not there yet"]) == [0, 1]
    assert (await stand.get(runs[0].id)).state.type == STATE_TYPE_SCHEDULED
    # The queue that nobody names is the pool's default queue.
    assert await order(stand, runs[:1], work_queues=["default"]) == [0]


async def test_a_full_queue_holds_up_no_other(stand: Stand) -> None:
    await make_queue(stand, "first", 1, concurrency_limit=1)
    async with stand.worker(credit=5) as worker:
        runs = [await stand.create(work_queue=queue) for queue in ("first", "first", "")]
        one, two = await worker.assignment(), await worker.assignment()
        assert {one.run.id, two.run.id} == {runs[0].id, runs[2].id}
        await stand.complete(one.attempt if one.run.id == runs[0].id else two.attempt)
        assert (await worker.assignment()).run.id == runs[1].id


async def test_keys_take_turns(stand: Stand) -> None:
    many = [await stand.create(fairness_key="big") for _ in range(8)]
    few = [await stand.create(fairness_key="small") for _ in range(3)]
    handed = await order(stand, [*many, *few])
    assert [number for number in handed[:6] if number >= 8] == [8, 9, 10]
    assert [number for number in handed if number < 8] == list(range(8))


async def test_a_paused_pool_hands_out_nothing(stand: Stand) -> None:
    await stand.pools.PauseWorkPool(PauseWorkPoolRequest(name="default"))
    async with stand.worker(credit=1) as worker:
        run = await stand.create()
        await worker.heartbeat()
        assert not worker.assignments
        await stand.pools.ResumeWorkPool(ResumeWorkPoolRequest(name="default"))
        assert (await worker.assignment()).run.id == run.id


async def test_two_workers_share(stand: Stand) -> None:
    async with stand.worker(credit=3) as one, stand.worker(credit=3) as two:
        runs = [await stand.create() for _ in range(6)]
        for worker in (one, two):
            for _ in range(3):
                await worker.assignment()
        assert {a.run.id for w in (one, two) for a in w.assignments} == {run.id for run in runs}


async def test_background_task_runs_are_handed_out_by_their_key(stand: Stand) -> None:
    state = State(id=new_id(), type=STATE_TYPE_SCHEDULED)
    now = stand.client.server.clock.now()
    state.event_time.FromMicroseconds(now)
    state.scheduled.scheduled_time.FromMicroseconds(now)
    state.scheduled.deferred = True
    run = Run(id=new_id(), kind=RUN_KIND_TASK, name="t", task_name="t", task_key="app.mail", state=state)
    await stand.client.runs.CreateRun(CreateRunRequest(run=run))
    async with stand.worker(credit=5, task_keys=["app.other"]) as other:
        async with stand.worker(credit=1, task_keys=["app.mail", "app.more"]) as worker:
            assignment = await worker.assignment()
            assert assignment.run.id == run.id
            await worker.accept(assignment)
            await stand.complete(assignment.attempt)
        assert not other.assignments
    assert await stand.held() == 0


async def test_a_run_that_waits_past_its_time_is_late_and_still_handed_out(stand: Stand) -> None:
    run = await stand.create(delay_seconds=-LATE_SECONDS - 1)
    soon = await stand.create()
    await stand.client.server.workers.keeper.loop.finished(1)
    assert (await stand.get(run.id)).state.name == "Late"
    assert (await stand.get(soon.id)).state.name == "Scheduled"
    await stand.client.server.workers.keeper.loop.finished(1)
    assert await stand.names(run.id) == ["Scheduled", "Late"]
    async with stand.worker(credit=1) as worker:
        assert (await worker.assignment()).run.id == run.id


async def test_who_waits_for_long_moves_up(stand: Stand) -> None:
    await stand.create()
    writer = stand.client.server.database.writer
    assert await writer.age_queue(3600) == 0
    assert await writer.age_queue(-1) == 1
    assert await stand.select("SELECT priority FROM run_queue") == [(1,)]


async def test_a_worker_that_dies_on_this_machine_is_noticed_at_once(stand: Stand) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command) as process:  # noqa: ASYNC220  # it only has to be there
        sdk = SdkInfo(host=socket.gethostname(), pid=process.pid)
        async with stand.worker(credit=1, sdk=sdk) as worker:
            run = await stand.create()
            assignment = await worker.assignment()
            await worker.accept(assignment)
            await worker.heartbeat(assignment.attempt)
            process.kill()
            process.wait()
    again = await stand.until(run.id, STATE_TYPE_SCHEDULED)
    assert "process has ended" in again.state.message
    assert again.attempt == 2
    assert stand.client.server.workers.deaths.deaths == 1
