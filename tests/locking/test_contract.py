"""What every lock manager does, within one process."""

from __future__ import annotations

import asyncio
import copy
import pathlib
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace.locking import LockManager
from headrace.locking.filesystem import FileSystemLockManager
from headrace.locking.memory import MemoryLockManager
from headrace.locking.server import ServerLockManager


@pytest.fixture(params=["memory", "filesystem", "server"])
def locks(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> LockManager:
    if request.param == "memory":
        return MemoryLockManager()
    if request.param == "server":
        request.getfixturevalue("lock_server")
        return ServerLockManager()
    return FileSystemLockManager(tmp_path / "not made yet" / "locks")


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """The memory manager is one for the whole process, and the server one for all: each test has a key."""
    return request.node.nodeid


def test_it_is_a_lock_manager(locks: Any) -> None:
    assert isinstance(locks, LockManager)


def test_one_holder_at_a_time(locks: LockManager, key: str) -> None:
    assert not locks.is_locked(key)
    assert locks.acquire_lock(key, "a")
    assert locks.is_locked(key)
    assert locks.is_lock_holder(key, "a")
    assert not locks.is_lock_holder(key, "b")
    assert not locks.acquire_lock(key, "b", acquire_timeout=0)
    assert not locks.acquire_lock(key, "b", acquire_timeout=0.01)
    locks.release_lock(key, "a")
    assert not locks.is_locked(key)
    assert locks.acquire_lock(key, "b", acquire_timeout=0)
    locks.release_lock(key, "b")


def test_other_keys_are_other_locks(locks: LockManager, key: str) -> None:
    assert locks.acquire_lock(key + "1", "a")
    assert locks.acquire_lock(key + "2", "b", acquire_timeout=0)
    locks.release_lock(key + "1", "a")
    assert locks.is_locked(key + "2")
    locks.release_lock(key + "2", "b")


def test_a_holder_gets_its_lock_again(locks: LockManager, key: str) -> None:
    assert locks.acquire_lock(key, "a")
    assert locks.acquire_lock(key, "a", acquire_timeout=0)
    locks.release_lock(key, "a")
    assert not locks.is_locked(key)


def test_only_the_holder_releases(locks: LockManager, key: str) -> None:
    with pytest.raises(ValueError, match="No lock held by a"):
        locks.release_lock(key, "a")
    assert locks.acquire_lock(key, "a")
    with pytest.raises(ValueError, match="No lock held by b"):
        locks.release_lock(key, "b")
    assert locks.is_lock_holder(key, "a")
    locks.release_lock(key, "a")


def test_a_lock_ends_with_its_hold_timeout(locks: LockManager, key: str) -> None:
    assert locks.acquire_lock(key, "a", hold_timeout=0.05)
    assert locks.acquire_lock(key, "b", acquire_timeout=60)
    assert not locks.is_lock_holder(key, "a")
    with pytest.raises(ValueError, match="No lock held by a"):
        locks.release_lock(key, "a")
    locks.release_lock(key, "b")


def test_whoever_waits_gets_it_when_it_is_released(locks: LockManager, key: str) -> None:
    assert locks.acquire_lock(key, "a")
    with ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(locks.acquire_lock, key, "b"), pool.submit(locks.wait_for_lock, key, 30)]
        locks.release_lock(key, "a")
        assert waits[0].result(timeout=60)
        locks.release_lock(key, "b")
        assert waits[1].result(timeout=60)


def test_waiting_takes_nothing(locks: LockManager, key: str) -> None:
    assert locks.wait_for_lock(key)
    assert not locks.is_locked(key)
    assert locks.acquire_lock(key, "a")
    assert not locks.wait_for_lock(key, timeout=0.01)
    locks.release_lock(key, "a")
    assert locks.wait_for_lock(key, timeout=0)


async def test_waiting_leaves_the_event_loop_free(locks: LockManager, key: str) -> None:
    assert await locks.aacquire_lock(key, "a")
    waiter = asyncio.create_task(locks.aacquire_lock(key, "b"))
    onlooker = asyncio.create_task(locks.await_for_lock(key, timeout=60))
    await asyncio.sleep(0)
    assert not await locks.await_for_lock(key, timeout=0.01)
    assert not await locks.aacquire_lock(key, "c", acquire_timeout=0)
    locks.release_lock(key, "a")
    assert await asyncio.wait_for(waiter, 60)
    locks.release_lock(key, "b")
    assert await asyncio.wait_for(onlooker, 60)


async def test_a_cancelled_wait_takes_nothing(locks: LockManager, key: str) -> None:
    assert await locks.aacquire_lock(key, "a")
    waiter = asyncio.create_task(locks.aacquire_lock(key, "b"))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    locks.release_lock(key, "a")
    assert not locks.is_locked(key)


async def test_a_lock_ends_with_its_hold_timeout_for_who_awaits_it(locks: LockManager, key: str) -> None:
    assert await locks.aacquire_lock(key, "a", hold_timeout=0.05)
    assert await locks.aacquire_lock(key, "b", acquire_timeout=60)
    locks.release_lock(key, "b")


def test_many_threads_are_never_inside_together(locks: LockManager, key: str) -> None:
    inside = 0
    seen: list[int] = []

    def work(number: int) -> None:
        nonlocal inside
        for _ in range(20):
            assert locks.acquire_lock(key, f"worker {number}", acquire_timeout=60)
            inside += 1
            seen.append(inside)
            time.sleep(0)
            inside -= 1
            locks.release_lock(key, f"worker {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 80


def test_copies_are_the_same_locks(locks: LockManager, key: str) -> None:
    assert locks.acquire_lock(key, "a")
    for copied in (copy.deepcopy(locks), pickle.loads(pickle.dumps(locks))):
        assert copied == locks
        assert copied.is_lock_holder(key, "a")
    locks.release_lock(key, "a")
