"""Locks in the server, for processes on any machine."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import platform
import time
from collections.abc import Awaitable, Callable
from typing import Final

from headrace.client.background import offloaded, run_in_background, start_in_background
from headrace.client.calls import backoff_seconds
from headrace.client.lasting import lasting_client
from headrace.core.errors import ObjectNotFound, ServerUnavailable, ServiceError
from headrace.locking.leases import LEASES
from headrace.locking.protocol import not_held
from headrace.settings import get_current_settings

__all__ = ["ServerLockManager"]

_log = logging.getLogger("headrace.locking")
_LONGEST_KEY_BYTES: Final = 2000
_WAIT_SECONDS: Final = 10.0
"""So long one call waits; longer waits are several calls, each to wherever the server is then."""
_GRACE_SECONDS: Final = 3.0
"""So much longer a call may take than it waits."""
_RELEASE_SECONDS: Final = 5.0
"""So long a release takes at most: a lease that is not renewed ends by itself."""


class ServerLockManager:
    """Locks that the server keeps, for the processes of all machines that use it.

    A lock is a lease: this process renews it for as long as it is held. When the process dies, or is cut
    off from the server, the lock is free once the lease is over.

        INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=ServerLockManager())
    """

    def __init__(self, lease_seconds: float = 30.0) -> None:
        """
        Args:
            lease_seconds: how long a lock outlives its process, from 1 to 3600.

        Raises:
            ValueError: the lease is shorter or longer.
        """
        if not 1 <= lease_seconds <= 3600:
            raise ValueError(f"lease_seconds must be from 1 to 3600, not {lease_seconds!r}")
        self.lease_seconds = lease_seconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServerLockManager) and self.lease_seconds == other.lease_seconds

    def __hash__(self) -> int:
        return hash(self.lease_seconds)

    def __repr__(self) -> str:
        return f"ServerLockManager(lease_seconds={self.lease_seconds:g})"

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        return run_in_background(self._acquire(_name(key), holder, acquire_timeout, hold_timeout))

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        return await offloaded(self._acquire)(_name(key), holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        try:
            released = run_in_background(_release(_name(key), holder))
        except ServiceError as error:
            _log.warning("The lock of %r is not given back, and ends with its lease: %s", key, error)
            return
        if not released:
            raise not_held(key, holder)

    def is_locked(self, key: str) -> bool:
        return run_in_background(_holder(_name(key))) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        name = _name(key)
        return LEASES.is_held(name, holder) or run_in_background(_holder(name)) == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        return run_in_background(_wait(_name(key), timeout))

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        return await offloaded(_wait)(_name(key), timeout)

    def fence(self, key: str, holder: str) -> int:
        """What the server tells this holding from earlier and later ones by; 0: this process has no such.

        It grows with every holder. Who is given it with a write can refuse those of earlier holders.
        """
        return LEASES.fence(_name(key), holder)

    async def _acquire(
        self, key: str, holder: str, acquire_timeout: float | None, hold_timeout: float | None
    ) -> bool:
        lease = self.lease_seconds

        async def once(wait: float) -> bool:
            asked_at = time.monotonic()
            async with lasting_client() as client:
                answer = await client.acquire_lock(
                    key,
                    holder,
                    lease_seconds=lease,
                    wait_seconds=wait,
                    hold_timeout_seconds=hold_timeout,
                    client=_this_process(),
                    timeout=wait + _GRACE_SECONDS,
                )
            if answer.acquired:
                LEASES.keep(key, holder, answer.lock.fence, lease, hold_timeout, asked_at)
            return answer.acquired

        try:
            return await _again_until(acquire_timeout, once)
        except asyncio.CancelledError:
            if not LEASES.is_held(key, holder):
                # The answer may have been on its way.
                start_in_background(_give_back(key, holder))
            raise


async def _release(key: str, holder: str) -> bool:
    fence = LEASES.let_go(key, holder)
    async with lasting_client() as client:
        return await client.release_lock(key, holder, fence=fence, timeout=_RELEASE_SECONDS)


async def _give_back(key: str, holder: str) -> None:
    try:
        await _release(key, holder)
    except ServiceError as error:
        _log.debug("The lock of %r ends with its lease: %s", key, error)


async def _holder(key: str) -> str | None:
    async with lasting_client() as client:
        try:
            return (await client.get_lock(key)).holder
        except ObjectNotFound:
            return None


async def _wait(key: str, timeout: float | None) -> bool:
    async def once(wait: float) -> bool:
        async with lasting_client() as client:
            return await client.wait_for_lock(key, wait_seconds=wait, timeout=wait + _GRACE_SECONDS)

    return await _again_until(timeout, once)


async def _again_until(timeout: float | None, once: Callable[[float], Awaitable[bool]]) -> bool:
    """Call with seconds to wait, again and again, until it is so or the time is up.

    A server that is away is waited for as long as for any other call.

    Raises:
        ServerUnavailable: it is away for longer, or switched off.
    """
    settings = get_current_settings()
    deadline = None if timeout is None else time.monotonic() + timeout
    heard_at, failures = time.monotonic(), 0
    while True:
        left = _WAIT_SECONDS if deadline is None else max(deadline - time.monotonic(), 0.0)
        try:
            if await once(min(left, _WAIT_SECONDS)):
                return True
            heard_at, failures = time.monotonic(), 0
        except ServerUnavailable as error:
            failures += 1
            away_seconds = time.monotonic() - heard_at
            if settings.api_url == "off" or away_seconds > settings.api_request_timeout_seconds:
                raise
            await asyncio.sleep(backoff_seconds(failures, error))
        if deadline is not None and time.monotonic() >= deadline:
            return False


def _name(key: str) -> str:
    """The key as the server takes it."""
    encoded = key.encode("utf-8", "surrogatepass")
    if 0 < len(encoded) <= _LONGEST_KEY_BYTES and "\0" not in key and key.isprintable():
        return key
    return "~" + hashlib.blake2b(encoded, digest_size=32).hexdigest()


def _this_process() -> str:
    return f"{platform.node()[:100]}:{os.getpid()}"
