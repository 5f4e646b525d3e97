"""What is known of workers and of the queue, read outside of any transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from headrace.core.clock import Clock
from headrace.core.errors import ObjectNotFound
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.state_pb2 import State
from headrace.v1.worker_pb2 import (
    ATTEMPT_PHASE_ACCEPTED,
    ATTEMPT_PHASE_UNSPECIFIED,
    WORKER_STATUS_DRAINING,
    WORKER_STATUS_OFFLINE,
    WORKER_STATUS_ONLINE,
    HeldAttempt,
    Worker,
    WorkerStatus,
)
from headrace.v1.worker_service_pb2 import CancelAttempt
from headrace_services.domain.attempt_rules import Phase
from headrace_services.storage.backends import Backend
from headrace_services.storage.cancel_notes import DEFAULT_GRACE_SECONDS
from headrace_services.storage.declared_rows import WorkPoolRow
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.dispatch_rows import AttemptRow, SessionRow, TeardownRow, WorkerRow
from headrace_services.storage.entity_queries import find_rows
from headrace_services.storage.filters import Conditions
from headrace_services.storage.instants import set_micros
from headrace_services.storage.pages import PageKey, page_limit

__all__ = ["DispatchQueries"]

_MOST_EXPIRED: Final = 500


class DispatchQueries:
    """Mixed into the reader."""

    _backend: Backend
    _dialect: Dialect
    _clock: Clock

    async def next_due(self) -> int | None:
        """When the next run that waits for its time is due, microseconds; None: none does."""
        rows = await self._backend.fetch(
            "SELECT due_time FROM run_queue WHERE pass_number IS NULL ORDER BY due_time LIMIT 1"
        )
        return rows[0][0] if rows else None

    async def has_late(self, now: int) -> bool:
        """Whether a run waits past its time and is not called late yet."""
        sql = "SELECT 1 FROM run_queue WHERE late_time <= ? LIMIT 1"
        return bool(await self._backend.fetch(sql, [now]))

    async def has_aged(self, before: int) -> bool:
        """Whether a run has waited since before the instant without a change of its priority."""
        rows = await self._backend.fetch(
            "SELECT 1 FROM run_queue WHERE aged_time < ? AND pass_number IS NOT NULL AND blocked_by IS NULL "
            "AND priority < 9 ORDER BY aged_time LIMIT 1",
            [before],
        )
        return bool(rows)

    async def expired_sessions(self, now: int) -> list[str]:
        """Workers' sessions whose lease ended before `now`, those that ended first first; at most 500."""
        rows = await self._backend.fetch(
            f"SELECT {self._dialect.column('id')} FROM worker_sessions WHERE expires_at IS NOT NULL "
            f"AND expires_at < ? ORDER BY expires_at LIMIT {_MOST_EXPIRED}",
            [now],
        )
        return self._dialect.ids(rows)

    async def worker_cancels(self) -> list[tuple[str, CancelAttempt]]:
        """Runs in the hands of workers that are being cancelled: the session's id, and what to tell it."""
        run_id, session_id = self._dialect.column("a.run_id"), self._dialect.column("a.session_id")
        rows = await self._backend.fetch(
            f"SELECT {run_id}, {session_id}, a.attempt, a.fence, r.state_seq, s.body FROM runs AS r "
            "JOIN attempt_holders AS a ON a.run_id = r.id "
            "JOIN run_states AS s ON s.run_id = r.id AND s.seq = r.state_seq "
            "WHERE r.workspace_id = 1 AND r.kind IN (1, 2) AND r.state_type = 5 AND a.session_id IS NOT NULL"
        )
        return [self._cancel(row) for row in rows]

    def _cancel(self, row: Sequence[Any]) -> tuple[str, CancelAttempt]:
        run_id, session_id = self._dialect.read_id(row[0]), self._dialect.read_id(row[1])
        state = State.FromString(row[5])
        attempt = AttemptRef(run_id=run_id, attempt=row[2], fence=row[3])
        cancel = CancelAttempt(attempt=attempt, cancel_seq=row[4], reason=state.message)
        if state.cancel.HasField("grace"):
            cancel.grace.CopyFrom(state.cancel.grace)
        else:
            cancel.grace.FromMicroseconds(int(DEFAULT_GRACE_SECONDS * 1e6))
        return session_id, cancel

    async def open_offers(self) -> list[tuple[str, AttemptRef]]:
        """Attempts that were offered and not accepted: the session's id, and the attempt."""
        run_id, session_id = self._dialect.column("run_id"), self._dialect.column("session_id")
        rows = await self._backend.fetch(
            f"SELECT {session_id}, {run_id}, attempt, fence FROM attempt_holders "
            f"WHERE phase = {Phase.OFFERED.value} AND session_id IS NOT NULL"
        )
        read = self._dialect.read_id
        return [(read(row[0]), AttemptRef(run_id=read(row[1]), attempt=row[2], fence=row[3])) for row in rows]

    async def worker_drains(self) -> list[tuple[str, int]]:
        """Sessions that are to drain and do not yet: the id, and until when, microseconds; 0: without end."""
        rows = await self._backend.fetch(
            f"SELECT {self._dialect.column('id')}, drain_deadline FROM worker_sessions "
            "WHERE drain_deadline IS NOT NULL AND NOT is_draining AND expires_at IS NOT NULL"
        )
        return [(self._dialect.read_id(row[0]), row[1]) for row in rows]

    async def changed_pools(self, known: Mapping[str, int]) -> list[WorkPoolRow]:
        """Those of the pools that were changed last at another instant than is known, by name."""
        rows = await self._backend.fetch("SELECT name, update_time FROM work_pools WHERE workspace_id = 1")
        changed = [name for name, updated in rows if known.get(name, updated) != updated]
        if not changed:
            return []
        found: list[WorkPoolRow] = await self._find(WorkPoolRow, [("name", "in", changed)])
        return found

    async def due_teardowns(self, now: int) -> list[TeardownRow]:
        """Teardowns to be sent to a worker now, those due first first; at most 100."""
        found: list[TeardownRow] = await self._find(
            TeardownRow, [("due_time", "<=", now)], order=["due_time"], limit=100
        )
        return found

    async def get_worker(self, worker_id: str) -> Worker:
        """One worker, with the attempts it holds.

        Raises:
            ObjectNotFound: there is none with that id.
        """
        rows = await self._find(WorkerRow, [("id", "=", worker_id.lower())])
        if not rows:
            raise ObjectNotFound.of("worker", worker_id)
        return (await self._workers(rows))[0]

    async def list_workers(
        self,
        work_pool: str,
        statuses: Sequence[WorkerStatus.ValueType],
        page_size: int,
        page_token: str,
    ) -> tuple[list[Worker], str]:
        """A page of workers, by name, and the token of the next."""
        key, limit = PageKey.of("workers", f"{work_pool}\0{sorted(statuses)}"), page_limit(page_size)
        cursor = key.cursor(page_token, str, str)
        found: list[Worker] = []
        while True:
            rows = await self._worker_page(work_pool, cursor, limit + 1)
            workers = await self._workers(rows[:limit])
            found += [worker for worker in workers if not statuses or worker.status in statuses]
            cursor = [rows[limit - 1].name, rows[limit - 1].id] if len(rows) > limit else None
            if cursor is None:
                return found[:limit], "" if len(found) <= limit else _after(key, found[limit - 1])
            if len(found) >= limit:
                return found[:limit], _after(key, found[limit - 1])

    async def _worker_page(self, work_pool: str, cursor: Any, limit: int) -> list[WorkerRow]:
        where = Conditions()
        if work_pool:
            where.add("work_pool = ?", work_pool)
        if cursor is not None:
            where.add("(name, id) > (?, ?)", cursor[0], self._dialect.id(cursor[1]))
        rows = await self._backend.fetch(
            f"SELECT {self._dialect.column('id')} FROM workers WHERE {where.sql} ORDER BY name, id LIMIT ?",
            [*where.parameters, limit],
        )
        ids = self._dialect.ids(rows)
        if not ids:
            return []
        return await self._find(WorkerRow, [("id", "in", ids)], order=["name", "id"])

    async def _find(self, cls: Any, where: Any, **more: Any) -> list[Any]:
        return await find_rows(self._backend, self._dialect, cls, where, **more)

    async def _workers(self, rows: Sequence[WorkerRow]) -> list[Worker]:
        ids = [row.id for row in rows]
        if not ids:
            return []
        sessions = await self._find(SessionRow, [("worker_id", "in", ids)], order=["create_time"])
        held = await self._find(AttemptRow, [("worker_id", "in", ids)])
        now = await self._backend.lease_now()
        return [
            _worker(
                row,
                [session for session in sessions if session.worker_id == row.id],
                [attempt for attempt in held if attempt.worker_id == row.id],
                now,
            )
            for row in rows
        ]


