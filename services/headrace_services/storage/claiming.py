"""The claim: waiting runs are handed to workers, durably, before a word of it is sent."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace.core.ids import new_id
from headrace.v1.deployment_pb2 import Deployment, DeploymentVersion
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_UNSPECIFIED, Run
from headrace.v1.state_pb2 import (
    STATE_TYPE_CANCELLED,
    STATE_TYPE_PENDING,
    STATE_TYPE_SCHEDULED,
    ScheduledDetails,
    State,
)
from headrace_services.domain.attempt_rules import Phase
from headrace_services.domain.claims import Candidate, Choice, Obstacle, Offer, RouteKind, choose, satisfies
from headrace_services.domain.states import SCHEDULED
from headrace_services.storage.command import Command
from headrace_services.storage.declared_rows import DeploymentVersionRow
from headrace_services.storage.dispatch_facts import DispatchFacts
from headrace_services.storage.dispatch_lines import LINES, Lines
from headrace_services.storage.dispatch_rows import AttemptRow, QueuedRunRow, RouteRow, SessionRow, why_over
from headrace_services.storage.dispatch_stores import Waiting
from headrace_services.storage.entities import Lock
from headrace_services.storage.fairness_rows import blocker_of
from headrace_services.storage.instants import set_micros
from headrace_services.storage.losing import LIMIT_REACHED, enter
from headrace_services.storage.queueing import Route, scope_of
from headrace_services.storage.rows import RunRow
from headrace_services.storage.run_codec import run_message
from headrace_services.storage.steps import Steps, call
from headrace_services.storage.work import Work, run_from_row

__all__ = ["Claim", "Claimed", "Claims", "StreamOffer", "candidate_of", "decode_map", "versions_of"]

_MOST: Final = 256
_AHEAD: Final = 32
_BLOCKING: Final = (Obstacle.DEPLOYMENT_LIMIT, Obstacle.FAIRNESS_KEY_LIMIT)
_random: Final = random.Random()


@dataclass(frozen=True, slots=True)
class StreamOffer:
    """What a stream can take: an offer, and the epoch that it is good for."""

    offer: Offer
    epoch: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """One run that was handed out.

    Attributes:
        session_id: who gets it.
        assignment_id: of the offer.
        run: view FULL, in its new attempt.
        deployment: the version of it that the run was made with; None: it has none.
        start_time: not before, microseconds.
        on_lost: what is done when the attempt is lost, the wire's number.
        infrastructure_id: what it runs in already; empty: it is to be started.
    """

    session_id: str
    assignment_id: str
    run: Run
    deployment: Deployment | None
    start_time: int
    on_lost: int
    infrastructure_id: str = ""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a claim came to.

    Attributes:
        claimed: the runs that were handed out.
        over: sessions and epochs whose stream may not go on, and why.
        is_exhausted: there was nothing more to hand out to these offers.
        is_dry: all that waits in the lines that are open to them has been handed out.
        blocked: how many runs will be passed over from now on, because a limit is full.
    """

    claimed: Sequence[Claimed]
    over: Sequence[tuple[str, int, str]]
    is_exhausted: bool
    is_dry: bool
    blocked: int = 0


