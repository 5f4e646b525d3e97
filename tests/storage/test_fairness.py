"""Turns by key, weights and limits of keys, through claims on both databases."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from headrace.core.errors import ObjectNotFound, PageTokenInvalid
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import Run
from headrace.v1.work_pool_pb2 import FairnessRule, WorkPool
from headrace_services.storage.claiming import StreamOffer
from headrace_services.storage.database import Database
from headrace_services.storage.fairness_commands import DeleteFairnessRule, SetFairnessRule
from headrace_services.storage.work_pool_commands import CreateWorkPool, DeleteWorkPool
from tests.storage.build import ManualClock, state
from tests.storage.test_claims import POOL, connect, create, make_pool, meddle, select


async def set_rule(database: Database, key: str, **fields: Any) -> FairnessRule:
    rule = FairnessRule(work_pool=fields.pop("pool", POOL), fairness_key=key, **fields)
    return await database.writer.do(SetFairnessRule(rule))


async def drop_rule(database: Database, key: str) -> None:
    await database.writer.do(DeleteFairnessRule(POOL, key))


async def claim(database: Database, offer: StreamOffer) -> list[Run]:
    """The runs of one claim."""
    return [item.run for item in (await database.writer.claim([offer])).claimed]


async def keys_of_claims(database: Database, offer: StreamOffer, count: int) -> list[str]:
    """The keys of the first `count` runs that are handed out."""
    found: list[Run] = []
    while len(found) < count:
        made = await claim(database, offer)
        assert made
        found += made
    return [run.fairness_key for run in found][:count]


async def end(database: Database, clock: ManualClock, runs: Sequence[Run]) -> None:
    """The runs end; what waited for their slots gets its turn again."""
    for run in runs:
        for type in ("RUNNING", "COMPLETED"):
            clock.time += 1
            await database.writer.propose_state(run.id, None, state(type, clock.now()))
    assert database.writer.take_freed()
    await database.writer.promote_due(0)


async def test_one_key_with_very_many_and_twenty_with_a_few(database: Database) -> None:
    await make_pool(database)
    offer = await connect(database)
    await create(database, 300, fairness_key="big")
    for number in range(20):
        await create(database, 5, fairness_key=f"small-{number}")
    started = Counter(await keys_of_claims(database, offer, 200))
    assert all(started[f"small-{number}"] == 5 for number in range(20))


async def test_weights(database: Database) -> None:
    await make_pool(database)
    offer = await connect(database)
    assert (await set_rule(database, "heavy", weight=3)).weight == 3
    for _ in range(4):
        await create(database, 20, fairness_key="heavy")
        await create(database, 20, fairness_key="plain")
    started = Counter(await keys_of_claims(database, offer, 80))
    assert 57 <= started["heavy"] <= 63
    # A key that has been seen has its new weight with the next run.
    await set_rule(database, "heavy")
    await set_rule(database, "plain", weight=0.25)
    weights = await select(database, "SELECT name, weight FROM queue_passes WHERE name <> scope")
    assert sorted((name.split("\t")[1], weight) for name, weight in weights) == [
        ("heavy", 1000),
        ("plain", 250),
    ]


async def test_a_limit_of_a_key(database: Database, clock: ManualClock) -> None:
    await make_pool(database)
    offer = await connect(database)
    rule = await set_rule(database, "tenant", concurrency_limit=2)
    assert rule.concurrency_limit == 2 and rule.weight == 1
    await create(database, 60, fairness_key="tenant", priority=9)
    await create(database, 1)
    handed = await claim(database, offer)
    while more := (await database.writer.claim([offer])):
        handed += [item.run for item in more.claimed]
        if more.is_exhausted:
            break
    # Very many that wait for their limit hide nobody behind them.
    assert sorted(run.fairness_key for run in handed) == ["", "tenant", "tenant"]
    blocked = "SELECT count(*) FROM run_queue WHERE blocked_by IS NOT NULL"
    assert await select(database, blocked) == [(58,)]
    await end(database, clock, [run for run in handed if run.fairness_key][:1])
    assert await select(database, blocked) == [(57,)]
    assert [run.fairness_key for run in await claim(database, offer)] == ["tenant"]
    assert await claim(database, offer) == []
    await set_rule(database, "tenant", concurrency_limit=5)
    await database.writer.promote_due(0)
    assert len(await claim(database, offer)) == 3
    await drop_rule(database, "tenant")
    await database.writer.promote_due(0)
    assert len(await claim(database, offer)) == 10
    assert await select(database, "SELECT count(*) FROM work_pools WHERE has_key_limits") == [(0,)]


async def test_keys_without_a_limit_are_not_looked_for(database: Database, monkeypatch: Any) -> None:
    await make_pool(database)
    offer = await connect(database)
    await create(database, 3, fairness_key="tenant")
    await set_rule(database, "other", weight=2)
    counted: list[None] = []

    store: Any = database.writer._backend.store  # pyright: ignore[reportPrivateUsage]
    real = store.count_keys
    monkeypatch.setattr(store, "count_keys", lambda *given: (counted.append(None), real(*given))[1])
    assert len(await claim(database, offer)) == 3 and not counted
    await set_rule(database, "tenant", concurrency_limit=4)
    await create(database, 3, fairness_key="tenant")
    assert len(await claim(database, offer)) == 1 and counted


async def test_a_limit_of_a_key_holds_for_several_servers(replicas: list[Database], monkeypatch: Any) -> None:
    one, other = replicas
    await make_pool(one)
    await set_rule(one, "tenant", concurrency_limit=3)
    offers = [await connect(database, queue) for database, queue in zip(replicas, "ab", strict=True)]
    for queue in "ab":
        await create(one, 5, work_queue=queue, fairness_key="tenant")
    rivals: list[asyncio.Task[Any]] = []

    async def claim_too() -> None:
        rivals.append(asyncio.create_task(other.writer.claim([offers[1]])))
        await asyncio.wait(rivals, timeout=0.2)  # it waits for the rule, which is locked

    meddle(one, monkeypatch, "count_keys", claim_too)
    claims = await one.writer.claim([offers[0]])
    assert len(claims.claimed) == 3
    assert [len((await rival).claimed) for rival in rivals] == [0]


async def test_the_rules_of_a_pool(database: Database) -> None:
    await make_pool(database)
    await database.writer.do(CreateWorkPool(WorkPool(name="other", type="process"), False))
    offer = await connect(database)
    await create(database, 12, fairness_key="b")
    await set_rule(database, "b", concurrency_limit=7)
    await set_rule(database, "a", weight=0.5)
    await set_rule(database, "c", pool="other")
    await claim(database, offer)
    found, token = await database.reader.fairness.page("", 2, "")
    assert [(rule.work_pool, rule.fairness_key, rule.weight) for rule in found] == [
        (POOL, "a", 0.5),
        (POOL, "b", 1.0),
    ]
    assert (found[1].held_runs, found[1].queued_runs) == (7, 5)
    rest, last = await database.reader.fairness.page("", 2, token)
    assert [rule.fairness_key for rule in rest] == ["c"] and not last
    with pytest.raises(PageTokenInvalid):
        await database.reader.fairness.page(POOL, 2, token)
    with pytest.raises(ObjectNotFound):
        await drop_rule(database, "none")
    with pytest.raises(ObjectNotFound):
        await set_rule(database, "a", pool=f"none-{new_id()}")
    await set_rule(database, "b", weight=2)
    await database.writer.do(DeleteWorkPool(POOL))
    assert await select(database, "SELECT count(*) FROM queue_passes WHERE weight <> 1000") == [(0,)]
    assert [rule.work_pool for rule in (await database.reader.fairness.page("", 0, ""))[0]] == ["other"]
