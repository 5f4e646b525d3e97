"""Locks within one process."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from headrace.locking.protocol import not_held

__all__ = ["MemoryLockManager"]

Wake = Callable[[], object]


@dataclass(slots=True)
class _Lock:
    """One key, as long as somebody has it or waits for it."""

    holder: str | None = None
    expires_at: float | None = None
    wakes: list[Wake] = field(default_factory=list[Wake])

    def is_held(self) -> bool:
        return self.holder is not None and (self.expires_at is None or time.monotonic() < self.expires_at)


class MemoryLockManager:
    """Locks of the threads and coroutines of one process.

    There is one in a process, however often it is made, so that tasks of separate modules exclude each other.
    """

    _instance: MemoryLockManager | None = None

    def __new__(cls) -> Self:
        if cls._instance is None:
            made = super().__new__(cls)
            made._reset()
            # The threads that hold locks do not come along into the child.
            os.register_at_fork(after_in_child=made._reset)
            cls._instance = made
        return cls._instance  # type: ignore[return-value]

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._locks: dict[str, _Lock] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return (MemoryLockManager, ())

    def __deepcopy__(self, _: object) -> Self:
        return self

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        return self._wait(key, acquire_timeout, lambda: self._take(key, holder, hold_timeout))

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        return await self._wait_async(key, acquire_timeout, lambda: self._take(key, holder, hold_timeout))

    def release_lock(self, key: str, holder: str) -> None:
        with self._mutex:
            lock = self._locks.get(key)
            if lock is None or lock.holder != holder or not lock.is_held():
                raise not_held(key, holder)
            lock.holder = None
            wakes, lock.wakes = lock.wakes, []
            del self._locks[key]
        for wake in wakes:
            wake()

    def is_locked(self, key: str) -> bool:
        with self._mutex:
            return self._is_held(key)

    def is_lock_holder(self, key: str, holder: str) -> bool:
        with self._mutex:
            return self._is_held(key) and self._locks[key].holder == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        return self._wait(key, timeout, lambda: not self._is_held(key))

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        return await self._wait_async(key, timeout, lambda: not self._is_held(key))

    def _is_held(self, key: str) -> bool:
        lock = self._locks.get(key)
        if lock is None or lock.is_held():
            return lock is not None
        if not lock.wakes:
            del self._locks[key]
        return False

    def _take(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        if self._is_held(key) and self._locks[key].holder != holder:
            return False
        lock = self._locks.setdefault(key, _Lock())
        lock.holder = holder
        lock.expires_at = _deadline(hold_timeout)
        return True

    def _try(self, key: str, is_done: Callable[[], bool], wake: Wake) -> bool:
        """Whether it is done; if not, `wake` is called when it is worth another try."""
        with self._mutex:
            if is_done():
                return True
            self._locks[key].wakes.append(wake)
            return False

    def _patience(self, key: str, deadline: float | None) -> float | None:
        """Seconds until the next try that nobody wakes for; None for never, negative when time is up."""
        now = time.monotonic()
        if deadline is not None and deadline <= now:
            return -1
        with self._mutex:
            lock = self._locks.get(key)
            ends = [deadline, lock.expires_at if lock else now]
        return min((end - now for end in ends if end is not None), default=None)

    def _forget(self, key: str, wake: Wake) -> None:
        with self._mutex:
            lock = self._locks.get(key)
            if lock is not None and wake in lock.wakes:
                lock.wakes.remove(wake)

    def _wait(self, key: str, timeout: float | None, is_done: Callable[[], bool]) -> bool:
        deadline = _deadline(timeout)
        woken = threading.Event()
        wake = woken.set
        while not self._try(key, is_done, wake):
            try:
                patience = self._patience(key, deadline)
                if patience is not None and patience < 0:
                    return False
                woken.wait(patience)
            finally:
                self._forget(key, wake)
            woken.clear()
        return True

    async def _wait_async(self, key: str, timeout: float | None, is_done: Callable[[], bool]) -> bool:
        deadline = _deadline(timeout)
        woken = asyncio.Event()
        wake = partial(_call_in, asyncio.get_running_loop(), woken.set)
        while not self._try(key, is_done, wake):
            try:
                patience = self._patience(key, deadline)
                if patience is not None and patience < 0:
                    return False
                async with asyncio.timeout(patience):
                    await woken.wait()
            except TimeoutError:
                pass
            finally:
                self._forget(key, wake)
            woken.clear()
        return True


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _call_in(loop: asyncio.AbstractEventLoop, fn: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(fn)
    except RuntimeError:  # the loop is closed, and who waited in it is gone
        pass
