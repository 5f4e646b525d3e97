"""Who waits for a worker: the one place that puts runs into the queue and takes them out.

A run waits exactly while it is SCHEDULED and nobody's process is going to run it by itself. `Work.enter`
tells every state of a run that may concern workers; what follows is written in the same transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run
from headrace.v1.state_pb2 import State
from headrace_services.domain.books import Books
from headrace_services.domain.claims import RouteKind
from headrace_services.domain.effects import RetryType
from headrace_services.domain.fairness import WEIGHT, next_pass
from headrace_services.domain.schedules import QUEUED
from headrace_services.domain.states import FINAL_TYPES, PAUSED, SCHEDULED
from headrace_services.storage.declared_rows import WorkPoolRow
from headrace_services.storage.dispatch_rows import AttemptRow, PassRow, QueuedRunRow, RouteRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.fairness_rows import FairnessRuleRow
from headrace_services.storage.rows import Requeue, RunRow
from headrace_services.storage.steps import Conflict, Steps

if TYPE_CHECKING:
    from headrace_services.storage.work import Work

__all__ = [
    "LATE_SECONDS",
    "Queueing",
    "Route",
    "encode_labels",
    "give_passes",
    "may_be_dispatched",
    "route_of",
    "scope_of",
]

LATE_SECONDS: Final = 15
"""How long after its time a run that waits is called late."""
_MOST_FREED: Final = 500


class Route(NamedTuple):
    """One kind of line, by what makes it one."""

    kind: RouteKind
    subject: str
    queue: str
    labels: str

    @property
    def id(self) -> int:
        """A hash that says the same in every process."""
        return _route_id(*self)


@lru_cache(maxsize=4096)
def _route_id(kind: int, subject: str, queue: str, labels: str) -> int:
    said = json.dumps([int(kind), subject, queue, labels]).encode()
    return int.from_bytes(hashlib.sha256(said).digest()[:8], "big", signed=True)


def scope_of(route: Route | RouteRow) -> str:
    """The line within which keys take turns: whatever the labels."""
    return json.dumps([int(route.kind), route.subject, route.queue])


def encode_labels(labels: Mapping[str, str]) -> str:
    """Required labels as they are kept."""
    return json.dumps(dict(sorted(labels.items()))) if labels else ""


def may_be_dispatched(run: RunRow) -> bool:
    """Whether workers have to do with the run at all. Cheap, and False for what a program runs itself."""
    return run.owner_id == run.id and (
        run.fence > 1
        or run.work_pool is not None
        or run.deployment_id is not None
        or run.kind != RUN_KIND_FLOW
    )


def route_of(run: RunRow, spec: Run) -> Route | None:
    """The line that the run waits in while it is SCHEDULED; None: none."""
    labels = encode_labels(spec.required_labels)
    if run.kind == RUN_KIND_FLOW:
        if run.work_pool is not None:
            return Route(RouteKind.WORK_POOL, run.work_pool, run.work_queue or "", labels)
        if run.deployment_id is not None:
            return Route(RouteKind.DEPLOYMENT, run.deployment_id, "", labels)
        return None
    if run.body is not None and State.FromString(run.body).scheduled.deferred:
        return Route(RouteKind.TASK, spec.task_key, "", labels)
    return None


class Queueing:
    """What one transaction does to the queue.

    Attributes:
        known_routes: ids of routes that are in the database.
        keyed_scopes: lines in which runs take turns by key, for ever; grows with those that are found.
        new_routes: ids of routes that this transaction adds.
        next_due: the earliest instant at which a run that was queued now is due; None: each is already.
        has_news: somebody may have something to hand out.
        frees_slots: runs that wait for a slot of their deployment or fairness key may have one now.
    """

    def __init__(self, work: Work, known_routes: Collection[int], keyed_scopes: set[str]) -> None:
        self._work = work
        self._queued: dict[str, RunRow] = {}
        self._left: set[str] = set()
        self._ended: dict[str, RunRow] = {}
        self.known_routes = known_routes
        self.keyed_scopes = keyed_scopes
        self.new_routes: set[int] = set()
        self.next_due: int | None = None
        self.has_news = self.frees_slots = False

    def entered(self, run: RunRow, before: Books, name_before: str) -> None:
        """The run has entered a state; `before` are its books before it, in a state of that name."""
        books = run.books
        is_free = run.state_name != QUEUED  # it waits for an earlier run of its deployment to end
        if books.type is SCHEDULED and run.retry_type is not RetryType.IN_PROCESS and is_free:
            if name_before != QUEUED and self._keeps_place(run, before):
                return
            self._queued[run.id] = run
            self._end(run)
            return
        self._queued.pop(run.id, None)
        if before.type is SCHEDULED and run.retry_type is not RetryType.IN_PROCESS:
            self._left.add(run.id)  # what its own process was going to run again was not in the queue
        if books.type in FINAL_TYPES or (books.type is PAUSED and run.recorder_id is None):
            self._end(run)

    def moved(self, run: RunRow, row: QueuedRunRow) -> None:
        """The run, whose place in the queue was the row, waits in another line from now on."""
        run.requeue = Requeue(row.due_time, row.lost_count, row.refusals, row.excluded)
        self._queued[run.id] = run

    def forget(self, run_id: str) -> None:
        """The run is in the queue and does not wait."""
        self._left.add(run_id)

    def has_left(self, run_id: str) -> bool:
        """Whether the run was taken out of the queue in this transaction."""
        return run_id in self._left

    def _keeps_place(self, run: RunRow, before: Books) -> bool:
        """Whether only the name of its state changes."""
        return (
            before.type is SCHEDULED
            and run.requeue is None
            and run.stored_version is not None
            and run.id not in self._left
            and before.next_scheduled_start_time == run.books.next_scheduled_start_time
        )

    def _end(self, run: RunRow) -> None:
        """Nobody holds the run any more."""
        if run.fence > 1:
            self._ended[run.id] = run

    def flush(self) -> Steps[None]:
        """Write it."""
        if self._ended:
            self.has_news = True
            self.frees_slots = any(run.deployment_id or _has_key(run) for run in self._ended.values())
            self._work.writes.ended_attempts.extend(sorted(self._ended))
            self._work.rows.discard(AttemptRow, [(id,) for id in self._ended])
        gone = self._left | {run.id for run in self._queued.values() if run.stored_version is not None}
        self._work.rows.discard(QueuedRunRow, [(id,) for id in gone])
        queued = (yield from self._insert()) if self._queued else set[str]()
        self._work.writes.unqueued.extend(sorted(gone - queued))

    def _insert(self) -> Steps[set[str]]:
        """Queue the runs that have a line; their ids."""
        routes: dict[str, Route] = {}
        fresh: list[QueuedRunRow] = []
        for run in self._queued.values():
            spec = Run.FromString(run.spec)
            route = route_of(run, spec)
            if route is None:
                continue
            routes[run.id] = route
            fresh.append(_queued_row(self._work.now, run, spec, route))
        yield from self._add_routes(routes.values())
        due = [row for row in fresh if row.due_time <= self._work.now]
        yield from give_passes(self._work, [(scope_of(routes[row.run_id]), row) for row in due])
        for row in fresh:
            self._work.rows.put(row)
        if fresh:
            self.has_news = True
            self.next_due = min((row.due_time for row in fresh if row.pass_number is None), default=None)
        return set(routes)

    def _add_routes(self, routes: Iterable[Route]) -> Steps[None]:
        unknown = {route.id: route for route in routes if route.id not in self.known_routes}
        if not unknown:
            return
        rows = self._work.rows
        yield from rows.load(RouteRow, [(id,) for id in unknown], Lock.NONE)
        for id, route in sorted(unknown.items()):
            if rows.get(RouteRow, id) is None:
                rows.put(RouteRow(id, int(route.kind), route.subject, route.queue, route.labels))
        self.new_routes |= unknown.keys()


def _has_key(run: RunRow) -> bool:
    return run.work_pool is not None and bool(Run.FromString(run.spec).fairness_key)


def _queued_row(now: int, run: RunRow, spec: Run, route: Route) -> QueuedRunRow:
    scheduled = run.books.next_scheduled_start_time or now
    kept = run.requeue or Requeue(scheduled)
    is_plain = run.state_name == "Scheduled" and run.kind == RUN_KIND_FLOW
    return QueuedRunRow(
        run_id=run.id,
        route=route.id,
        deployment_id=run.deployment_id,
        priority=spec.priority,
        pass_number=None,
        due_time=max(scheduled, kept.due_time),
        scheduled_time=scheduled,
        aged_time=max(scheduled, now),
        fairness_key=spec.fairness_key,
        blocked_by=None,
        late_time=scheduled + LATE_SECONDS * 1_000_000 if is_plain else None,
        lost_count=kept.lost_count,
        refusals=kept.refusals,
        excluded=kept.excluded,
    )


def give_passes(work: Work, due: Iterable[tuple[str, QueuedRunRow]]) -> Steps[None]:
    """Give each of the rows, which are due, its turn within its scope.

    While nobody uses keys in a scope there is nothing to remember of it: first come, first served.

    Raises:
        Conflict: somebody does, and the transaction locks nothing.
    """
    listed = list(due)
    scopes = {scope for scope, _ in listed}
    if not scopes:
        return
    known = work.queueing.keyed_scopes
    keyed = {scope for scope, row in listed if row.fairness_key} | known & scopes
    if work.is_optimistic:
        if keyed:
            raise Conflict
        work.writes.unkeyed.extend(sorted(scopes))
    elif scopes - keyed:
        found = yield from work.rows.find(PassRow, [("name", "in", sorted(scopes - keyed))], lock=Lock.NONE)
        keyed |= {row.name for row in found}
    known |= keyed
    if keyed:
        names = {_pass_name(scope, row.fairness_key) for scope, row in listed if scope in keyed}
        yield from work.rows.load(PassRow, [(name,) for name in names | keyed])
        yield from _note_keys(work, {(scope, row.fairness_key) for scope, row in listed if scope in keyed})
    for scope, row in listed:
        row.pass_number = _next(work, scope, row.fairness_key) if scope in keyed else 0


def _note_keys(work: Work, pairs: Iterable[tuple[str, str]]) -> Steps[None]:
    """Make the rows of keys that are the first of their kind in a line, with the weights of their rules."""
    new = [(s, key) for s, key in sorted(pairs) if work.rows.get(PassRow, _pass_name(s, key)) is None]
    pools = {scope: subject for scope, _ in new if (subject := _pool_of(scope)) is not None}
    weights: dict[tuple[str, str], int] = {}
    keys = sorted({key for scope, key in new if key and scope in pools})
    if keys:
        names = sorted(set(pools.values()))
        # Whoever sets a rule has locked the pool: either the rule is found here, or the key is found there.
        yield from work.rows.find(WorkPoolRow, [("name", "in", names)], lock=Lock.KEEP)
        where = [("work_pool", "in", names), ("fairness_key", "in", keys)]
        for rule in (yield from work.rows.find(FairnessRuleRow, where, lock=Lock.NONE)):
            weights[rule.work_pool, rule.fairness_key] = rule.weight
    for scope, key in new:
        weight = weights.get((pools.get(scope, ""), key), WEIGHT)
        work.rows.put(PassRow(_pass_name(scope, key), scope, 0, weight))


def _pool_of(scope: str) -> str | None:
    """The name of the work pool that the line is of; None: it is of something else."""
    kind, subject, _ = json.loads(scope)
    return subject if kind == RouteKind.WORK_POOL else None


def _pass_name(scope: str, key: str) -> str:
    return f"{scope}\t{key}"


def _next(work: Work, scope: str, key: str) -> int:
    line, name = _pass(work, scope, scope), _pass_name(scope, key)
    own = _pass(work, scope, name)
    own.pass_number = next_pass(line.pass_number, own.pass_number, own.weight)
    work.rows.put(own)
    return own.pass_number


def _pass(work: Work, scope: str, name: str) -> PassRow:
    row = work.rows.get(PassRow, name)
    if row is None:
        row = PassRow(name, scope, 0)
        work.rows.put(row)
    return row


def unblock(work: Work, blocker: str, count: int) -> Steps[int]:
    """Let the first `count` runs that wait for a slot of the deployment or key take their turn again."""
    blocked = yield from work.rows.find(
        QueuedRunRow,
        [("blocked_by", "=", blocker)],
        order=["due_time", "run_id"],
        limit=min(count, _MOST_FREED),
        lock=Lock.CLAIM,
    )
    for row in blocked:
        row.blocked_by = None
        work.rows.put(row)
    return len(blocked)
