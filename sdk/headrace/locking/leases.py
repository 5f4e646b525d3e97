"""The locks that this process holds in the server: renewed until they are let go."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import Final, TypeAlias

from headrace.client.background import start_in_background
from headrace.client.lasting import lasting_client
from headrace.core.errors import ServiceError
from headrace.settings import Settings, get_current_settings
from headrace.v1.lock_pb2 import LockRef

__all__ = ["LEASES", "Leases"]

_log = logging.getLogger("headrace.locking")
_Key: TypeAlias = tuple[str, str]
_AT_ONCE: Final = 500
_LOOK_SECONDS: Final = 0.2
"""A lock that is acquired meanwhile may be due sooner than those that are held."""


@dataclass(slots=True)
class _Lease:
    """One lock that is held.

    Attributes:
        fence: of the holding.
        seconds: how long the lease is.
        settings: name the server that has it.
        hold_until: by when the lock has ended in any case, by the monotonic clock; None: never.
        sure_hold_until: before this it has not ended because of its hold timeout; None: it has none.
        sure_until: until when it is held even if no renewal gets through, by the monotonic clock.
        renew_at: when it is renewed next.
    """

    fence: int
    seconds: float
    settings: Settings
    hold_until: float | None
    sure_hold_until: float | None
    sure_until: float
    renew_at: float


class Leases:
    """Safe to use from any thread. Renewing goes on in the background for as long as there is something."""

    def __init__(self) -> None:
        self._reset()
        # Locks are held by processes: those of the parent are not the child's.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[_Key, _Lease] = {}
        self._is_renewing = False

    def keep(
        self, key: str, holder: str, fence: int, seconds: float, hold_timeout: float | None, asked_at: float
    ) -> None:
        """The lock has just been acquired: renew it from now on.

        Args:
            key, holder, fence: of the holding.
            seconds: how long the lease is.
            hold_timeout: seconds for which it is held at most; None: for as long as it is renewed.
            asked_at: when it was asked for, by the monotonic clock: it was acquired since.
        """
        now = time.monotonic()
        hold_until = sure_hold_until = None
        if hold_timeout is not None:
            hold_until, sure_hold_until = now + hold_timeout, asked_at + hold_timeout
        sure = _earlier(asked_at + seconds, sure_hold_until)
        with self._lock:
            self._held[key, holder] = _Lease(
                fence, seconds, get_current_settings(), hold_until, sure_hold_until, sure, now + seconds / 3
            )
            begins, self._is_renewing = not self._is_renewing, True
        if begins:
            start_in_background(self._renew())

    def let_go(self, key: str, holder: str) -> int:
        """Renew the lock no longer; its fence, 0 if it was not held here."""
        with self._lock:
            lease = self._held.pop((key, holder), None)
        return 0 if lease is None else lease.fence

    def is_held(self, key: str, holder: str) -> bool:
        """Whether this process is sure to have it."""
        with self._lock:
            lease = self._held.get((key, holder))
            return lease is not None and time.monotonic() < lease.sure_until

    def fence(self, key: str, holder: str) -> int:
        """The fence of the holding; 0: it is not held here."""
        with self._lock:
            lease = self._held.get((key, holder))
            return 0 if lease is None else lease.fence

    async def _renew(self) -> None:
        while True:
            with self._lock:
                self._drop_ended()
                if not self._held:
                    self._is_renewing = False
                    return
                now = time.monotonic()
                due = {key: lease for key, lease in self._held.items() if lease.renew_at <= now}
                next_at = min(lease.renew_at for lease in self._held.values())
            if due:
                await self._renew_these(dict(list(due.items())[:_AT_ONCE]))
            else:
                await asyncio.sleep(min(next_at - now, _LOOK_SECONDS))

    def _drop_ended(self) -> None:
        now = time.monotonic()
        for key in [k for k, lease in self._held.items() if lease.hold_until and lease.hold_until <= now]:
            del self._held[key]

    async def _renew_these(self, due: dict[_Key, _Lease]) -> None:
        """Renew those of one length in one server; whoever is not among them is due still."""
        first = next(iter(due.values()))
        seconds, settings = first.seconds, first.settings
        refs = [
            LockRef(key=key, holder=holder, fence=lease.fence)
            for (key, holder), lease in due.items()
            if lease.seconds == seconds and lease.settings == settings
        ]
        sent = time.monotonic()
        try:
            async with lasting_client(settings) as client:
                lost = await client.renew_locks(refs, seconds, timeout=max(seconds / 3, 1.0))
        except ServiceError as error:
            _log.debug("Leases could not be renewed, and will be tried again: %s", error)
            self._note(refs, None, sent + seconds / 10)
            return
        self._lose(lost)
        self._note(refs, sent, sent + seconds / 3)

    def _lose(self, lost: list[LockRef]) -> None:
        for ref in lost:
            with self._lock:
                lease = self._held.get((ref.key, ref.holder))
                if lease is None or lease.fence != ref.fence:
                    continue
                del self._held[ref.key, ref.holder]
            _log.warning("The lock of %r was lost: it could not be renewed in time.", ref.key)

    def _note(self, refs: list[LockRef], renewed_at: float | None, next_at: float) -> None:
        with self._lock:
            for ref in refs:
                lease = self._held.get((ref.key, ref.holder))
                if lease is None or lease.fence != ref.fence:
                    continue
                lease.renew_at = next_at
                if renewed_at is not None:
                    lease.sure_until = _earlier(renewed_at + lease.seconds, lease.sure_hold_until)


def _earlier(instant: float, other: float | None) -> float:
    return instant if other is None else min(instant, other)


LEASES: Final = Leases()