class Claim(Command[Claims]):
    """Workers have room."""

    def __init__(self, offers: Sequence[StreamOffer], *, is_optimistic: bool = False) -> None:
        super().__init__()
        self.is_optimistic = is_optimistic
        self._offers = offers
        self._tries = 0
        self.weight = min(sum(item.offer.credit for item in offers), _MOST)

    @property
    def has_lost(self) -> bool:
        """Whether it went by what was read without locks, and could not: of a limit, or of a rival."""
        return self.is_optimistic and self._tries > 1

    def apply(self, work: Work) -> Steps[Claims]:
        self._tries += 1
        lines = yield from self._lines(work)
        offers, over = self._living(lines.sessions)
        if not offers:
            return Claims((), over, True, False)
        loaded = DispatchFacts(work, offers)
        yield from loaded.take_pools(lines.pools, lines.queues)
        routes = {row.id: row for row in lines.routes if _is_open(row, RouteKind(row.kind), loaded)}
        if not routes:
            return Claims((), over, True, False)
        most = min(sum(offer.credit for offer in offers), _MOST)
        if loaded.limited_pools:  # a key may be at its limit, and what waits behind its runs is to be seen
            most = min(most + _AHEAD, _MOST)
        lock = not work.is_optimistic
        waiting: list[Waiting] = yield from call("load_candidates", sorted(routes), most, lock)
        by_id = {row.queued.run_id: row for row in waiting if not work.queueing.has_left(row.queued.run_id)}
        yield from loaded.load_deployments(
            w.queued.deployment_id for w in by_id.values() if w.queued.deployment_id
        )
        yield from loaded.load_keys(_keys(by_id.values(), routes))
        candidates = [candidate_of(row.queued, routes[row.queued.route], loaded) for row in by_id.values()]
        choices = choose(candidates, loaded.facts, _random)
        runs = {id: _take(work, row) for id, row in by_id.items()}
        versions = yield from versions_of(
            work, [runs[c.candidate.run_id] for c in choices if c.offer is not None]
        )
        claimed = [
            made
            for choice in choices
            if (made := _apply(work, loaded, choice, by_id, runs, versions)) is not None
        ]
        _move_passes(work, claimed, by_id, routes)
        is_exhausted = len(waiting) < most
        is_dry = is_exhausted and len(claimed) == len(waiting)
        blocked = sum(choice.obstacle in _BLOCKING for choice in choices)
        return Claims(claimed, over, is_exhausted, is_dry, blocked)

    def _lines(self, work: Work) -> Steps[Lines]:
        """The sessions, and the lines that they take from."""
        offers = [item.offer for item in self._offers]
        sessions = sorted({offer.session_id for offer in offers})
        subjects = sorted({(int(offer.kind), subject) for offer in offers for subject in offer.subjects})
        pools = [subject for kind, subject in subjects if kind == RouteKind.WORK_POOL]
        lines: Lines = yield from work.rows.read("load_lines", LINES, sessions, pools, subjects)
        return lines

    def _living(self, rows: Sequence[SessionRow]) -> tuple[list[Offer], list[tuple[str, int, str]]]:
        """Copies of the offers whose session is alive in that epoch; the others, and what is wrong."""
        found = {row.id: row for row in rows}
        living: list[Offer] = []
        over: list[tuple[str, int, str]] = []
        for item in self._offers:
            offer, row = item.offer, found.get(item.offer.session_id)
            if row is None or row.epoch != item.epoch or row.expires_at is None:
                over.append((offer.session_id, item.epoch, why_over(row.epoch if row else None, item.epoch)))
                continue
            living.append(
                Offer(
                    *(offer.session_id, offer.worker_id, offer.kind, offer.subjects, offer.queues),
                    *(offer.labels, offer.credit, offer.prefetch),
                )
            )
        return living, over


def _keys(waiting: Iterable[Waiting], routes: Mapping[int, RouteRow]) -> Iterator[tuple[str, str]]:
    """Of the runs that wait in pools: the pool, and the fairness key."""
    for row in waiting:
        route = routes[row.queued.route]
        if route.kind == RouteKind.WORK_POOL:
            yield route.subject, row.queued.fairness_key


def _is_open(route: RouteRow, kind: RouteKind, loaded: DispatchFacts) -> bool:
    """Whether there may be a taker for the line, and neither pause nor limit closes it."""
    facts = loaded.facts
    queue = loaded.queue_name(kind, route.subject, route.queue)
    if kind is RouteKind.WORK_POOL:
        pool, line = facts.pools.get(route.subject), facts.queues.get((route.subject, queue))
        if pool is None or pool.is_paused or pool.limit.is_full:
            return False
        if line is not None and (line.is_paused or line.limit.is_full):
            return False
    labels = decode_map(route.labels)
    return any(
        offer.kind is kind
        and route.subject in offer.subjects
        and (not offer.queues or queue in offer.queues)
        and satisfies(offer.labels, labels)
        for offer in facts.offers
    )


def decode_map(text: str | None) -> dict[str, Any]:
    """A JSON object as it is kept; nothing: an empty one."""
    return json.loads(text) if text else {}


def candidate_of(row: QueuedRunRow, route: RouteRow, loaded: DispatchFacts) -> Candidate:
    """The waiting run as the rules see it."""
    kind = RouteKind(route.kind)
    return Candidate(
        run_id=row.run_id,
        kind=kind,
        subject=route.subject,
        queue=loaded.queue_name(kind, route.subject, route.queue),
        labels=decode_map(route.labels),
        due_time=row.due_time,
        priority=row.priority,
        passed=row.pass_number or 0,
        deployment_id=row.deployment_id or "",
        excluded=decode_map(row.excluded),
        fairness_key=row.fairness_key,
    )


def _take(work: Work, row: Waiting) -> RunRow:
    """The run, as this transaction knows it."""
    run = work.runs.get(row.queued.run_id)
    if run is None:
        run = work.runs[row.queued.run_id] = run_from_row(row.run)
    if run.full_spec is None:
        run.full_spec = row.full_spec
    return run


def versions_of(work: Work, runs: Sequence[RunRow]) -> Steps[dict[str, Deployment]]:
    """By run id, what its deployment was when it was made."""
    ids = {run.id: Run.FromString(run.spec).deployment_version_id for run in runs if run.deployment_id}
    wanted = sorted(set(ids.values()) - {""})
    if not wanted:
        return {}
    rows = yield from work.rows.find(DeploymentVersionRow, [("id", "in", wanted)], lock=Lock.NONE)
    versions = {row.id: DeploymentVersion.FromString(row.body).deployment for row in rows}
    return {run_id: versions[id] for run_id, id in ids.items() if id in versions}


