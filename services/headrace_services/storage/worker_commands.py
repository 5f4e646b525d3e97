"""Commands of workers' sessions: they begin, are renewed, drain and end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.core.errors import (
    FieldsInvalid,
    ObjectNotFound,
    PreconditionFailed,
)
from headrace.v1.record_service_pb2 import AttemptVerdict
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.worker_pb2 import Worker
from headrace_services.domain.attempt_rules import LossCause, Phase
from headrace_services.domain.claims import RouteKind
from headrace_services.storage.attempt_news import recorder_lives
from headrace_services.storage.command import Command
from headrace_services.storage.declared_rows import WorkPoolRow
from headrace_services.storage.dispatch_rows import AttemptRow, SessionRow, WorkerRow, why_over
from headrace_services.storage.dispatch_stores import SessionRenewal
from headrace_services.storage.entities import Lock
from headrace_services.storage.losing import GIVEN_UP, Loss, lose, was_given_up
from headrace_services.storage.rows import text
from headrace_services.storage.steps import Steps, call
from headrace_services.storage.work import Work

__all__ = [
    "CloseSession",
    "DeleteWorker",
    "DrainWorker",
    "ExpireSession",
    "OpenSession",
    "OpenedSession",
    "RenewSessions",
    "WorkerIdentity",
]

_SILENT: Final = "The worker has been silent for longer than its lease."
_LEFT: Final = "The worker has left."


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """What a worker says of itself when its stream opens.

    Attributes:
        session_id: of its process.
        kind: what it serves.
        worker: its record; `work_pool`, `task_keys` or `deployment_ids` is set.
        held: the attempts it holds, all of them.
    """

    session_id: str
    kind: RouteKind
    worker: Worker
    held: Sequence[AttemptRef]


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """Where a session stands when its stream opens.

    Attributes:
        epoch: of the stream.
        verdicts: one for each attempt that the worker says it holds.
        attempts: (run id, attempt, fence, phase) of all that the session answers for.
        pool: of the worker; None: it serves something else.
        drain_deadline: an administrator wants it to drain; 0: without an end.
    """

    epoch: int
    verdicts: Sequence[AttemptVerdict]
    attempts: Sequence[tuple[str, int, int, Phase]]
    pool: WorkPoolRow | None
    drain_deadline: int | None


class OpenSession(Command[OpenedSession]):
    """A worker's stream opens."""

    needs_lease_clock = True

    def __init__(self, identity: WorkerIdentity, replica_id: str, lease_seconds: float) -> None:
        super().__init__()
        self._identity = identity
        self._replica_id = replica_id
        self._lease = int(lease_seconds * 1_000_000)

    def apply(self, work: Work) -> Steps[OpenedSession]:
        identity = self._identity
        pool = yield from self._pool(work)
        run_ids = yield from self._load_runs(work)
        session = yield from work.rows.one(SessionRow, [("id", "=", identity.session_id)])
        if session is not None and session.worker_id != identity.worker.id:
            raise FieldsInvalid.of("hello.session_id", "belongs to another worker")
        yield from self._note_worker(work)
        session = self._begin(work, session)
        found = (yield from work.rows.find(AttemptRow, [("run_id", "in", run_ids)])) if run_ids else []
        rows = {row.run_id: row for row in found}
        verdicts = self._verdicts(work, rows)
        mine = [row for row in rows.values() if row.session_id == session.id]
        return OpenedSession(
            session.epoch,
            verdicts,
            [(row.run_id, row.attempt, row.fence, Phase(row.phase)) for row in mine],
            pool,
            session.drain_deadline if not session.is_draining else None,
        )

    def _pool(self, work: Work) -> Steps[WorkPoolRow | None]:
        """The worker's pool.

        Raises:
            ObjectNotFound: there is none of that name.
            PreconditionFailed: its type is another one.
        """
        worker = self._identity.worker
        if self._identity.kind is not RouteKind.WORK_POOL:
            return None
        pool = yield from work.rows.one(WorkPoolRow, [("name", "=", worker.work_pool)], lock=Lock.NONE)
        if pool is None:
            raise ObjectNotFound.of("work pool", worker.work_pool)
        if pool.type != worker.type:
            raise PreconditionFailed(
                f"The work pool '{pool.name}' is for workers of the type '{pool.type}', not '{worker.type}'.",
                facts={"work_pool": pool.name, "type": pool.type},
            )
        return pool

    def _begin(self, work: Work, session: SessionRow | None) -> SessionRow:
        if session is None:
            session = SessionRow(
                id=self._identity.session_id,
                worker_id=self._identity.worker.id,
                epoch=0,
                replica_id="",
                expires_at=None,
                heartbeat_time=0,
                is_draining=False,
                drain_deadline=None,
                create_time=work.now,
            )
        session.epoch += 1
        session.replica_id = self._replica_id
        session.heartbeat_time = work.lease_now
        session.expires_at = work.lease_now + self._lease
        work.rows.put(session)
        return session

    def _note_worker(self, work: Work) -> Steps[None]:
        worker = self._identity.worker
        row = yield from work.rows.one(WorkerRow, [("id", "=", worker.id)])
        if row is None:
            row = WorkerRow(worker.id, "", 0, "", work.now, 0, b"")
        row.name, row.kind, row.work_pool = (
            text(worker.name),
            int(self._identity.kind),
            text(worker.work_pool),
        )
        row.update_time = work.now
        row.body = worker.SerializeToString()
        work.rows.put(row)

    def _load_runs(self, work: Work) -> Steps[list[str]]:
        """Load the runs that the worker names, and those that its session answers for; their ids."""
        ids: set[str] = set((yield from call("load_session_runs", self._identity.session_id)))
        ids |= {ref.run_id.lower() for ref in self._identity.held}
        yield from work.load_runs(ids)
        return sorted(ids)

    def _verdicts(self, work: Work, rows: Mapping[str, AttemptRow]) -> list[AttemptVerdict]:
        verdicts: list[AttemptVerdict] = []
        for ref in self._identity.held:
            run, row = work.runs.get(ref.run_id.lower()), rows.get(ref.run_id.lower())
            if run is None:
                verdicts.append(
                    AttemptVerdict(attempt=ref, lost=True, reason="The run is not there any more.")
                )
            elif run.fence != ref.fence:
                reason = f"The run is owned by its attempt {run.attempt}."
                verdicts.append(AttemptVerdict(attempt=ref, lost=True, reason=reason))
            elif was_given_up(run):
                verdicts.append(AttemptVerdict(attempt=ref, lost=True, reason=GIVEN_UP))
            else:
                verdicts.append(AttemptVerdict(attempt=ref))
                if row is not None and row.fence == ref.fence:
                    row.session_id, row.worker_id = self._identity.session_id, self._identity.worker.id
                    row.phase = int(Phase.ACCEPTED)
                    work.rows.put(row)
        return verdicts