def _after(key: PageKey, worker: Worker) -> str:
    return key.token([worker.name, worker.id])


def _worker(row: WorkerRow, sessions: Iterable[SessionRow], held: Iterable[AttemptRow], now: int) -> Worker:
    worker = Worker.FromString(row.body)
    worker.status = WORKER_STATUS_OFFLINE
    set_micros(worker.create_time, row.create_time)
    newest = max(sessions, key=lambda s: (s.expires_at is not None, s.heartbeat_time), default=None)
    if newest is not None:
        set_micros(worker.last_heartbeat_time, newest.heartbeat_time)
        worker.session_id, worker.session_epoch = newest.id, newest.epoch
        if newest.expires_at is not None and newest.expires_at > now:
            is_leaving = newest.is_draining or newest.drain_deadline is not None
            worker.status = WORKER_STATUS_DRAINING if is_leaving else WORKER_STATUS_ONLINE
            worker.replica_id = newest.replica_id
    for attempt in held:
        if attempt.session_id is not None:
            worker.held.append(_held(attempt))
    return worker


def _held(row: AttemptRow) -> HeldAttempt:
    phase = ATTEMPT_PHASE_ACCEPTED if row.phase >= Phase.ACCEPTED else ATTEMPT_PHASE_UNSPECIFIED
    return HeldAttempt(
        attempt=AttemptRef(run_id=row.run_id, attempt=row.attempt, fence=row.fence), phase=phase
    )
