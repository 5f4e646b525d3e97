"""Claims that lock nothing: what another server does meanwhile is found out in the write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from headrace.core.ids import new_id
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest, DeploymentKey
from headrace.v1.run_pb2 import Run
from headrace.v1.work_pool_pb2 import WorkPool
from headrace.v1.worker_pb2 import Worker
from headrace_services.domain.claims import Offer, RouteKind
from headrace_services.storage.attempt_news import News, NewsKind
from headrace_services.storage.claiming import Claimed, StreamOffer
from headrace_services.storage.database import Database
from headrace_services.storage.deployment_commands import DeleteDeployment
from headrace_services.storage.deployment_runs import CreateDeploymentRun
from headrace_services.storage.work_pool_commands import CreateWorkPool
from headrace_services.storage.worker_commands import WorkerIdentity
from tests.storage.build import flow_run
from tests.storage.schedule_build import a_deployment

POOL = "default"


async def select(database: Database, sql: str) -> list[tuple[Any, ...]]:
    """Rows as the database has them."""
    backend = database.reader._backend  # pyright: ignore[reportPrivateUsage]
    return [tuple(row) for row in await backend.fetch(sql)]


async def make_pool(database: Database, **fields: Any) -> None:
    """The pool, for workers of any type."""
    await database.writer.do(CreateWorkPool(WorkPool(name=POOL, type="process", **fields), False))


async def connect(database: Database, *queues: str) -> StreamOffer:
    """A worker of the pool, or of its queues, opens its stream at this server; what it takes."""
    worker = Worker(id=new_id(), name="w", work_pool=POOL, type="process")
    session_id = new_id()
    identity = WorkerIdentity(session_id, RouteKind.WORK_POOL, worker, [])
    opened = await database.writer.open_session(identity, "replica", 60.0)
    offer = Offer(
        session_id, worker.id, RouteKind.WORK_POOL, frozenset({POOL}), frozenset(queues), {}, credit=10
    )
    return StreamOffer(offer, opened.epoch)


async def create(database: Database, count: int, **fields: Any) -> list[str]:
    """Runs that wait in the pool."""
    made = await asyncio.gather(
        *(database.writer.create_run(flow_run(work_pool=POOL, **fields)) for _ in range(count))
    )
    return sorted(run.id for run, _ in made)


def watch(database: Database, monkeypatch: Any) -> list[bool]:
    """Whether each transaction from now on went without locks."""
    seen: list[bool] = []
    store: Any = database.writer._backend.store  # pyright: ignore[reportPrivateUsage]
    transact = store.transact

    async def watched(logic: Any, *, is_optimistic: bool = False, is_alone: bool = False) -> Any:
        seen.append(is_optimistic)
        return await transact(logic, is_optimistic=is_optimistic, is_alone=is_alone)

    monkeypatch.setattr(store, "transact", watched)
    return seen


def meddle(
    database: Database, monkeypatch: Any, operation: str, meanwhile: Callable[[], Awaitable[Any]]
) -> None:
    """Let something happen once, between this server's next such operation and what it writes then."""
    store: Any = database.writer._backend.store  # pyright: ignore[reportPrivateUsage]
    real = getattr(store, operation)

    async def slow(*arguments: Any) -> Any:
        found = await real(*arguments)
        monkeypatch.setattr(store, operation, real)
        await meanwhile()
        return found

    monkeypatch.setattr(store, operation, slow)


async def test_a_run_is_created_and_claimed_without_locks(database: Database, monkeypatch: Any) -> None:
    await make_pool(database)
    offer = await connect(database)
    await create(database, 1)
    await database.writer.claim([offer])
    seen = watch(database, monkeypatch)
    (run_id,) = await create(database, 1)
    claims = await database.writer.claim([offer])
    assert [item.run.id for item in claims.claimed] == [run_id]
    assert claims.is_dry
    assert seen == [True, True]


async def test_two_servers_that_claim_at_once_share_the_runs(replicas: list[Database]) -> None:
    await make_pool(replicas[0])
    offers = [await connect(database) for database in replicas]
    for _ in range(5):
        made = await create(replicas[0], 12)
        claimed: list[str] = []
        while len(claimed) < len(made):
            both = await asyncio.gather(
                *(database.writer.claim([offer]) for database, offer in zip(replicas, offers, strict=True))
            )
            claimed += [item.run.id for claims in both for item in claims.claimed]
        assert sorted(claimed) == made
        for run_id in made:
            states, _ = await replicas[0].reader.list_states(run_id)
            assert [state.name for state in states] == ["Scheduled", "Pending"]


