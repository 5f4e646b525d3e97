"""Locks as leases: who may have one, and for how long. Instants and durations are microseconds."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Holding", "acquired", "renewed"]


@dataclass(frozen=True, slots=True)
class Holding:
    """Somebody has a lock.

    Attributes:
        holder: the name under which it was acquired.
        fence: greater than that of every earlier holder of the key.
        acquired_at: since when.
        expires_at: when the lease ends unless it is renewed.
        hold_until: when it ends in any case; None: never.
        lease: how long the lease was when it began, or was renewed last.
    """

    holder: str
    fence: int
    acquired_at: int
    expires_at: int
    hold_until: int | None
    lease: int

    def ends_at(self, heard_since: int) -> int:
        """From when on somebody else may have the lock.

        Args:
            heard_since: since when holders have been able to renew their leases. Before, silence proved
                nothing: a lease does not end until its holder has had the time to renew it.
        """
        end = max(self.expires_at, heard_since + self.lease)
        return end if self.hold_until is None else min(end, self.hold_until)


def acquired(
    held: Holding | None,
    holder: str,
    now: int,
    lease: int,
    hold_timeout: int | None,
    heard_since: int,
) -> Holding | None:
    """The lock as it is once `holder` has acquired it; None: somebody else has it.

    Who has it already gets it again under the same fence, with the new limits.

    Args:
        held: who has it.
        holder: who wants it.
        now: the clock of leases.
        lease: how long it is held unless it is renewed.
        hold_timeout: how long it is held at most; None: for as long as it is renewed.
        heard_since: see `Holding.ends_at`.
    """
    hold_until = None if hold_timeout is None else now + hold_timeout
    expires_at = _lease_end(now, lease, hold_until)
    if held is not None and now < held.ends_at(heard_since):
        if held.holder != holder:
            return None
        return replace(held, expires_at=expires_at, hold_until=hold_until, lease=lease)
    # A lock that nobody has leaves nothing behind, so its fence comes from the clock.
    fence = now if held is None else max(now, held.fence + 1)
    return Holding(holder, fence, now, expires_at, hold_until, lease)


def renewed(held: Holding | None, holder: str, fence: int, now: int, lease: int) -> Holding | None:
    """The lock with its lease begun anew; None: the holder has lost it.

    A lease that has run out while nobody else wanted the lock is taken up again.
    """
    if held is None or (held.holder, held.fence) != (holder, fence):
        return None
    if held.hold_until is not None and held.hold_until <= now:
        return None
    return replace(held, expires_at=_lease_end(now, lease, held.hold_until), lease=lease)


def _lease_end(now: int, lease: int, hold_until: int | None) -> int:
    return now + lease if hold_until is None else min(now + lease, hold_until)
