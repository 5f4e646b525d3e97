"""Commands on locks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headrace.v1.lock_pb2 import Lock as LockMessage
from headrace.v1.lock_pb2 import LockRef
from headrace.v1.lock_service_pb2 import AcquireLockRequest
from headrace_services.domain.locks import acquired, renewed
from headrace_services.storage.command import Command
from headrace_services.storage.entities import Lock
from headrace_services.storage.instants import duration_micros
from headrace_services.storage.lock_rows import LockRow, lock_message
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["AcquireLock", "Acquisition", "ReleaseLock", "RenewLocks"]

_SWEEP_EVERY: Final = 16
_SWEPT: Final = 32
_FORGOTTEN: Final = 3_600 * 1_000_000
"""A lock whose lease has been over for so long (µs) has no holder that could still mean it."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What became of an attempt to acquire a lock.

    Attributes:
        is_acquired: whether it was had.
        lock: the lock as it is now.
        now: the instant of the attempt, by the clock of leases.
    """

    is_acquired: bool
    lock: LockMessage
    now: int


def _locked(work: Work, name: str) -> Steps[LockRow | None]:
    return work.rows.one(LockRow, [("name", "=", name)])


class AcquireLock(Command[Acquisition]):
    """A lock is acquired, unless somebody else has it.

    Args:
        request: checked.
        heard_since: since when holders could renew, by the clock of leases; None: since now.
    """

    needs_lease_clock = True

    def __init__(self, request: AcquireLockRequest, heard_since: int | None) -> None:
        super().__init__()
        self._request = request
        self._heard_since = heard_since

    def apply(self, work: Work) -> Steps[Acquisition]:
        request, now = self._request, work.lease_now
        row = yield from _locked(work, request.key)
        hold = duration_micros(request.hold_timeout) if request.HasField("hold_timeout") else None
        holding = acquired(
            row.holding if row else None,
            request.holder,
            now,
            duration_micros(request.lease),
            hold,
            now if self._heard_since is None else self._heard_since,
        )
        if holding is None:
            assert row is not None
            return Acquisition(False, lock_message(row), now)
        if row is None:
            row = LockRow(request.key, "", 0, 0, 0, None, 0, request.client)
        row.client = request.client
        row.take(holding)
        work.rows.put(row)
        if now % _SWEEP_EVERY == 0:
            yield from _sweep(work, request.key)
        return Acquisition(True, lock_message(row), now)


def _sweep(work: Work, but: str) -> Steps[None]:
    """Delete locks of holders that died long ago; locks that are used are so kept clean of them."""
    where = [("expire_time", "<", work.lease_now - _FORGOTTEN), ("name", "<>", but)]
    for row in (yield from work.rows.find(LockRow, where, limit=_SWEPT, lock=Lock.CLAIM)):
        work.rows.delete(row)


class RenewLocks(Command[list[LockRef]]):
    """Leases begin anew; gives those that their holders have lost.

    Args:
        refs: holdings, each with its fence.
        lease: how long the leases are, microseconds.
    """

    needs_lease_clock = True

    def __init__(self, refs: Sequence[LockRef], lease: int) -> None:
        super().__init__()
        self._refs = sorted(refs, key=lambda ref: ref.key)
        self._lease = lease

    def apply(self, work: Work) -> Steps[list[LockRef]]:
        yield from work.rows.load(LockRow, [(ref.key,) for ref in self._refs])
        lost: list[LockRef] = []
        for ref in self._refs:
            row = work.rows.get(LockRow, ref.key)
            held = row.holding if row is not None else None
            holding = renewed(held, ref.holder, ref.fence, work.lease_now, self._lease)
            if row is None or holding is None:
                lost.append(ref)
            else:
                row.take(holding)
                work.rows.put(row)
        return lost


class ReleaseLock(Command[bool]):
    """A lock is given back; gives whether the holder had it."""

    needs_lease_clock = True

    def __init__(self, ref: LockRef) -> None:
        super().__init__()
        self._ref = ref

    def apply(self, work: Work) -> Steps[bool]:
        ref = self._ref
        row = yield from _locked(work, ref.key)
        if row is None or row.holder != ref.holder or ref.fence not in (0, row.fence):
            return False
        work.rows.delete(row)
        # One that has lapsed is given back all the same: nobody has taken it, nobody has to wait for its end.
        return work.lease_now < row.expire_time
