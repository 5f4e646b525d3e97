"""`LockService` over a real socket, on both databases."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.client.api import HeadraceClient
from headrace.core.errors import FieldsInvalid, ObjectNotFound
from headrace.settings import Settings, get_current_settings, temporary_settings
from headrace.v1.lock_pb2 import LockRef
from headrace.v1.lock_service_pb2 import WaitForLockRequest
from headrace.v1.lock_service_pb2_grpc import LockServiceStub
from tests.rpc.servers import Client, serving, settings_for

pytestmark = pytest.mark.usefixtures("one_event_loop")


def settings_of(server: Client) -> Settings:
    with temporary_settings({"api_url": server.server.address}):
        return get_current_settings()


@pytest.fixture
async def locks(client: Client) -> Any:
    """A client of a server on a fresh database."""
    async with HeadraceClient(settings_of(client)) as opened:
        yield opened


async def acquired(
    locks: HeadraceClient, holder: str, wait_seconds: float = 0.0, lease_seconds: float = 60.0
) -> int:
    """The fence of the lock `k` once it is acquired; 0: somebody else has it."""
    answer = await locks.acquire_lock("k", holder, lease_seconds=lease_seconds, wait_seconds=wait_seconds)
    return answer.lock.fence if answer.acquired else 0


async def test_one_has_it_and_the_others_are_told_who(locks: HeadraceClient) -> None:
    answer = await locks.acquire_lock("k", "a", lease_seconds=60, hold_timeout_seconds=30, client="here:1")
    assert answer.acquired
    other = await locks.acquire_lock("k", "b", lease_seconds=60)
    assert not other.acquired
    assert other.lock == answer.lock == await locks.get_lock("k")
    held = other.lock
    assert (held.key, held.holder, held.client) == ("k", "a", "here:1")
    assert held.expire_time == held.hold_expire_time
    assert held.expire_time.ToMicroseconds() - held.acquire_time.ToMicroseconds() == 30_000_000
    assert await acquired(locks, "a") == held.fence
    assert not await locks.release_lock("k", "b")
    assert not await locks.release_lock("k", "a", fence=held.fence + 1)
    assert await locks.release_lock("k", "a", fence=held.fence)
    assert not await locks.release_lock("k", "a", fence=held.fence)
    with pytest.raises(ObjectNotFound, match="lock 'k'"):
        await locks.get_lock("k")
    assert await acquired(locks, "b") > held.fence


async def test_whoever_waits_has_it_as_soon_as_it_is_released(locks: HeadraceClient) -> None:
    first = await acquired(locks, "a")
    waiters = [asyncio.create_task(acquired(locks, holder, wait_seconds=60)) for holder in "bcd"]
    onlooker = asyncio.create_task(locks.wait_for_lock("k", wait_seconds=60))
    assert not await locks.wait_for_lock("k")
    fences = [first]
    await locks.release_lock("k", "a")
    while waiters:
        done, rest = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        waiters = list(rest)
        fences.append(done.pop().result())
        await locks.release_lock("k", (await locks.get_lock("k")).holder)
    assert fences == sorted(set(fences))
    assert await onlooker
    assert await locks.wait_for_lock("k")


async def test_renewing_keeps_it_and_tells_what_was_lost(locks: HeadraceClient) -> None:
    fence = await acquired(locks, "a", lease_seconds=60)
    mine, wrong = LockRef(key="k", holder="a", fence=fence), LockRef(key="k", holder="a", fence=fence - 1)
    gone = LockRef(key="gone", holder="a", fence=fence)
    before = (await locks.get_lock("k")).expire_time.ToMicroseconds()
    assert await locks.renew_locks([mine, wrong, gone], 120) == [gone, wrong]
    assert (await locks.get_lock("k")).expire_time.ToMicroseconds() >= before + 60_000_000


async def test_a_lease_that_nobody_renews_ends(locks: HeadraceClient) -> None:
    first = await acquired(locks, "a", lease_seconds=0.2)
    second = await acquired(locks, "b", wait_seconds=60)
    assert second > first
    assert await locks.renew_locks([LockRef(key="k", holder="a", fence=first)], 60) != []
    # A lock of a holder that is gone counts as free, and is shown until somebody wants it.
    await locks.acquire_lock("other", "a", lease_seconds=0.05)
    assert await locks.wait_for_lock("other", wait_seconds=60)
    assert [lock.key async for lock in locks.iter_locks(page_size=1)] == ["k", "other"]
    assert [lock.key async for lock in locks.iter_locks("o")] == ["other"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_makes_no_sense_is_refused(locks: HeadraceClient) -> None:
    for call, field in (
        (locks.acquire_lock("", "a", lease_seconds=1), "key"),
        (locks.acquire_lock("k", "", lease_seconds=1), "holder"),
        (locks.acquire_lock("k", "a", lease_seconds=0), "lease"),
        (locks.acquire_lock("k", "a", lease_seconds=4000), "lease"),
        (locks.acquire_lock("k", "a", lease_seconds=1, wait_seconds=61), "wait"),
        (locks.acquire_lock("k", "a", lease_seconds=1, hold_timeout_seconds=0), "hold_timeout"),
        (locks.renew_locks([], 1), "locks"),
    ):
        with pytest.raises(FieldsInvalid) as caught:
            await call
        assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_nobody_waits_in_a_server_that_stops(locks: HeadraceClient, client: Client) -> None:
    await acquired(locks, "a")
    request = WaitForLockRequest(key="k")
    request.wait.FromSeconds(60)
    waiting = LockServiceStub(client.channel).WaitForLock(request)
    await locks.get_lock("k")
    client.server.drain.begin()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await waiting
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_servers_on_one_database_have_the_same_locks(tmp_path: Path, postgresql_url: str) -> None:
    async with (
        serving(settings_for(tmp_path / "one", postgresql_url)) as one,
        serving(settings_for(tmp_path / "two", postgresql_url)) as two,
        HeadraceClient(settings_of(one)) as here,
        HeadraceClient(settings_of(two)) as there,
    ):
        fence = await acquired(here, "a")
        assert not await acquired(there, "b")
        waiter = asyncio.create_task(acquired(there, "b", wait_seconds=60))
        assert await there.renew_locks([LockRef(key="k", holder="a", fence=fence)], 60) == []
        assert await here.release_lock("k", "a")
        assert await waiter > fence

        inside = 0

        async def work(client: HeadraceClient, holder: str) -> None:
            nonlocal inside
            for _ in range(5):
                answer = await client.acquire_lock("many", holder, lease_seconds=60, wait_seconds=60)
                assert answer.acquired and not inside
                inside += 1
                await asyncio.sleep(0)
                inside -= 1
                await client.release_lock("many", holder)

        await asyncio.gather(
            *(work(client, f"{n}-{id(client)}") for n in range(2) for client in (here, there))
        )
