"""Why a run does not run: its own state, then what dispatch finds in its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from headrace.core.errors import ObjectNotFound
from headrace.core.job_templates import MANAGED
from headrace.v1 import run_service_pb2 as pb
from headrace.v1.run_pb2 import Run
from headrace.v1.state_pb2 import State
from headrace.v1.worker_pb2 import Worker
from headrace_services.domain.attempt_rules import Phase
from headrace_services.domain.claims import Candidate, Obstacle, Offer, RouteKind, obstacle
from headrace_services.domain.effects import RetryType
from headrace_services.domain.explain import words_of
from headrace_services.domain.schedules import QUEUED
from headrace_services.domain.states import FINAL_TYPES, PAUSED, PENDING, SCHEDULED
from headrace_services.storage.claiming import candidate_of
from headrace_services.storage.command import Command
from headrace_services.storage.declared_rows import WorkPoolRow
from headrace_services.storage.dispatch_facts import DispatchFacts
from headrace_services.storage.dispatch_rows import AttemptRow, QueuedRunRow, RouteRow, SessionRow, WorkerRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.instants import set_micros
from headrace_services.storage.ops import Wanted
from headrace_services.storage.queueing import route_of
from headrace_services.storage.rows import RunRow
from headrace_services.storage.steps import Steps, call
from headrace_services.storage.work import Work

__all__ = ["ExplainRun"]

_HOLDERS: Final = 20
_NO_LIMIT: Final = 1 << 30
_CAUSES: Final = {
    Obstacle.NOT_DUE: pb.BLOCKING_CAUSE_NOT_DUE,
    Obstacle.NO_WORK_POOL: pb.BLOCKING_CAUSE_NO_WORK_POOL,
    Obstacle.WORK_POOL_PAUSED: pb.BLOCKING_CAUSE_WORK_POOL_PAUSED,
    Obstacle.WORK_QUEUE_PAUSED: pb.BLOCKING_CAUSE_WORK_QUEUE_PAUSED,
    Obstacle.NO_WORKER: pb.BLOCKING_CAUSE_NO_WORKER,
    Obstacle.NO_MATCHING_WORKER: pb.BLOCKING_CAUSE_NO_MATCHING_WORKER,
    Obstacle.NO_CREDIT: pb.BLOCKING_CAUSE_NO_CREDIT,
    Obstacle.WORK_QUEUE_LIMIT: pb.BLOCKING_CAUSE_WORK_QUEUE_LIMIT,
    Obstacle.WORK_POOL_LIMIT: pb.BLOCKING_CAUSE_WORK_POOL_LIMIT,
    Obstacle.DEPLOYMENT_LIMIT: pb.BLOCKING_CAUSE_DEPLOYMENT_LIMIT,
    Obstacle.FAIRNESS_KEY_LIMIT: pb.BLOCKING_CAUSE_FAIRNESS_KEY_LIMIT,
}


class ExplainRun(Command[pb.ExplainRunResponse]):
    """Somebody asks why a run does not run. Nothing is written.

    Args:
        run_id: the run.
        credits: what the workers with a stream on this server take, by session.
    """

    needs_lease_clock = True

    def __init__(self, run_id: str, credits: Mapping[str, int]) -> None:
        super().__init__()
        self._run_id = run_id.lower()
        self._credits = credits

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._run_id)

    def apply(self, work: Work) -> Steps[pb.ExplainRunResponse]:
        run = work.runs.get(self._run_id)
        if run is None:
            raise ObjectNotFound.of("run", self._run_id)
        if run.books.type is PENDING:
            return (yield from _pending(work, run))
        if run.books.type is PAUSED:
            return (yield from _paused(work, run))
        if run.books.type is not SCHEDULED:
            has_ended = run.books.type in FINAL_TYPES
            message = f"The run has ended: it is {run.state_name}." if has_ended else "The run runs."
            return pb.ExplainRunResponse(cause=pb.BLOCKING_CAUSE_NONE, message=message)
        return (yield from self._scheduled(work, run))

    def _scheduled(self, work: Work, run: RunRow) -> Steps[pb.ExplainRunResponse]:
        if run.retry_type is RetryType.IN_PROCESS:
            return _until(run, pb.BLOCKING_CAUSE_RETRY_DELAY, "Its process waits for the next try.")
        if run.state_name == QUEUED:
            message = "It waits for an earlier run of its deployment to end."
            remedy = "Wait for that one, or cancel it."
            return pb.ExplainRunResponse(cause=pb.BLOCKING_CAUSE_OVERLAP, message=message, remedy=remedy)
        row = yield from work.rows.one(QueuedRunRow, [("run_id", "=", run.id)], lock=Lock.NONE)
        if row is None:
            message = "It has neither a work pool nor a deployment: no worker will take it."
            remedy = "Execute it with `headrace flow-run execute`, or cancel it."
            return pb.ExplainRunResponse(cause=pb.BLOCKING_CAUSE_NO_WORK_POOL, message=message, remedy=remedy)
        return (yield from self._queued(work, run, row))

    def _queued(self, work: Work, run: RunRow, row: QueuedRunRow) -> Steps[pb.ExplainRunResponse]:
        offers = yield from self._offers(work)
        loaded = DispatchFacts(work, offers)
        route = route_of(run, Run.FromString(run.spec))
        assert route is not None  # it is in the queue
        if route.kind is RouteKind.WORK_POOL:
            yield from loaded.load_pools([route.subject], lock=False)
            yield from loaded.load_keys([(route.subject, row.fairness_key)], lock=False)
        if row.deployment_id is not None:
            yield from loaded.load_deployments([row.deployment_id], lock=False)
        line = RouteRow(route.id, int(route.kind), route.subject, route.queue, route.labels)
        candidate = candidate_of(row, line, loaded)
        found = obstacle(candidate, loaded.facts)
        if found is Obstacle.NOT_DUE and "Retry" in run.state_name:
            return _until(run, pb.BLOCKING_CAUSE_RETRY_DELAY, "It waits for its next try.", row.due_time)
        position: int = yield from call("count_before", row)
        if found is None:
            message = "It is about to be handed out, in its turn."
            return pb.ExplainRunResponse(
                cause=pb.BLOCKING_CAUSE_TURN, message=message, position=position + 1, subject=route.subject
            )
        words = words_of(found, candidate, loaded.facts)
        if found is Obstacle.NO_WORKER and (yield from _is_managed(work, route.subject)):
            words = words._replace(remedy=_MANAGED_REMEDY)
        answer = pb.ExplainRunResponse(
            cause=_CAUSES[found],
            message=words.message,
            remedy=words.remedy,
            subject=words.subject,
            position=0 if found is Obstacle.NOT_DUE else position + 1,
        )
        if found is Obstacle.NOT_DUE:
            set_micros(answer.until, row.due_time)
        answer.holder_run_ids.extend((yield from _holders(work, found, candidate)))
        return answer

    def _offers(self, work: Work) -> Steps[list[Offer]]:
        """Every worker that is online anywhere."""
        rows = work.rows
        sessions = yield from rows.find(SessionRow, [("expires_at", ">", work.lease_now)], lock=Lock.NONE)
        ids = sorted({session.worker_id for session in sessions})
        workers = (yield from rows.find(WorkerRow, [("id", "in", ids)], lock=Lock.NONE)) if ids else []
        by_id = {row.id: row for row in workers}
        held: dict[str, int] = dict((yield from call("count_sessions")))
        return [
            _offer(session, by_id[session.worker_id], held.get(session.id, 0), self._credits)
            for session in sessions
            if session.worker_id in by_id
        ]


def _offer(session: SessionRow, row: WorkerRow, held: int, credits: Mapping[str, int]) -> Offer:
    worker, kind = Worker.FromString(row.body), RouteKind(row.kind)
    subjects: Sequence[str] = {
        RouteKind.WORK_POOL: [worker.work_pool],
        RouteKind.DEPLOYMENT: worker.deployment_ids,
        RouteKind.TASK: worker.task_keys,
    }[kind]
    slots = next((slot.total for slot in worker.slots if slot.kind == "run"), _NO_LIMIT)
    is_leaving = session.is_draining or session.drain_deadline is not None
    # Of workers whose stream is elsewhere, only what they said in the beginning is known.
    credit = 0 if is_leaving else credits.get(session.id, max(0, slots - held))
    return Offer(
        *(session.id, worker.id, kind, frozenset(subjects), frozenset(worker.work_queues)),
        *(dict(worker.labels), credit),
    )


def _holders(work: Work, found: Obstacle, candidate: Candidate) -> Steps[list[str]]:
    """Runs that hold what the candidate waits for."""
    line: list[tuple[str, str, Any]] = [
        ("kind", "=", int(candidate.kind)),
        ("subject", "=", candidate.subject),
    ]
    by_cause: dict[Obstacle, list[tuple[str, str, Any]]] = {
        Obstacle.NO_CREDIT: line,
        Obstacle.WORK_POOL_LIMIT: line,
        Obstacle.WORK_QUEUE_LIMIT: [*line, ("queue", "=", candidate.queue)],
        Obstacle.DEPLOYMENT_LIMIT: [("deployment_id", "=", candidate.deployment_id)],
        Obstacle.FAIRNESS_KEY_LIMIT: [*line, ("fairness_key", "=", candidate.fairness_key)],
    }
    where = by_cause.get(found)
    if where is None:
        return []
    rows = yield from work.rows.find(AttemptRow, where, order=["offer_time"], limit=_HOLDERS, lock=Lock.NONE)
    return [row.run_id for row in rows]


_MANAGED_REMEDY: Final = "The server starts one by itself; if it does not, its log says why."


def _is_managed(work: Work, pool: str) -> Steps[bool]:
    row = yield from work.rows.one(WorkPoolRow, [("name", "=", pool)], lock=Lock.NONE)
    return row is not None and row.type == MANAGED


def _until(
    run: RunRow, cause: pb.BlockingCause.ValueType, message: str, until: int | None = None
) -> pb.ExplainRunResponse:
    answer = pb.ExplainRunResponse(cause=cause, message=message)
    at = until or run.books.next_scheduled_start_time
    if at is not None:
        set_micros(answer.until, at)
    return answer


def _pending(work: Work, run: RunRow) -> Steps[pb.ExplainRunResponse]:
    row = yield from work.rows.one(AttemptRow, [("run_id", "=", run.id)], lock=Lock.NONE)
    if row is None:
        message = "A process has taken it and is about to begin."
        return pb.ExplainRunResponse(cause=pb.BLOCKING_CAUSE_INFRASTRUCTURE, message=message)
    worker = yield from work.rows.one(WorkerRow, [("id", "=", row.worker_id)], lock=Lock.NONE)
    name = worker.name if worker is not None else row.worker_id
    if row.phase == Phase.OFFERED:
        message = f"It was offered to the worker '{name}', which has not answered yet."
        return pb.ExplainRunResponse(cause=pb.BLOCKING_CAUSE_OFFERED, message=message, subject=name)
    message = f"The worker '{name}' has taken it and makes ready what it runs in."
    if row.infrastructure_id:
        message = f"The worker '{name}' has started {row.infrastructure_id}, which has not begun with it yet."
    return pb.ExplainRunResponse(cause=pb.BLOCKING_CAUSE_INFRASTRUCTURE, message=message, subject=name)


def _paused(work: Work, run: RunRow) -> Steps[pb.ExplainRunResponse]:
    pair = (run.id, run.state_id or run.id)
    yield from work.load_facts([pair])
    state: State | None = work.current_state(run, work.facts.get(pair))
    message = "It is paused."
    if state is not None and state.paused.input_keyset:
        message = "It is paused and waits for input."
    answer = pb.ExplainRunResponse(
        cause=pb.BLOCKING_CAUSE_PAUSED, message=message, remedy=f"headrace flow-run resume {run.id}"
    )
    if state is not None and state.paused.HasField("timeout_time"):
        answer.until.CopyFrom(state.paused.timeout_time)
    return answer
