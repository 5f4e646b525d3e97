"""Making the runs of schedules: those that are due, and one at will."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from headrace.core.clock import from_micros
from headrace.core.errors import ObjectNotFound
from headrace.core.ids import new_id
from headrace.core.schedules import jitter_of
from headrace.v1.run_pb2 import Run
from headrace_services.domain.schedules import (
    ActiveRun,
    OverlapMode,
    OverlapRule,
    blockers,
    due_fires,
    judge,
    lead_before,
    overlap_rule,
)
from headrace_services.domain.states import SCHEDULED
from headrace_services.storage.command import Command
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.run_commands import shown
from headrace_services.storage.schedule_disabling import disable
from headrace_services.storage.schedule_rows import OverlapWaitRow, Plan, ScheduleRow, plan_of
from headrace_services.storage.scheduled_runs import (
    Wish,
    active_runs,
    add_run,
    cancel_runs,
    deployment_spec,
    enter_scheduled,
    idempotency_key,
    run_id_of,
    template_of,
)
from headrace_services.storage.steps import Steps, breathe
from headrace_services.storage.work import Work

__all__ = [
    "FireSchedules",
    "Fired",
    "ReleaseOverlaps",
    "TriggerSchedule",
    "looks_at_others",
    "owned_schedule",
]

_log = logging.getLogger(__name__)
BATCH_SCHEDULES: Final = 150
"""How many schedules one transaction makes runs for at most."""
_BREATH: Final = 8
"""After so many schedules, or runs, others get a turn."""


class Fired(NamedTuple):
    """What one look at the schedules has brought.

    Attributes:
        schedules: how many were due.
        runs: how many runs were made.
    """

    schedules: int
    runs: int


def _overlap_of(plan: Plan, deployment: DeploymentRow) -> OverlapRule:
    return plan.overlap or overlap_rule(deployment_spec(deployment.spec).overlap) or OverlapRule()


def looks_at_others(plan: Plan, deployment: DeploymentRow) -> bool:
    """Whether other runs decide on those of the schedule: then each is judged, and made, at its instant."""
    is_free = _overlap_of(plan, deployment).mode is OverlapMode.ALLOW
    return not is_free or bool(plan.spec.max_scheduled_runs)


class FireSchedules(Command[Fired]):
    """Runs are made for what is due. Several replicas may ask at once: each claims other schedules.

    Args:
        most: for how many schedules at most, so that no other write waits for long.
        monotonic: a clock, in seconds.

    Attributes:
        began: when its transaction began, by that clock; the last one, when it had to be tried again.
    """

    is_solo = True

    def __init__(self, most: int = BATCH_SCHEDULES, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._monotonic = monotonic
        self.began = monotonic()

    def apply(self, work: Work) -> Steps[Fired]:
        self.began = self._monotonic()
        due = yield from work.rows.find(
            ScheduleRow,
            [("due_time", "<=", work.now)],
            order=["due_time"],  # as the index has them: any tie will do
            limit=self._most,
            lock=Lock.CLAIM,
        )
        yield from work.rows.load(DeploymentRow, [(row.deployment_id,) for row in due], Lock.NONE)
        flow_ids = {d.flow_id for row in due if (d := work.rows.get(DeploymentRow, row.deployment_id))}
        yield from work.load_known(flow_ids - work.known_flows, set())
        batch = _Batch(work)
        for number, row in enumerate(due, 1):
            batch.take(row)
            if number % _BREATH == 0:
                yield from breathe()
        made = yield from batch.make()
        return Fired(len(due), made)


class _Fire(NamedTuple):
    """One fire that gets a run unless it exists, or another one is in the way."""

    schedule: ScheduleRow
    deployment: DeploymentRow
    plan: Plan
    fire: int
    run_id: str


class _Batch:
    """The schedules of one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._fires: list[_Fire] = []

    def take(self, row: ScheduleRow) -> None:
        """Find out what is due of a schedule, and when it is due next."""
        work = self._work
        work.rows.put(row)
        deployment = work.rows.get(DeploymentRow, row.deployment_id)
        if deployment is None or row.is_paused or deployment.is_paused or row.next_fire_time is None:
            row.stop(work.now)
            return
        try:
            plan = plan_of(row.spec)
            looks = looks_at_others(plan, deployment)
            # As long before as was said when the fire was expected.
            lead = 0 if looks or row.due_time is None else row.next_fire_time - row.due_time
            fires = due_fires(plan.timing, row.next_fire_time, work.now, work.now + lead, plan.catch_up)
            template_of(deployment, row)
        except Exception as error:
            # Whatever it is: it would come again with every look, and the others of the batch would wait.
            disable(work, row, error)
            return
        if fires.missed:
            row.missed_fires += fires.missed
            _log.warning("schedule %s: no run was made for %d missed fires", row.label, fires.missed)
        made = fires.made
        if skipped := row.skipped_times:
            made = [at for at in made if at not in skipped]
            self._pass(row, skipped)
        row.last_fire_time = made[-1] if made else row.last_fire_time
        row.expect(fires.next, 0 if looks else lead_before(fires.next, row.last_fire_time))
        self._fires += [_Fire(row, deployment, plan, at, run_id_of(row.id, at)) for at in made]

    def _pass(self, row: ScheduleRow, skipped: Sequence[int]) -> None:
        """Those of the skipped instants that are over are counted, and forgotten."""
        over = [at for at in skipped if at <= self._work.now]
        if over:
            row.skipped_fires += len(over)
            row.last_skip_reason = f"{from_micros(over[-1]):%Y-%m-%dT%H:%M:%SZ}: Somebody said so."
            row.skip(at for at in skipped if at > self._work.now)

    def make(self) -> Steps[int]:
        """Make the runs; how many there are."""
        work = self._work
        yield from work.load_runs([item.run_id for item in self._fires])
        looking = {item.deployment.id for item in self._fires if looks_at_others(item.plan, item.deployment)}
        active = yield from active_runs(work, looking)
        made = 0
        for number, item in enumerate(self._fires, 1):
            if work.runs.get(item.run_id) is None:
                made += yield from self._make(item, active.get(item.deployment.id))
            if number % _BREATH == 0:
                yield from breathe()
        return made

    def _make(self, item: _Fire, active: list[ActiveRun] | None) -> Steps[int]:
        schedule, plan = item.schedule, item.plan
        waits = False
        if active is not None:
            rule = _overlap_of(plan, item.deployment)
            verdict = judge(rule, plan.spec.max_scheduled_runs, schedule.id, active)
            if not verdict.is_made:
                schedule.skipped_fires += 1
                schedule.last_skip_reason = f"{from_micros(item.fire):%Y-%m-%dT%H:%M:%SZ}: {verdict.reason}"
                return 0
            waits = verdict.waits
            yield from cancel_runs(
                self._work, verdict.cancelled, "A later run of its schedule takes its place."
            )
            if waits:
                self._note_wait(item, rule)
        delay = jitter_of(schedule.id, from_micros(item.fire), plan.jitter_seconds)
        wish = Wish(
            item.run_id,
            item.fire + delay // delay.resolution,
            idempotency_key(schedule, item.fire),
            waits=waits,
        )
        run = add_run(self._work, item.deployment, schedule, wish)
        if active is not None:
            active.append(ActiveRun(run.id, SCHEDULED, run.state_name, schedule.id))
        return 1

    def _note_wait(self, item: _Fire, rule: OverlapRule) -> None:
        row = OverlapWaitRow(
            item.run_id,
            *(item.deployment.id, item.schedule.id, rule.per_schedule, rule.include_manual, item.fire),
        )
        self._work.rows.put(row)