async def test_what_another_server_claims_meanwhile_is_not_handed_out_again(
    replicas: list[Database], monkeypatch: Any
) -> None:
    one, other = replicas
    await make_pool(one)
    offers = [await connect(database) for database in replicas]
    made = await create(one, 3)
    theirs: list[Claimed] = []

    async def claim() -> None:
        theirs.extend((await other.writer.claim([offers[1]])).claimed)

    meddle(one, monkeypatch, "load_candidates", claim)
    seen = watch(one, monkeypatch)
    claims = await one.writer.claim([offers[0]])
    assert not claims.claimed
    assert sorted(item.run.id for item in theirs) == made
    assert seen == [True, False]
    rows = await select(one, "SELECT session_id::text FROM attempt_holders")
    assert rows == [(offers[1].offer.session_id,)] * 3
    await one.writer.claim([offers[0]])
    assert seen[2:] == [False]  # where there is a rival, the next claims lock


async def test_a_limit_holds_for_two_claims_at_once(replicas: list[Database]) -> None:
    await make_pool(replicas[0], concurrency_limit=3)
    offers = [await connect(database) for database in replicas]
    await create(replicas[0], 10)
    for _ in range(3):
        await asyncio.gather(
            *(database.writer.claim([offer]) for database, offer in zip(replicas, offers, strict=True))
        )
        assert await select(replicas[0], "SELECT count(*) FROM attempt_holders") == [(3,)]


async def test_a_limit_that_was_counted_holds_until_the_claim_is_committed(
    replicas: list[Database], monkeypatch: Any
) -> None:
    one, other = replicas
    await make_pool(one, concurrency_limit=3)
    # Neither takes the other one's runs: nothing but the limit is between them.
    offers = [await connect(database, queue) for database, queue in zip(replicas, "ab", strict=True)]
    for queue in "ab":
        await create(one, 5, work_queue=queue)
    rivals: list[asyncio.Task[Any]] = []

    async def claim() -> None:
        rivals.append(asyncio.create_task(other.writer.claim([offers[1]])))
        await asyncio.wait(rivals, timeout=0.5)  # it waits for the pool, which is locked

    meddle(one, monkeypatch, "load_candidates", claim)
    claims = await one.writer.claim([offers[0]])
    assert len(claims.claimed) == 3
    assert [len((await rival).claimed) for rival in rivals] == [0]


async def test_a_key_that_another_server_has_seen_makes_all_take_turns(replicas: list[Database]) -> None:
    one, other = replicas
    await make_pool(one)
    await create(one, 1)
    await create(other, 1, fairness_key="tenant")
    await create(one, 1)
    rows = await select(one, "SELECT pass_number FROM run_queue ORDER BY run_id")
    assert rows[0][0] == 0
    assert rows[1][0] > 0
    assert rows[2][0] > 0


async def test_news_of_an_attempt_does_not_undo_what_another_server_has_heard(
    replicas: list[Database], monkeypatch: Any
) -> None:
    one, other = replicas
    await make_pool(one)
    offer = await connect(one)
    await create(one, 1)
    (claimed,) = (await one.writer.claim([offer])).claimed

    def news(kind: NewsKind, **fields: Any) -> News:
        place = (offer.offer.session_id, offer.offer.worker_id, claimed.run.id)
        return News(kind, *place, claimed.run.attempt, claimed.run.fence, **fields)

    async def start() -> None:
        await other.writer.apply_news([news(NewsKind.STARTED, infrastructure_id="pod-1")])

    meddle(one, monkeypatch, "find_rows", start)
    await one.writer.apply_news([news(NewsKind.ACCEPTED)])
    rows = await select(one, "SELECT infrastructure_id FROM attempt_holders")
    assert rows == [("pod-1",)]


async def test_no_run_is_left_of_a_deployment_that_is_deleted_meanwhile(
    replicas: list[Database], monkeypatch: Any
) -> None:
    one, other = replicas
    row = await a_deployment(one, work_pool=POOL)

    def asked() -> CreateDeploymentRun:
        request = CreateDeploymentRunRequest(run_id=new_id())
        return CreateDeploymentRun(request, row, {}, "")

    seen = watch(one, monkeypatch)
    run, _ = await one.writer.do(asked())
    assert run.deployment_id == row.id
    assert seen == [True]

    async def delete() -> None:
        await other.writer.do(DeleteDeployment(DeploymentKey(id=row.id)))

    meddle(one, monkeypatch, "find_rows", delete)
    command = asked()
    assert await one.writer.do(command) == (Run(), False)
    assert command.has_moved
    rows = await select(one, "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM run_queue)")
    assert rows == [(0, 0)]
