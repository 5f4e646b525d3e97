"""Infrastructure of attempts that were given up: what is left of it is removed by a worker that can."""

from __future__ import annotations

import json
from typing import Final

from headrace.v1.worker_pb2 import WORKER_CAPABILITY_TEARDOWN, Worker
from headrace_services.storage.command import Command
from headrace_services.storage.dispatch_rows import AttemptRow, TeardownRow, WorkerRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["MAX_DELIVERIES", "DeliverTeardown", "SettleTeardown", "order_teardown"]

MAX_DELIVERIES: Final = 3
"""To how many workers, or how often, a teardown is sent before it is given up."""
_REPLY_SECONDS: Final = 30
"""How long a worker may take to answer."""


def order_teardown(work: Work, attempt: AttemptRow) -> Steps[None]:
    """Have removed what may be left of an attempt that is over, if it can outlive its worker."""
    if not attempt.infrastructure_id:
        return
    worker = yield from work.rows.one(WorkerRow, [("id", "=", attempt.worker_id)], lock=Lock.NONE)
    if worker is None or WORKER_CAPABILITY_TEARDOWN not in Worker.FromString(worker.body).capabilities:
        return
    work.rows.put(
        TeardownRow(
            run_id=attempt.run_id,
            fence=attempt.fence,
            attempt=attempt.attempt,
            work_pool=attempt.subject,
            infrastructure_id=attempt.infrastructure_id,
            due_time=work.now,
            deliveries=0,
            tried="[]",
        )
    )


class DeliverTeardown(Command[bool]):
    """A teardown is about to be sent to a worker. False: it is settled, or another server was first."""

    def __init__(self, row: TeardownRow, worker_id: str) -> None:
        super().__init__()
        self._seen = row
        self._worker_id = worker_id

    def apply(self, work: Work) -> Steps[bool]:
        row = yield from _find(work, self._seen.run_id, self._seen.fence)
        if row is None or row.deliveries != self._seen.deliveries:
            return False
        row.deliveries += 1
        row.tried = json.dumps([*json.loads(row.tried), self._worker_id])
        row.due_time = work.now + _REPLY_SECONDS * 1_000_000
        work.rows.put(row)
        return True


class SettleTeardown(Command[bool]):
    """A worker has answered, or nobody does. True: it was given up with this."""

    def __init__(self, run_id: str, fence: int, removed: bool) -> None:
        super().__init__()
        self._run_id = run_id
        self._fence = fence
        self._removed = removed

    def apply(self, work: Work) -> Steps[bool]:
        row = yield from _find(work, self._run_id, self._fence)
        if row is None:
            return False
        if self._removed or row.deliveries >= MAX_DELIVERIES:
            work.rows.delete(row)
            return not self._removed
        row.due_time = work.now  # to another one, at once
        work.rows.put(row)
        return False


def _find(work: Work, run_id: str, fence: int) -> Steps[TeardownRow | None]:
    return (yield from work.rows.one(TeardownRow, [("run_id", "=", run_id), ("fence", "=", fence)]))
