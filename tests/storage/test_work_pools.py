"""Work pools and queues on both databases, and on one database with two servers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from headrace.core.errors import (
    EtagMismatch,
    FieldsInvalid,
    ObjectAlreadyExists,
    ObjectNotFound,
    PageTokenInvalid,
    PreconditionFailed,
)
from headrace.core.ids import new_id
from headrace.v1.work_pool_pb2 import (
    WORK_STATUS_NOT_READY,
    WORK_STATUS_PAUSED,
    WORK_STATUS_READY,
    WorkPool,
    WorkQueue,
)
from headrace.v1.worker_pb2 import Worker
from headrace_services.storage.database import Database
from headrace_services.storage.dispatch_rows import QueuedRunRow, RouteRow, SessionRow, WorkerRow
from headrace_services.storage.work_pool_codec import struct_of, struct_text
from headrace_services.storage.work_pool_commands import (
    CreateWorkPool,
    CreateWorkQueue,
    DeleteWorkPool,
    DeleteWorkQueue,
    UpdateWorkPool,
    UpdateWorkQueue,
)
from tests.storage.build import SECOND, START, ManualClock, flow_run, state
from tests.storage.test_rows import put, stored


async def make_pool(database: Database, name: str = "pool", **fields: Any) -> WorkPool:
    fields = {"type": "process"} | fields
    made, _ = await database.writer.do(CreateWorkPool(WorkPool(name=name, **fields), False))
    return made


async def make_queue(database: Database, name: str, pool: str = "pool", **fields: Any) -> WorkQueue:
    queue = WorkQueue(work_pool=pool, name=name, **fields)
    made, _ = await database.writer.do(CreateWorkQueue(queue, False))
    return made


async def ranks(database: Database, pool: str = "pool") -> dict[str, int]:
    queues, _ = await database.reader.work_pools.queue_page(pool, 0, "")
    return {queue.name: queue.priority for queue in queues}


async def test_a_pool_comes_with_its_default_queue(database: Database, clock: ManualClock) -> None:
    template = struct_of(json.dumps({"job_configuration": {"n": 3, "x": 0.5}, "variables": {}}))
    made = await make_pool(database, description="d", concurrency_limit=0, base_job_template=template)
    assert made.default_queue == "default"
    pool = await database.reader.work_pools.get("pool")
    assert (pool.type, pool.description, pool.concurrency_limit) == ("process", "d", 0)
    assert pool.HasField("concurrency_limit")
    assert struct_text(pool.base_job_template) == struct_text(template)
    assert json.loads(struct_text(template))["job_configuration"] == {"n": 3, "x": 0.5}
    assert pool.create_time.ToMicroseconds() == clock.now()
    assert pool.status == WORK_STATUS_NOT_READY
    queue = await database.reader.work_pools.get_queue("pool", "default")
    assert (queue.priority, queue.is_default, queue.work_pool) == (1, True, "pool")
    assert not queue.HasField("concurrency_limit")


async def test_the_same_request_makes_one_pool(database: Database) -> None:
    create = WorkPool(name="pool", type="process", concurrency_limit=2)
    first, existed = await database.writer.do(CreateWorkPool(create, False))
    again, existed_then = await database.writer.do(CreateWorkPool(create, False))
    assert (existed, existed_then, again.id) == (False, True, first.id)
    other = WorkPool(name="pool", type="process", description="another")
    with pytest.raises(ObjectAlreadyExists, match="'pool'"):
        await database.writer.do(CreateWorkPool(other, False))
    kept, existed = await database.writer.do(CreateWorkPool(other, True))
    assert (kept.id, kept.description, existed) == (first.id, "", True)
    with pytest.raises(ObjectAlreadyExists, match="of type 'process'"):
        await database.writer.do(CreateWorkPool(WorkPool(name="pool", type="docker"), True))


async def test_fields_of_a_pool_change_by_mask(database: Database, clock: ManualClock) -> None:
    made = await make_pool(database, concurrency_limit=2, description="before")
    clock.advance(5)
    change = WorkPool(name="pool", description="after", etag=made.etag)
    changed = await database.writer.do(UpdateWorkPool(change, ["description"]))
    assert (changed.description, changed.concurrency_limit) == ("after", 2)
    assert changed.update_time.ToMicroseconds() == clock.now() > made.update_time.ToMicroseconds()
    with pytest.raises(EtagMismatch):
        await database.writer.do(UpdateWorkPool(change, ["description"]))
    changed = await database.writer.do(UpdateWorkPool(WorkPool(name="pool"), ["concurrency_limit"]))
    assert not changed.HasField("concurrency_limit")
    with pytest.raises(FieldsInvalid, match="name"):
        await database.writer.do(UpdateWorkPool(WorkPool(name="pool"), ["name"]))
    with pytest.raises(FieldsInvalid, match="must name"):
        await database.writer.do(UpdateWorkPool(WorkPool(name="pool"), []))
    with pytest.raises(ObjectNotFound, match="'other'"):
        await database.writer.do(UpdateWorkPool(WorkPool(name="other"), ["paused"]))


async def test_changing_nothing_writes_nothing(database: Database, clock: ManualClock) -> None:
    made = await make_pool(database, description="same")
    clock.advance(5)
    kept = await database.writer.do(
        UpdateWorkPool(WorkPool(name="pool", description="same"), ["description"])
    )
    assert (kept.etag, kept.update_time) == (made.etag, made.update_time)


async def test_a_paused_pool_says_so(database: Database) -> None:
    await make_pool(database)
    await database.writer.do(UpdateWorkPool(WorkPool(name="pool", paused=True), ["paused"]))
    assert (await database.reader.work_pools.get("pool")).status == WORK_STATUS_PAUSED
    await database.writer.do(UpdateWorkPool(WorkPool(name="pool"), ["paused"]))
    assert (await database.reader.work_pools.get("pool")).status == WORK_STATUS_NOT_READY
    queue = WorkQueue(work_pool="pool", name="default", paused=True)
    await database.writer.do(UpdateWorkQueue(queue, ["paused"]))
    assert (await database.reader.work_pools.get_queue("pool", "default")).status == WORK_STATUS_PAUSED


async def test_a_deleted_pool_leaves_no_queues(database: Database) -> None:
    await make_pool(database)
    await make_queue(database, "other")
    await make_pool(database, "kept")
    await database.writer.do(DeleteWorkPool("pool"))
    with pytest.raises(ObjectNotFound):
        await database.writer.do(DeleteWorkPool("pool"))
    queues, _ = await database.reader.work_pools.queue_page("", 0, "")
    assert [(queue.work_pool, queue.name) for queue in queues] == [("kept", "default")]
    assert await make_pool(database)


async def test_pages_of_pools(database: Database) -> None:
    for name in ("b-1", "a-1", "c-2", "a-2"):
        await make_pool(database, name, type="docker" if name == "c-2" else "process")
    pages = database.reader.work_pools.page
    first, token = await pages([], "", 3, "")
    rest, end = await pages([], "", 3, token)
    assert [pool.name for pool in [*first, *rest]] == ["a-1", "a-2", "b-1", "c-2"]
    assert end == ""
    assert [pool.name for pool in (await pages(["docker"], "", 0, ""))[0]] == ["c-2"]
    assert [pool.name for pool in (await pages(["process", "docker"], "A-", 0, ""))[0]] == ["a-1", "a-2"]
    with pytest.raises(PageTokenInvalid):
        await pages(["docker"], "", 3, token)


# Queues


async def test_a_rank_that_is_taken_moves_only_those_it_must(database: Database) -> None:
    await make_pool(database)
    assert (await make_queue(database, "second")).priority == 2
    await make_queue(database, "far", priority=9)
    assert (await make_queue(database, "third")).priority == 3
    await make_queue(database, "urgent", priority=1)
    assert await ranks(database) == {"urgent": 1, "default": 2, "second": 3, "third": 4, "far": 9}
    move = WorkQueue(work_pool="pool", name="third", priority=2)
    await database.writer.do(UpdateWorkQueue(move, ["priority"]))
    assert await ranks(database) == {"urgent": 1, "third": 2, "default": 3, "second": 4, "far": 9}
    unranked = WorkQueue(work_pool="pool", name="urgent")
    await database.writer.do(UpdateWorkQueue(unranked, ["priority"]))
    assert (await ranks(database))["urgent"] == 1


async def test_the_same_request_makes_one_queue(database: Database) -> None:
    await make_pool(database)
    create = WorkQueue(work_pool="pool", name="q", priority=4, concurrency_limit=1)
    first, existed = await database.writer.do(CreateWorkQueue(create, False))
    again, existed_then = await database.writer.do(CreateWorkQueue(create, False))
    assert (existed, existed_then, again.id) == (False, True, first.id)
    other = WorkQueue(work_pool="pool", name="q", priority=5)
    with pytest.raises(ObjectAlreadyExists, match="queue 'q'"):
        await database.writer.do(CreateWorkQueue(other, False))
    assert (await database.writer.do(CreateWorkQueue(other, True)))[0].priority == 4
    with pytest.raises(ObjectNotFound, match="work pool 'none'"):
        await make_queue(database, "q", "none")


async def test_the_default_queue_can_be_renamed_and_not_deleted(database: Database) -> None:
    await make_pool(database)
    await make_queue(database, "other")
    renamed = WorkQueue(work_pool="pool", name="default")
    with pytest.raises(ObjectAlreadyExists, match="'other'"):
        await database.writer.do(UpdateWorkQueue(renamed, [], "other"))
    await database.writer.do(UpdateWorkQueue(renamed, [], "main"))
    assert (await database.reader.work_pools.get("pool")).default_queue == "main"
    with pytest.raises(PreconditionFailed, match="default queue"):
        await database.writer.do(DeleteWorkQueue("pool", "main"))
    await database.writer.do(DeleteWorkQueue("pool", "other"))
    with pytest.raises(ObjectNotFound, match="'pool/other'"):
        await database.writer.do(DeleteWorkQueue("pool", "other"))
    with pytest.raises(ObjectNotFound, match="'pool/other'"):
        await database.reader.work_pools.get_queue("pool", "other")


async def test_waiting_runs_move_with_their_queue(database: Database) -> None:
    await make_pool(database)
    await make_queue(database, "slow")
    waiting, _ = await database.writer.create_run(flow_run(work_pool="pool", work_queue="slow"))
    running, _ = await database.writer.create_run(flow_run(work_pool="pool", work_queue="slow"))
    elsewhere, _ = await database.writer.create_run(flow_run(work_pool="other", work_queue="slow"))
    await database.writer.propose_state(running.id, None, state("RUNNING"))

    async def queues() -> list[str]:
        runs = [await database.reader.get_run(run.id) for run in (waiting, running, elsewhere)]
        return [run.work_queue for run in runs]

    token = await database.reader.latest_token()
    rename = WorkQueue(work_pool="pool", name="slow")
    await database.writer.do(UpdateWorkQueue(rename, [], "slower"))
    assert await queues() == ["slower", "slow", "slow"]
    changes = await database.reader.changes_since(token)
    assert list(changes.run_ids) == [waiting.id]
    await database.writer.do(DeleteWorkQueue("pool", "slower"))
    assert await queues() == ["", "slow", "slow"]


async def test_pages_of_queues(database: Database) -> None:
    for pool in ("b", "a"):
        await make_pool(database, pool)
        await make_queue(database, "first", pool, priority=1)
    pages = database.reader.work_pools.queue_page
    first, token = await pages("", 3, "")
    rest, end = await pages("", 3, token)
    found = [(queue.work_pool, queue.name) for queue in [*first, *rest]]
    assert found == [("a", "first"), ("a", "default"), ("b", "first"), ("b", "default")]
    assert end == ""
    with pytest.raises(ObjectNotFound):
        await pages("c", 3, "")


async def test_load_of_pools_and_queues(database: Database, clock: ManualClock) -> None:
    await make_pool(database)
    await make_queue(database, "slow")

    async def add(queue: str, seconds: int, *states: str) -> None:
        first = state("SCHEDULED", START + seconds * SECOND)
        run, _ = await database.writer.create_run(flow_run(work_pool="pool", work_queue=queue, state=first))
        for name in states:
            await database.writer.propose_state(run.id, None, state(name))

    await add("", 0)
    await add("default", -30)
    await add("slow", -60)
    await add("slow", 60)
    await add("slow", -90, "PENDING")
    await add("slow", -90, "PENDING", "RUNNING")
    await add("slow", -90, "PENDING", "RUNNING", "COMPLETED")
    clock.advance(10)

    def shown(load: Any) -> tuple[int, int, int, float]:
        return load.queued_runs, load.upcoming_runs, load.held_runs, load.oldest_age.seconds

    assert shown((await database.reader.work_pools.get("pool")).load) == (3, 1, 2, 70)
    assert shown((await database.reader.work_pools.get_queue("pool", "default")).load) == (2, 0, 0, 40)
    assert shown((await database.reader.work_pools.get_queue("pool", "slow")).load) == (1, 1, 2, 70)


# Two servers


async def test_replicas_that_rank_queues_at_once_keep_ranks_unique(replicas: list[Database]) -> None:
    await make_pool(replicas[0])

    async def many(database: Database, prefix: str) -> None:
        for place in range(8):
            await make_queue(database, f"{prefix}-{place}", priority=1)

    await asyncio.gather(many(replicas[0], "one"), many(replicas[1], "other"))
    found = await ranks(replicas[0])
    assert sorted(found.values()) == list(range(1, 18))
    assert found["default"] == 17


async def test_a_pool_that_is_deleted_while_queues_are_made_leaves_none(replicas: list[Database]) -> None:
    for _ in range(5):
        await make_pool(replicas[0])
        made = [make_queue(replicas[1], f"queue-{place}") for place in range(5)]
        delete = replicas[0].writer.do(DeleteWorkPool("pool"))
        answers = await asyncio.gather(*made, delete, return_exceptions=True)
        assert all(isinstance(answer, (WorkQueue, ObjectNotFound, type(None))) for answer in answers)
        assert (await replicas[0].reader.work_pools.queue_page("", 0, ""))[0] == []


# Who is there


async def test_pools_queues_and_deployments_are_ready_while_a_worker_is(
    database: Database, clock: ManualClock
) -> None:
    await make_pool(database)
    await make_queue(database, "slow")
    now = await database.now()
    worker = Worker(name="w", work_pool="pool", work_queues=["slow"])
    row = WorkerRow(new_id(), "w", 1, "pool", START, START, worker.SerializeToString())
    session = SessionRow(new_id(), row.id, 1, "r", now + 60 * SECOND, now, False, None, START)

    async def statuses() -> list[int]:
        pools = database.reader.work_pools
        pool, queue = await pools.get("pool"), await pools.get_queue("pool", "slow")
        return [pool.status, queue.status, (await pools.get_queue("pool", "default")).status]

    not_ready = WORK_STATUS_NOT_READY
    assert await statuses() == [not_ready] * 3
    await put(database, row, session)
    assert await statuses() == [WORK_STATUS_READY, WORK_STATUS_READY, not_ready]
    queue = await database.reader.work_pools.get_queue("pool", "slow")
    assert queue.last_polled_time.ToMicroseconds() == now
    assert (await database.reader.work_pools.get("pool")).online_workers == 1
    await database.writer.do(UpdateWorkPool(WorkPool(name="pool", paused=True), ["paused"]))
    assert (await statuses())[0] == WORK_STATUS_PAUSED
    await database.writer.do(UpdateWorkPool(WorkPool(name="pool"), ["paused"]))
    session.expires_at = now - 1
    await put(database, session)
    assert await statuses() == [not_ready] * 3


async def test_moved_runs_keep_their_place_in_the_queue_of_workers(database: Database) -> None:
    await make_pool(database)
    await make_queue(database, "slow")
    run, _ = await database.writer.create_run(flow_run(work_pool="pool", work_queue="slow"))
    [before] = await stored(database, QueuedRunRow)
    await database.writer.do(DeleteWorkQueue("pool", "slow"))
    [after] = await stored(database, QueuedRunRow)
    assert (after.run_id, after.due_time) == (run.id, before.due_time)
    routes = {row.id: row.queue for row in await stored(database, RouteRow)}
    assert (routes[before.route], routes[after.route]) == ("slow", "")