def _apply(
    work: Work,
    loaded: DispatchFacts,
    choice: Choice,
    waiting: Mapping[str, Waiting],
    runs: Mapping[str, RunRow],
    versions: Mapping[str, Deployment],
) -> Claimed | None:
    """Write what was chosen for one run."""
    candidate = choice.candidate
    row, run = waiting[candidate.run_id].queued, runs[candidate.run_id]
    if run.books.type is not SCHEDULED:
        work.queueing.forget(run.id)
        return None
    if candidate.deployment_id and candidate.deployment_id not in loaded.deployments:
        _cancel(work, run, "The deployment of the run was deleted.")
    elif choice.offer is not None:
        attempt = _attempt(loaded, candidate, row, run, choice.offer, versions.get(run.id))
        return _hand_out(work, run, attempt, choice.offer, versions.get(run.id))
    elif choice.obstacle is Obstacle.DEPLOYMENT_LIMIT:
        if loaded.cancels_new(candidate.deployment_id):
            _cancel(work, run, LIMIT_REACHED)
        else:
            _block(work, run, row)
    elif choice.obstacle is Obstacle.FAIRNESS_KEY_LIMIT:
        row.blocked_by = blocker_of(candidate.subject, candidate.fairness_key)
        work.rows.put(row)
    return None


def _attempt(
    loaded: DispatchFacts,
    candidate: Candidate,
    row: QueuedRunRow,
    run: RunRow,
    offer: Offer,
    deployment: Deployment | None,
) -> AttemptRow:
    policy = Run.FromString(run.spec).retry_policy
    on_lost, max_lost = policy.on_lost, policy.max_lost_attempts
    if on_lost == LOST_ATTEMPT_POLICY_UNSPECIFIED and deployment is not None:
        on_lost, max_lost = deployment.on_lost, deployment.max_lost_attempts
    return AttemptRow(
        run_id=run.id,
        attempt=run.attempt,
        fence=run.fence + 1,
        assignment_id=new_id(),
        session_id=offer.session_id,
        worker_id=offer.worker_id,
        kind=int(candidate.kind),
        subject=candidate.subject,
        queue=candidate.queue,
        deployment_id=run.deployment_id,
        phase=int(Phase.OFFERED),
        offer_time=loaded.facts.now,
        slot_expire_time=loaded.slot_expire_time(candidate.deployment_id),
        infrastructure_id="",
        on_lost=on_lost,
        max_lost=max_lost,
        lost_count=row.lost_count,
        refusals=row.refusals,
        excluded=row.excluded,
        fairness_key=candidate.fairness_key,
    )


def _hand_out(
    work: Work, run: RunRow, attempt: AttemptRow, offer: Offer, deployment: Deployment | None
) -> Claimed:
    scheduled = run.books.next_scheduled_start_time or work.now
    run.fence = attempt.fence
    state = State(id=new_id(), type=STATE_TYPE_PENDING, name="Pending")
    state.pending.worker_id = offer.worker_id
    set_micros(state.pending.scheduled_time, scheduled)
    enter(work, run, state)
    work.rows.put(attempt)
    shown = run_message(run, run.body, work.now, full=True)
    start = max(scheduled, work.now)
    return Claimed(offer.session_id, attempt.assignment_id, shown, deployment, start, attempt.on_lost)


def _cancel(work: Work, run: RunRow, reason: str) -> None:
    enter(work, run, State(id=new_id(), type=STATE_TYPE_CANCELLED, name="Cancelled", message=reason))


def _block(work: Work, run: RunRow, row: QueuedRunRow) -> None:
    """The run waits for a slot of its deployment: it is passed over until one is free."""
    row.blocked_by = run.deployment_id
    work.rows.put(row)
    if run.state_name == "AwaitingConcurrencySlot":
        return
    state = State(id=new_id(), type=STATE_TYPE_SCHEDULED, name="AwaitingConcurrencySlot")
    set_micros(state.scheduled.scheduled_time, row.scheduled_time)
    state.scheduled.cause = ScheduledDetails.CAUSE_AWAITING_CONCURRENCY
    enter(work, run, state)


def _move_passes(
    work: Work, claimed: Sequence[Claimed], waiting: Mapping[str, Waiting], routes: Mapping[int, RouteRow]
) -> None:
    """Note how far the lines have come in which runs take turns by key."""
    passes = work.writes.passes
    for item in claimed:
        row = waiting[item.run.id].queued
        if row.pass_number:
            route = routes[row.route]
            scope = scope_of(Route(RouteKind(route.kind), route.subject, route.queue, ""))
            passes[scope] = max(passes.get(scope, 0), row.pass_number)
