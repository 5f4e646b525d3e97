"""What networks and machines do between a server and its workers: streams are reset, swallow one way or the
other, are slow; a server is frozen, or killed and started again; everybody reconnects at once.

The workers are the real sessions, in the test's process. Every run is begun once, under one fence: what goes
wrong on the server's side, or between, never has anything done twice.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from headrace.core.ids import new_id
from tests.faults.ground import Ground, lease_settings
from tests.support.invariants import Execution, log_is_clean
from tests.support.proxy import Lane, Proxy
from tests.support.robots import Robot, robots
from tests.support.servers import ServerProcess

pytestmark = pytest.mark.xdist_group("faults-networks")  # one server for all of them
LEASE_SECONDS = 3.0
PATIENCE_SECONDS = 60.0
CROWD = 150


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), settings=lease_settings(LEASE_SECONDS)) as process:
        yield process
        assert log_is_clean(process.log) == []


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[Proxy]:
    with Proxy(server.address) as between:
        yield between


@pytest.fixture
async def ground(server: ServerProcess, one_event_loop: None) -> AsyncIterator[Ground]:
    """The server without anything between, and a pool of its own for each test."""
    ground = Ground(lambda: [server.address], pool=f"pool-{new_id()}")
    await ground.make_pool()
    yield ground


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.02)


def all_of(workers: list[Robot]) -> list[Execution]:
    return [one for worker in workers for one in worker.executions]


async def begun(ground: Ground, workers: list[Robot], count: int) -> list[str]:
    """So many runs are asked for, and in the hands of the workers, which do not end them yet."""
    for worker in workers:
        worker.may_end.clear()
    ids = await ground.ask(count)
    await until(lambda: len(all_of(workers)) == count)
    return ids


async def all_is_well(ground: Ground, workers: list[Robot], ids: list[str]) -> None:
    """The runs end, each after one execution, and nothing else is wrong."""
    for worker in workers:
        worker.may_end.set()
    await ground.until_done(ids)
    executions = all_of(workers)
    assert sorted(one.run_id for one in executions) == sorted(ids), "each is executed once"
    assert await ground.violations(executions) == []
    assert [worker.error for worker in workers if worker.error] == []
    assert [worker.refused for worker in workers if worker.refused] == []


async def epochs(ground: Ground, workers: list[Robot]) -> list[tuple[str, int]]:
    """The session of each worker, and how many streams it has had, as the server shows it."""
    found = [
        await ground.call(lambda client, id=worker.worker_id: client.get_worker(id)) for worker in workers
    ]
    return [(worker.session_id, worker.session_epoch) for worker in found]


async def test_streams_that_are_reset_are_taken_up_again(proxy: Proxy, ground: Ground) -> None:
    async with robots(2, lambda: [proxy.address], pool=ground.pool) as workers:
        ids = await begun(ground, workers, 3)
        before = await epochs(ground, workers)
        for number in range(2, 4):
            seen = proxy.connections
            proxy.reset()
            await asyncio.to_thread(proxy.wait_for_connections, seen + 1)
            await until(lambda: all(worker.session.is_connected for worker in workers))
            assert await epochs(ground, workers) == [(session, number) for session, _ in before]
        await all_is_well(ground, workers, ids)


@pytest.mark.parametrize("lane", ["to_server", "to_client"])
async def test_a_stream_that_swallows_one_way_is_left_for_another(
    proxy: Proxy, ground: Ground, lane: str
) -> None:
    async with robots(1, lambda: [proxy.address], pool=ground.pool) as workers:
        ids = await begun(ground, workers, 2)
        ((session_id, epoch),) = await epochs(ground, workers)
        seen = proxy.connections
        proxy.strand(**{lane: True})
        await until(lambda: proxy.connections > seen and workers[0].session.is_connected)
        await until(lambda: workers[0].session.is_connected)
        assert await epochs(ground, workers) == [(session_id, epoch + 1)]
        await all_is_well(ground, workers, ids)


async def test_an_assignment_that_is_lost_on_its_way_is_made_again(proxy: Proxy, ground: Ground) -> None:
    async with robots(1, lambda: [proxy.address], pool=ground.pool) as workers:
        await until(lambda: workers[0].session.is_connected)
        proxy.strand(to_client=True)
        ids = await ground.ask(2)
        await all_is_well(ground, workers, ids)
        # The claim that was lost took a fence: whatever still comes of it is refused.
        assert {one.fence for one in all_of(workers)} == {4}


async def test_a_slow_link_that_breaks_costs_nothing(proxy: Proxy, ground: Ground) -> None:
    proxy.to_server = Lane(delay_seconds=0.15)
    proxy.to_client = Lane(delay_seconds=0.15, bytes_per_second=8000)
    async with robots(2, lambda: [proxy.address], pool=ground.pool) as workers:
        ids = await begun(ground, workers, 4)
        proxy.reset()
        await until(lambda: all(worker.session.is_connected for worker in workers))
        await asyncio.sleep(LEASE_SECONDS)  # heartbeats go on, slowly
        await all_is_well(ground, workers, ids)


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_a_server_that_is_away_for_longer_than_a_lease_accuses_nobody(
    server: ServerProcess, ground: Ground, how: str
) -> None:
    # It comes back at another address: somebody else may have taken its port meanwhile.
    async with robots(2, lambda: [server.address], pool=ground.pool) as workers:
        ids = await begun(ground, workers, 3)
        assert server.process is not None
        if how == "frozen":
            server.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2 * LEASE_SECONDS)
            server.process.send_signal(signal.SIGCONT)
        else:
            server.kill()
            await asyncio.sleep(1.2 * LEASE_SECONDS)
            await asyncio.to_thread(server.start)
        # What it might do to them it does within a lease and a heartbeat.
        await asyncio.sleep(1.5 * LEASE_SECONDS)
        await all_is_well(ground, workers, ids)


async def test_two_processes_that_say_they_are_one_worker_both_work(
    server: ServerProcess, ground: Ground
) -> None:
    address, worker_id = server.address, new_id()
    async with robots(2, lambda: [address], pool=ground.pool, limit=1, worker_id=worker_id) as workers:
        ids = await begun(ground, workers, 2)
        assert [len(worker.executions) for worker in workers] == [1, 1]
        await all_is_well(ground, workers, ids)


async def test_a_crowd_reconnects_at_once(server: ServerProcess, ground: Ground) -> None:
    """150 of them, for the time that a test may take; `python -m benchmarks.crowd` has 500."""
    async with robots(CROWD, lambda: [server.address], pool=ground.pool, limit=1) as workers:
        await until(lambda: all(worker.session.is_connected for worker in workers))
        server.kill()
        await until(lambda: not any(worker.session.is_connected for worker in workers))
        await asyncio.to_thread(server.start)
        await ground.runs()  # it answers others meanwhile
        await until(lambda: all(worker.session.is_connected for worker in workers))
        ids = await begun(ground, workers, CROWD // 3)
        await all_is_well(ground, workers, ids)