class RenewSessions(Command[list[tuple[str, int, str]]]):
    """Sessions were heard; one statement for all of them."""

    needs_lease_clock = True

    def __init__(self, sessions: Sequence[tuple[str, int, bool, float]]) -> None:
        super().__init__()
        self._sessions = sessions
        self.weight = max(1, len(sessions) // 10)

    def apply(self, work: Work) -> Steps[list[tuple[str, int, str]]]:
        """The sessions and epochs that were not renewed, and why."""
        renewals = sorted(
            SessionRenewal(id, epoch, work.lease_now + int(seconds * 1_000_000), is_draining)
            for id, epoch, is_draining, seconds in self._sessions
        )
        work.rows.has_written = True
        renewed = set((yield from call("renew_sessions", renewals, work.lease_now)))
        failed = {renewal.id: renewal.epoch for renewal in renewals if renewal.id not in renewed}
        if not failed:
            return []
        rows = yield from work.rows.find(SessionRow, [("id", "in", sorted(failed))], lock=Lock.NONE)
        epochs = {row.id: row.epoch for row in rows}
        return [(id, epoch, why_over(epochs.get(id), epoch)) for id, epoch in failed.items()]


class CloseSession(Command[None]):
    """A worker has said goodbye: what it gives back is queued again at once."""

    needs_lease_clock = True

    def __init__(self, session_id: str, epoch: int, released: Sequence[AttemptRef]) -> None:
        super().__init__()
        self._session_id = session_id
        self._epoch = epoch
        self._released = {(ref.run_id.lower(), ref.fence) for ref in released}

    def apply(self, work: Work) -> Steps[None]:
        yield from work.load_runs((yield from call("load_session_runs", self._session_id)))
        session = yield from work.rows.one(SessionRow, [("id", "=", self._session_id)])
        if session is None or session.epoch != self._epoch or session.expires_at is None:
            return
        yield from _end_session(work, session, LossCause.NOT_HELD, _LEFT, self._released)


class ExpireSession(Command[list[str]]):
    """A session's lease is over: what it held is lost, where nobody else holds it."""

    needs_lease_clock = True
    is_solo = True

    def __init__(self, session_id: str, expired_before: int | None, reason: str = _SILENT) -> None:
        super().__init__()
        self._session_id = session_id
        self._expired_before = expired_before
        self._reason = reason

    def apply(self, work: Work) -> Steps[list[str]]:
        yield from work.load_runs((yield from call("load_session_runs", self._session_id)))
        session = yield from work.rows.one(SessionRow, [("id", "=", self._session_id)])
        if session is None or session.expires_at is None:
            return []
        if self._expired_before is not None and session.expires_at >= self._expired_before:
            return []
        return (yield from _end_session(work, session, LossCause.SILENT, self._reason, set()))


def _end_session(
    work: Work, session: SessionRow, cause: LossCause, reason: str, released: set[tuple[str, int]]
) -> Steps[list[str]]:
    """The session answers for nothing any more; the ids of the runs that it answered for."""
    session.expires_at = None
    work.rows.put(session)
    rows = yield from work.rows.find(AttemptRow, [("session_id", "=", session.id)])
    yield from work.load_runs([row.run_id for row in rows])
    for row in rows:
        if (row.run_id, row.fence) in released:
            yield from lose(work, row, Loss(LossCause.RELEASED, "The worker has given it back."))
        elif (yield from recorder_lives(work, row)):
            row.session_id = None
            work.rows.put(row)
        else:
            yield from lose(work, row, Loss(cause, reason, is_presumed=True))
    return [row.run_id for row in rows]


class DrainWorker(Command[None]):
    """An administrator wants a worker to finish what it holds and take nothing new."""

    needs_lease_clock = True

    def __init__(self, worker_id: str, deadline_seconds: float | None) -> None:
        super().__init__()
        self._worker_id = worker_id.lower()
        self._deadline_seconds = deadline_seconds

    def apply(self, work: Work) -> Steps[None]:
        worker = yield from work.rows.one(WorkerRow, [("id", "=", self._worker_id)], lock=Lock.NONE)
        if worker is None:
            raise ObjectNotFound.of("worker", self._worker_id)
        rows = yield from _sessions(work, self._worker_id)
        alive = [row for row in rows if row.expires_at is not None]
        if not alive:
            raise PreconditionFailed(f"The worker '{worker.name}' is offline: there is nothing to drain.")
        seconds = self._deadline_seconds
        for row in alive:
            row.drain_deadline = 0 if seconds is None else work.lease_now + int(seconds * 1_000_000)
            work.rows.put(row)


class DeleteWorker(Command[None]):
    """A worker that is offline is forgotten."""

    needs_lease_clock = True

    def __init__(self, worker_id: str) -> None:
        super().__init__()
        self._worker_id = worker_id.lower()

    def apply(self, work: Work) -> Steps[None]:
        worker = yield from work.rows.one(WorkerRow, [("id", "=", self._worker_id)])
        if worker is None:
            raise ObjectNotFound.of("worker", self._worker_id)
        rows = yield from _sessions(work, self._worker_id)
        if any(row.expires_at is not None and row.expires_at > work.lease_now for row in rows):
            raise PreconditionFailed(f"The worker '{worker.name}' is online: drain it first.")
        for row in rows:
            if row.expires_at is None:  # else its attempts wait for the end of its lease
                work.rows.delete(row)
        work.rows.delete(worker)


def _sessions(work: Work, worker_id: str) -> Steps[list[SessionRow]]:
    return (yield from work.rows.find(SessionRow, [("worker_id", "=", worker_id)]))
