"""What databases do under a server that serves: killed, stopped, frozen, cut off; commits without answers.

The database is a child of the test, and nobody else's. The workers are the real sessions, in the test's
process; every run is begun once, under one fence.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from headrace.core.ids import new_id
from tests.faults.ground import Ground, lease_settings
from tests.faults.test_networks import all_is_well, begun, until
from tests.support.invariants import log_is_clean, within
from tests.support.postgres_process import PostgresProcess
from tests.support.proxy import Lane, Proxy
from tests.support.robots import robots
from tests.support.servers import ServerProcess

pytestmark = pytest.mark.xdist_group("faults-databases")  # one database and server for all of them
LEASE_SECONDS = 3.0
MOST_CONNECTIONS = 10
"""Of one server: eight that read, one that writes, one that listens."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess() as process:
        yield process


@pytest.fixture(scope="module")
def between(postgres: PostgresProcess) -> Iterator[Proxy]:
    """The way from the server to its database."""
    with Proxy(postgres.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def server(
    postgres: PostgresProcess, between: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with postgres.cluster.database() as url:
        through = url.replace(postgres.address, between.address)
        home = tmp_path_factory.mktemp("server")
        with ServerProcess(home, through, lease_settings(LEASE_SECONDS)) as process:
            yield process
            assert log_is_clean(process.log) == []
        assert "deadlock" not in postgres.log


@pytest.fixture
async def ground(server: ServerProcess, one_event_loop: None) -> AsyncIterator[Ground]:
    address = server.address
    ground = Ground(lambda: [address], pool=f"pool-{new_id()}")
    await ground.make_pool()
    yield ground


async def connections(postgres: PostgresProcess) -> int:
    """How many the server has."""
    connection: Any = await asyncpg.connect(postgres.cluster.admin_url)
    try:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'headrace %'"
            )
        )
    finally:
        await connection.close()


@pytest.mark.parametrize("how", ["stopped", "killed", "frozen", "cut off"])
async def test_a_database_that_is_away_for_longer_than_a_lease(
    postgres: PostgresProcess, between: Proxy, server: ServerProcess, ground: Ground, how: str
) -> None:
    address = server.address
    async with robots(2, lambda: [address], pool=ground.pool) as workers:
        ids = await begun(ground, workers, 3)
        if how == "frozen":
            postgres.freeze()
        elif how == "cut off":
            between.strand(to_server=True, to_client=True)
            between.target = "127.0.0.1:1"
        else:
            await asyncio.to_thread(postgres.kill if how == "killed" else postgres.stop_immediately)
        await asyncio.sleep(1.5 * LEASE_SECONDS)
        if how == "frozen":
            postgres.thaw()
        elif how == "cut off":
            between.send_to(postgres.address)
        else:
            await asyncio.to_thread(postgres.start)
        more = await ground.ask(2)
        # What the server might do to its workers it does within a lease and a heartbeat.
        await asyncio.sleep(1.5 * LEASE_SECONDS)
        await all_is_well(ground, workers, [*ids, *more])
    assert within("connections", await connections(postgres), MOST_CONNECTIONS) == []


async def test_commits_whose_answers_are_lost(between: Proxy, server: ServerProcess, ground: Ground) -> None:
    """Every few commits, the connection breaks before the database's word comes back: it was done."""
    chance = random.Random(7)
    lost = 0

    def is_lost(data: bytes) -> bool:
        nonlocal lost
        if b"COMMIT\0" in data and chance.random() < 0.15:
            lost += 1
            return True
        return False

    address = server.address
    between.to_client = Lane(cut_at=is_lost)
    between.reset()
    try:
        async with robots(2, lambda: [address], pool=ground.pool) as workers:
            ids = await ground.ask(25)
            await until(lambda: lost > 5)
            between.to_client.cut_at = None
            await ground.until_done(ids)
            executions = [one for worker in workers for one in worker.executions]
            assert await ground.violations(executions) == []
    finally:
        between.to_client = Lane()


async def test_a_cancellation_is_heard_although_no_notice_is(
    postgres: PostgresProcess, server: ServerProcess, ground: Ground
) -> None:
    """Who listens for notices is thrown out again and again; workers are told all the same."""
    address = server.address
    connection: Any = await asyncpg.connect(postgres.cluster.admin_url)

    async def throw_out() -> None:
        while True:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'headrace notices'"
            )
            await asyncio.sleep(0.02)

    thrower = asyncio.create_task(throw_out())
    try:
        async with robots(1, lambda: [address], pool=ground.pool) as workers:
            (run_id,) = await begun(ground, workers, 1)
            await ground.call(lambda client: client.cancel_run(run_id))

            async def state() -> str:
                return (await ground.call(lambda client: client.get_run(run_id))).state.name

            async with asyncio.timeout(60):
                while await state() != "Cancelled":  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.05)
            assert workers[0].executions[0].end is None, "its body was ended"
    finally:
        thrower.cancel()
        await asyncio.gather(thrower, return_exceptions=True)
        await connection.close()