class ReleaseOverlaps(Command[int]):
    """Runs that waited for earlier ones to end may start; how many do."""

    is_solo = True

    def apply(self, work: Work) -> Steps[int]:
        waits = yield from work.rows.find(
            OverlapWaitRow,
            (),
            order=["deployment_id", "scheduled_time"],
            limit=BATCH_SCHEDULES,
            lock=Lock.CLAIM,
        )
        active = yield from active_runs(work, {wait.deployment_id for wait in waits})
        released = 0
        for wait in waits:
            runs = active[wait.deployment_id]
            if not any(run.id == wait.run_id and run.waits_for_overlap for run in runs):
                work.rows.delete(wait)  # cancelled, deleted, or started by hand
                continue
            rule = OverlapRule(OverlapMode.QUEUE, 1, wait.per_schedule, wait.include_manual)
            others = [run for run in runs if run.id != wait.run_id]
            in_the_way = [
                run for run in blockers(rule, wait.schedule_id, others) if not run.waits_for_overlap
            ]
            if not in_the_way:
                self._release(work, wait, runs)
                released += 1
        return released

    def _release(self, work: Work, wait: OverlapWaitRow, runs: list[ActiveRun]) -> None:
        run = work.runs[wait.run_id]
        assert run is not None
        scheduled = run.books.next_scheduled_start_time or work.now
        enter_scheduled(work, run, scheduled, "Scheduled")
        work.rows.delete(wait)
        place = next(i for i, other in enumerate(runs) if other.id == run.id)
        runs[place] = runs[place]._replace(name="Scheduled")


def owned_schedule(work: Work, schedule_id: str) -> Steps[tuple[ScheduleRow, DeploymentRow]]:
    """The schedule, locked, and its deployment.

    Raises:
        ObjectNotFound: there is no such schedule.
    """
    id = schedule_id.lower()
    yield from work.rows.load(ScheduleRow, [(id,)])
    row = work.rows.get(ScheduleRow, id)
    if row is None:
        raise ObjectNotFound.of("schedule", schedule_id)
    yield from work.rows.load(DeploymentRow, [(row.deployment_id,)], Lock.NONE)
    deployment = work.rows.get(DeploymentRow, row.deployment_id)
    if deployment is None:
        raise ObjectNotFound.of("schedule", schedule_id)
    yield from work.load_known({deployment.flow_id} - work.known_flows, set())
    return row, deployment


class TriggerSchedule(Command[Run]):
    """One run is made now, with the schedule's parameters. The same request id makes the same run."""

    is_solo = True

    def __init__(self, schedule_id: str, request_id: str, actor: str) -> None:
        super().__init__()
        self._schedule_id = schedule_id
        self._request_id = request_id
        self._actor = actor

    def apply(self, work: Work) -> Steps[Run]:
        schedule, deployment = yield from owned_schedule(work, self._schedule_id)
        key = None
        if self._request_id:
            key = f"triggered {schedule.id} {self._request_id}"
            yield from work.load_keys([(deployment.flow_id, key)])
            known = work.keys.get((deployment.flow_id, key))
            before = None if known is None else work.runs.get(known)
            if before is not None:
                return (yield from shown(work, before))
        by = self._actor or f"trigger:{schedule.label}"
        run = add_run(work, deployment, schedule, Wish(new_id(), work.now, key, by=by))
        return (yield from shown(work, run))
