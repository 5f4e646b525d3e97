"""What a lock manager does, and what asks for one."""

from __future__ import annotations

from enum import Enum
from typing import Protocol, runtime_checkable

__all__ = ["IsolationLevel", "LockManager", "not_held"]


class IsolationLevel(str, Enum):
    """What two transactions with the same key may do at the same time."""

    READ_COMMITTED = "READ_COMMITTED"
    """Both run; the last one to commit is what stays."""

    SERIALIZABLE = "SERIALIZABLE"
    """One runs, the other waits and then sees what was committed. Needs a lock manager."""


@runtime_checkable
class LockManager(Protocol):
    """Locks by key. A lock belongs to a holder, a name that is unique to whoever acquires it.

    All durations are seconds; None is no limit, 0 does not wait.
    """

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Acquire the lock, waiting for it; a holder that has it gets it again, with the new hold timeout.

        Args:
            key: what is locked.
            holder: for whom.
            acquire_timeout: how long to wait.
            hold_timeout: the lock is free again after this time, whatever became of its holder.

        Returns:
            Whether the holder has the lock now.
        """
        ...

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """The same, without blocking the event loop."""
        ...

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back.

        Raises:
            ValueError: the holder does not have it, or has it no longer.
        """
        ...

    def is_locked(self, key: str) -> bool:
        """Whether anybody has the lock."""
        ...

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""
        ...

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody has the lock, and leave it so; whether that came about in time."""
        ...

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """The same, without blocking the event loop."""
        ...


def not_held(key: str, holder: str) -> ValueError:
    """The error for a lock that its holder does not have."""
    return ValueError(f"No lock held by {holder} for transaction with key {key}")
