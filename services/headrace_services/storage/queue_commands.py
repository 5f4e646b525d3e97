"""Commands that keep the queue in motion: runs become due, are late, age, and stop waiting for a limit."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from headrace.core.ids import new_id
from headrace.v1.state_pb2 import (
    STATE_TYPE_CANCELLED,
    STATE_TYPE_SCHEDULED,
    ScheduledDetails,
    State,
)
from headrace_services.domain.claims import RouteKind
from headrace_services.domain.states import SCHEDULED
from headrace_services.storage.command import Command
from headrace_services.storage.dispatch_facts import DispatchFacts
from headrace_services.storage.dispatch_rows import QueuedRunRow, RouteRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.fairness_rows import pair_of
from headrace_services.storage.instants import set_micros
from headrace_services.storage.losing import LIMIT_REACHED, enter
from headrace_services.storage.queueing import Route, give_passes, scope_of, unblock
from headrace_services.storage.rows import RunRow
from headrace_services.storage.steps import Steps, call
from headrace_services.storage.work import Work

__all__ = ["AgeQueue", "MarkLate", "PromoteDue", "Promoted"]

_MOST: Final = 1000
_MOST_DUE: Final = 400
"""Thousands may come due at one instant; other writes, and turns of the event loop, lie between so many."""
_MOST_LATE: Final = 200


class Promoted(NamedTuple):
    """What a look at the queue came to.

    Attributes:
        runs: how many runs have become due, or need not wait for a limit any more.
        is_exhausted: there are no more of them now.
    """

    runs: int
    is_exhausted: bool


class PromoteDue(Command[Promoted]):
    """Runs whose time has come get their turn; runs that wait for a limit that has room, too.

    Args:
        ahead_seconds: how long before its time a worker would take a run.
    """

    def __init__(self, ahead_seconds: float) -> None:
        super().__init__()
        self._ahead = int(ahead_seconds * 1_000_000)

    def apply(self, work: Work) -> Steps[Promoted]:
        rows = work.rows
        due = yield from rows.find(
            QueuedRunRow,
            [("pass_number", "is", None), ("due_time", "<=", work.now + self._ahead)],
            order=["due_time"],
            limit=_MOST_DUE,
            lock=Lock.CLAIM,
        )
        is_exhausted = len(due) < _MOST_DUE
        due = [row for row in due if not work.queueing.has_left(row.run_id)]
        if due:
            ids = sorted({row.route for row in due})
            yield from rows.load(RouteRow, [(id,) for id in ids], Lock.NONE)
            yield from give_passes(work, [(self._scope(work, row), row) for row in due])
            for row in due:
                rows.put(row)
        freed = yield from self._unblock(work)
        if due or freed:
            work.queueing.has_news = True
        return Promoted(len(due) + freed, is_exhausted)

    def _scope(self, work: Work, row: QueuedRunRow) -> str:
        route = work.rows.get(RouteRow, row.route)
        if route is None:
            return json.dumps([int(RouteKind.WORK_POOL), "", ""])
        return scope_of(Route(RouteKind(route.kind), route.subject, route.queue, ""))

    def _unblock(self, work: Work) -> Steps[int]:
        """A limit may have been raised or lifted, or the time of those that were to start is over."""
        blockers: list[str] = yield from work.rows.ask("load_blockers", [QueuedRunRow])
        if not blockers:
            return 0
        pairs = {blocker: pair for blocker in blockers if (pair := pair_of(blocker)) is not None}
        loaded = DispatchFacts(work, ())
        yield from loaded.load_deployments([id for id in blockers if id not in pairs], lock=False)
        if pairs:
            yield from loaded.load_pools({pool for pool, _ in pairs.values()}, lock=False)
            yield from loaded.load_keys(pairs.values(), lock=False)
        freed = 0
        for blocker in blockers:
            if blocker in pairs:
                limit = loaded.facts.keys.get(pairs[blocker])
            else:
                limit = loaded.facts.deployments.get(blocker)
            room = _MOST if limit is None or limit.slots is None else limit.slots - limit.held
            if room > 0:
                freed += yield from unblock(work, blocker, room)
        return freed


class MarkLate(Command[int]):
    """Runs that wait past their time are called late, once."""

    def apply(self, work: Work) -> Steps[int]:
        ids: list[str] = yield from call("load_late", work.now, _MOST_LATE)
        yield from work.load_runs(ids)
        found = (yield from work.rows.find(QueuedRunRow, [("run_id", "in", ids)])) if ids else []
        loaded = DispatchFacts(work, ())
        yield from loaded.load_deployments([row.deployment_id for row in found if row.deployment_id])
        marked = 0
        for row in found:
            run = work.runs.get(row.run_id)
            if run is not None and run.books.type is SCHEDULED and run.state_name == "Scheduled":
                self._mark(work, loaded, run, row)
                marked += 1
            if not work.queueing.has_left(row.run_id):
                row.late_time = None
                work.rows.put(row)
        return marked

    def _mark(self, work: Work, loaded: DispatchFacts, run: RunRow, row: QueuedRunRow) -> None:
        limit = loaded.facts.deployments.get(row.deployment_id or "")
        if limit is not None and limit.is_full and loaded.cancels_new(row.deployment_id or ""):
            enter(
                work,
                run,
                State(id=new_id(), type=STATE_TYPE_CANCELLED, name="Cancelled", message=LIMIT_REACHED),
            )
            return
        state = State(id=new_id(), type=STATE_TYPE_SCHEDULED, name="Late")
        set_micros(state.scheduled.scheduled_time, row.scheduled_time)
        state.scheduled.cause = ScheduledDetails.CAUSE_CREATED
        enter(work, run, state)


class AgeQueue(Command[int]):
    """Runs that have waited for long move up one priority.

    Args:
        interval_seconds: how long is long.
    """

    def __init__(self, interval_seconds: float) -> None:
        super().__init__()
        self._interval = int(interval_seconds * 1_000_000)

    def apply(self, work: Work) -> Steps[int]:
        aged: int = yield from call("age_queue", work.now - self._interval, work.now, _MOST)
        work.rows.has_written |= aged > 0
        return aged
