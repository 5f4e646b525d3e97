"""Going on with backfills: a bounded step each time, all that it does in one transaction.

What a backfill has come to is in its row, and each instant that it has come to has a row of its own, both
written with the runs themselves. So a server may die at any point, and any number of them may ask at once:
the next step begins where the last one that was committed has ended.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from headrace.core.ids import new_id
from headrace.core.schedules import ScheduleInvalid
from headrace.v1.backfill_pb2 import (
    BACKFILL_ACTION_LEAVE,
    BACKFILL_ACTION_MAKE,
    BACKFILL_ACTION_RERUN,
    BACKFILL_STATE_CANCELLED,
    BACKFILL_STATE_CANCELLING,
    BACKFILL_STATE_COMPLETED,
    BACKFILL_STATE_FAILED,
    BACKFILL_STATE_RUNNING,
    Backfill,
    BackfillAction,
    BackfillState,
)
from headrace.v1.run_pb2 import Run
from headrace.v1.state_pb2 import STATE_TYPE_SCHEDULED, ScheduledDetails, State
from headrace_services.domain.backfills import action_of, count_action, count_outcome, filled, take_fires
from headrace_services.domain.effects import RetryType
from headrace_services.domain.states import FINAL_TYPES, SCHEDULED
from headrace_services.storage.backfill_rows import BackfillRow, BackfillRunRow, KeptSchedule, is_newest_first
from headrace_services.storage.command import Command
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.instants import set_micros
from headrace_services.storage.rerunning import run_again
from headrace_services.storage.rows import RunRow
from headrace_services.storage.schedule_rows import Plan, ScheduleRow, json_object, plan_of
from headrace_services.storage.scheduled_runs import (
    Wish,
    add_run,
    cancel_runs,
    idempotency_key,
    run_id_of,
)
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["STEP_RUNS", "AdvanceBackfill", "Progress", "advance"]

STEP_RUNS: Final = 100
"""How many instants one transaction comes to, so that no other write waits for long."""
_CANCELLED: Final = "Its backfill was cancelled."


class AdvanceBackfill(Command[bool]):
    """One step of a backfill. Several servers may ask at once: one of them takes it.

    Args:
        backfill_id: of the backfill.
        news: ids of runs of it that seem to have ended, or that are to be cancelled before they start.

    Answers whether there was a step to take.
    """

    is_solo = True

    def __init__(self, backfill_id: str, news: Sequence[str]) -> None:
        super().__init__()
        self._id = backfill_id
        self._news = news

    def apply(self, work: Work) -> Steps[bool]:
        row = yield from work.rows.one(BackfillRow, [("id", "=", self._id)], Lock.CLAIM)
        if row is None or not row.is_live or not (row.is_ready or self._news):
            return False
        progress = Progress(work, row)
        if self._news:
            yield from progress.hear(self._news)
        yield from advance(progress, STEP_RUNS)
        return True


def advance(progress: Progress, most: int) -> Steps[None]:
    """Come to at most `most` instants more, if the backfill may, and note what it has come to."""
    if progress.row.state == BACKFILL_STATE_RUNNING:
        yield from progress.make(most)
    progress.save()


class Progress:
    """A backfill within one transaction.

    Args:
        work: the rows at hand.
        row: of the backfill, claimed or new.
    """

    def __init__(self, work: Work, row: BackfillRow) -> None:
        self._work = work
        self.row = row
        self._said = Backfill.FromString(row.spec)
        label = self._said.schedule_slug or row.schedule_id
        self._schedule = KeptSchedule(row.schedule_id, row.deployment_id, label, row.schedule_spec)

    # What has become of its runs

    def hear(self, run_ids: Collection[str]) -> Steps[None]:
        """Note the ends of those of the runs that have ended; of a cancelled backfill, end the others."""
        where = [("backfill_id", "=", self.row.id), ("run_id", "in", sorted(run_ids)), ("is_open", "=", True)]
        rows = yield from self._work.rows.find(BackfillRunRow, where)
        yield from self._work.load_runs([row.run_id for row in rows])
        unstarted: list[str] = []
        for row in rows:
            run = self._work.runs.get(row.run_id)
            if run is None or run.books.type in FINAL_TYPES:
                self._close(row, run)
            elif run.books.type is SCHEDULED and run.retry_type is not RetryType.IN_PROCESS:
                unstarted.append(run.id)
        if self.row.state == BACKFILL_STATE_CANCELLING:
            yield from cancel_runs(self._work, unstarted, _CANCELLED)

    def _close(self, row: BackfillRunRow, run: RunRow | None) -> None:
        outcome = None if run is None else run.books.type
        row.is_open = False
        row.outcome = None if outcome is None else outcome.number
        self._work.rows.put(row)
        count_outcome(self._said.counts, outcome)

    # The instants that come next

    def make(self, most: int) -> Steps[None]:
        """Come to the next instants, as far as the limit allows."""
        count = min(self._said.limit - self._said.counts.unfinished, most)
        if count <= 0:
            return
        deployment = yield from self._deployment()
        if deployment is None:
            self._end(BACKFILL_STATE_FAILED, "Its deployment was deleted.")
            return
        try:
            plan = plan_of(self.row.schedule_spec)
            fires, rest = self._take(plan, count)
        except ScheduleInvalid as error:
            self._end(BACKFILL_STATE_FAILED, f"Its schedule can be followed no more: {error}.")
            return
        for fire, action in (yield from self._actions(fires)):
            done = yield from self._act(deployment, fire, action)
            self._note(fire, done)
        self.row.rest = rest

    def foresee(self, most: int) -> Steps[list[BackfillRunRow]]:
        """What would become of the next instants, at most `most`. Nothing is done."""
        fires, _ = self._take(plan_of(self.row.schedule_spec), most)
        actions = yield from self._actions(fires)
        return [self._run_row(fire, action) for fire, action in actions]

    def _take(self, plan: Plan, count: int) -> Any:
        return take_fires(plan.timing, self.row.rest, count, newest=is_newest_first(self._said))

    def _deployment(self) -> Steps[DeploymentRow | None]:
        work, row = self._work, self.row
        yield from work.rows.load(DeploymentRow, [(row.deployment_id,)], Lock.NONE)
        # While it is locked, no server makes a run of the same instants for their being due.
        yield from work.rows.load(ScheduleRow, [(row.schedule_id,)])
        deployment = work.rows.get(DeploymentRow, row.deployment_id)
        if deployment is not None:
            yield from work.load_known({deployment.flow_id} - work.known_flows, set())
        return deployment

    def _actions(self, fires: Sequence[int]) -> Steps[list[tuple[int, BackfillAction.ValueType]]]:
        ids = [run_id_of(self.row.schedule_id, fire) for fire in fires]
        yield from self._work.load_runs(ids)
        runs = [self._work.runs.get(id) for id in ids]
        types = [None if run is None else run.books.type for run in runs]
        return [(fire, action_of(type, self._said.rerun)) for fire, type in zip(fires, types, strict=True)]

    def _act(
        self, deployment: DeploymentRow, fire: int, action: BackfillAction.ValueType
    ) -> Steps[BackfillAction.ValueType]:
        if action == BACKFILL_ACTION_MAKE:
            add_run(self._work, deployment, self._schedule, self._wish(fire))
        elif action == BACKFILL_ACTION_RERUN:
            run = self._work.runs[run_id_of(self.row.schedule_id, fire)]
            assert run is not None
            if not (yield from self._rerun(run)):
                return BACKFILL_ACTION_LEAVE
        return action

    def _wish(self, fire: int) -> Wish:
        said = self._said
        return Wish(
            run_id_of(self.row.schedule_id, fire),
            fire,
            idempotency_key(self._schedule, fire),
            filled(json_object(said.parameters, "parameters"), fire),
            said.priority,
            by=said.created_by or f"backfill:{self._schedule.label}",
            backfill_id=said.id,
        )

    def _rerun(self, run: RunRow) -> Steps[bool]:
        before = run.spec, run.writes_spec
        spec = Run.FromString(run.spec)
        spec.priority, spec.backfill_id = self._said.priority, self._said.id
        run.spec, run.writes_spec = spec.SerializeToString(), True
        state = State(id=new_id(), type=STATE_TYPE_SCHEDULED, name="AwaitingRetry")
        set_micros(state.event_time, self._work.now)
        set_micros(state.scheduled.scheduled_time, self._work.now)
        state.scheduled.cause = ScheduledDetails.CAUSE_RETRY
        yield from run_again(self._work, run, state)
        if run.books.type in FINAL_TYPES:  # the rules are against it
            run.spec, run.writes_spec = before
            return False
        return True

    def _note(self, fire: int, action: BackfillAction.ValueType) -> None:
        self._work.rows.put(self._run_row(fire, action))
        count_action(self._said.counts, action)

    def _run_row(self, fire: int, action: BackfillAction.ValueType) -> BackfillRunRow:
        is_open = action != BACKFILL_ACTION_LEAVE
        return BackfillRunRow(self.row.id, fire, run_id_of(self.row.schedule_id, fire), action, is_open, None)

    # Where it stands

    def turn(self, state: BackfillState.ValueType) -> None:
        """The backfill is in the state from now on, or has ended if nothing is left to wait for."""
        self.row.state = state
        self.save()

    def _end(self, state: BackfillState.ValueType, reason: str = "") -> None:
        self.row.state, self.row.end_time = state, self._work.now
        self._said.reason = reason

    def save(self) -> None:
        """Write what the backfill has come to."""
        row, unfinished = self.row, self._said.counts.unfinished
        if not unfinished and row.state == BACKFILL_STATE_CANCELLING:
            self._end(BACKFILL_STATE_CANCELLED)
        elif not unfinished and row.state == BACKFILL_STATE_RUNNING and row.rest.is_empty:
            self._end(BACKFILL_STATE_COMPLETED)
        has_more = unfinished < self._said.limit and not row.rest.is_empty
        row.is_ready = row.state == BACKFILL_STATE_RUNNING and has_more
        row.update_time = self._work.now
        row.spec = self._said.SerializeToString()
        self._work.rows.put(row)
