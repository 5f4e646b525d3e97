"""Locks as rows, and as the messages that show them."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.v1.lock_pb2 import Lock
from headrace_services.domain.locks import Holding
from headrace_services.storage.entities import Entity, column
from headrace_services.storage.instants import set_micros

__all__ = ["LockRow", "lock_message"]


@dataclass(slots=True)
class LockRow(Entity):
    """A lock that somebody has, or had and did not give back. It is locked when it is read."""

    TABLE = "locks"
    KEY = ("name",)

    name: str = column("text")
    holder: str = column("text")
    fence: int = column("bigint")
    acquire_time: int = column("bigint")
    expire_time: int = column("bigint")
    hold_expire_time: int | None = column("bigint")
    lease: int = column("bigint")
    client: str = column("text")

    @property
    def holding(self) -> Holding:
        """Who has it."""
        return Holding(
            self.holder, self.fence, self.acquire_time, self.expire_time, self.hold_expire_time, self.lease
        )

    def take(self, holding: Holding) -> None:
        """Say who has it."""
        self.holder, self.fence = holding.holder, holding.fence
        self.acquire_time, self.expire_time = holding.acquired_at, holding.expires_at
        self.hold_expire_time, self.lease = holding.hold_until, holding.lease


def lock_message(row: LockRow) -> Lock:
    """The lock as it is shown."""
    lock = Lock(key=row.name, holder=row.holder, fence=row.fence, client=row.client)
    set_micros(lock.acquire_time, row.acquire_time)
    set_micros(lock.expire_time, row.expire_time)
    if row.hold_expire_time is not None:
        set_micros(lock.hold_expire_time, row.hold_expire_time)
    return lock
