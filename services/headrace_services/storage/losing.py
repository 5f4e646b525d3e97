"""Runs whose process, worker or offer is gone: the one place that ends them or queues them again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from headrace.core.ids import new_id
from headrace.core.states import StateType, default_name
from headrace.v1.run_pb2 import RUN_KIND_TASK
from headrace.v1.state_pb2 import STATE_TYPE_SCHEDULED, CrashedDetails, ScheduledDetails, State
from headrace_services.domain.attempt_rules import (
    Fate,
    LossCause,
    LostPolicy,
    Outcome,
    Phase,
    outcome,
)
from headrace_services.domain.books import keep_books
from headrace_services.domain.effects import RetryType
from headrace_services.domain.states import (
    CANCELLED,
    CANCELLING,
    CRASHED,
    FINAL_TYPES,
    PAUSED,
    PENDING,
    SCHEDULED,
)
from headrace_services.storage import steps
from headrace_services.storage.dispatch_rows import AttemptRow
from headrace_services.storage.instants import micros, set_micros
from headrace_services.storage.rows import Requeue, RunRow
from headrace_services.storage.steps import Steps
from headrace_services.storage.teardowns import order_teardown
from headrace_services.storage.work import Work

__all__ = [
    "EXCLUDED_SECONDS",
    "GIVEN_UP",
    "LIMIT_REACHED",
    "Loss",
    "end_run",
    "enter",
    "lose",
    "was_given_up",
]

LIMIT_REACHED: Final = "The concurrency limit of the deployment is reached."
GIVEN_UP: Final = "The run was given up: nobody had heard of its process for too long."
EXCLUDED_SECONDS: Final = 60
"""How long a worker that refused a run does not get it."""
_FOR_EVER: Final = 1 << 60
_LEAVE_SOMETHING: Final = {LossCause.SILENT, LossCause.NOT_HELD}
"""Nobody says that the infrastructure is gone."""
_TRIES: Final = {LossCause.REFUSED, LossCause.NO_REPLY}


@dataclass(frozen=True, slots=True)
class Loss:
    """Why an attempt is over.

    Attributes:
        cause: for the rules.
        message: for people; a sentence, of the run's next state.
        crash_cause: for machines, if the run crashes.
        exit_code: of the process.
        is_presumed: the process may still live, and its own word replaces a crash.
        retry_seconds: a worker that refused says how long to wait.
        not_this_worker: it wants never to be asked again.
    """

    cause: LossCause
    message: str
    crash_cause: CrashedDetails.Cause.ValueType = CrashedDetails.CAUSE_LEASE_EXPIRED
    exit_code: int | None = None
    is_presumed: bool = False
    retry_seconds: float = 0.0
    not_this_worker: bool = False


def lose(work: Work, row: AttemptRow, loss: Loss) -> Steps[Fate]:
    """The attempt is over, and everybody who held it is gone. Its run is loaded."""
    run = work.runs.get(row.run_id)
    if run is None or run.fence != row.fence:
        work.rows.delete(row)
        return Fate.NOTHING
    is_refusal = loss.cause is LossCause.REFUSED
    decided = outcome(
        loss.cause,
        run.books.type,
        Phase(row.phase),
        LostPolicy(row.on_lost),
        lost_before=row.lost_count,
        max_lost=row.max_lost,
        refusals=row.refusals + is_refusal,
        exit_code=loss.exit_code,
    )
    if decided.fate is Fate.NOTHING:
        return decided.fate
    if loss.cause in _LEAVE_SOMETHING:
        yield from order_teardown(work, row)
    yield from _end_below(work, run, loss)
    if decided.fate is Fate.REQUEUE:
        yield from _requeue(work, row, run, loss, decided)
    else:
        end_run(work, run, loss.message, loss.crash_cause, loss.is_presumed, loss.exit_code)
    return decided.fate


def _end_below(work: Work, run: RunRow, loss: Loss) -> Steps[None]:
    """End what the attempt's process was executing below the run, children first."""
    if run.recorder_id is None:
        return
    ids = [row[0] for row in (yield from steps.load_unfinished(run.recorder_id))]
    yield from work.load_runs(ids)
    for id in ids:  # newest first
        child = work.runs.get(id)
        if child is not None and child.id != run.id and child.owner_id == run.id:
            end_run(work, child, loss.message, loss.crash_cause, loss.is_presumed)


def _requeue(work: Work, row: AttemptRow, run: RunRow, loss: Loss, decided: Outcome) -> Steps[None]:
    is_try = loss.cause in _TRIES or (loss.cause is LossCause.RELEASED and row.phase == Phase.OFFERED)
    due = work.now + int((loss.retry_seconds if is_try else decided.delay_seconds) * 1_000_000)
    scheduled = yield from _scheduled_time(work, run)
    yield from _forget_pause(work, run)
    run.requeue = Requeue(
        max(due, scheduled),
        row.lost_count + decided.counts_lost,
        row.refusals + (loss.cause is LossCause.REFUSED),
        _excluded(work, row, loss),
    )
    run.fence += 1
    run.attempt += decided.counts_lost
    run.retry_type = RetryType.RESCHEDULE
    run.recorder_id = None
    state = State(id=new_id(), type=STATE_TYPE_SCHEDULED, name="Scheduled", message=loss.message)
    set_micros(state.scheduled.scheduled_time, scheduled)
    cause = ScheduledDetails.CAUSE_ATTEMPT_LOST if decided.counts_lost else ScheduledDetails.CAUSE_CREATED
    state.scheduled.cause = cause
    # Workers are handed only those task runs that nobody's process runs by itself.
    state.scheduled.deferred = run.kind == RUN_KIND_TASK
    enter(work, run, state)


def _forget_pause(work: Work, run: RunRow) -> Steps[None]:
    """The next attempt waits again for what this one was waiting for: the pause has not been ended."""
    if run.books.type is not PAUSED or run.state_id is None or not run.pause_keys:
        return
    pair = (run.id, run.state_id)
    if run.body is None:
        yield from work.load_facts([pair])
    state = work.current_state(run, work.facts.get(pair))
    if state is not None:
        kept = sorted(set(json.loads(run.pause_keys)) - {state.paused.pause_key})
        run.pause_keys = json.dumps(kept) if kept else ""


def _scheduled_time(work: Work, run: RunRow) -> Steps[int]:
    """What the run was scheduled for."""
    if run.books.type is SCHEDULED:
        return run.books.next_scheduled_start_time or work.now
    if run.books.type is not PENDING or run.state_id is None:
        return work.now
    pair = (run.id, run.state_id)
    if run.body is None:
        yield from work.load_facts([pair])
    state = work.current_state(run, work.facts.get(pair))
    if state is None or not state.pending.HasField("scheduled_time"):
        return work.now
    return micros(state.pending.scheduled_time)


def _excluded(work: Work, row: AttemptRow, loss: Loss) -> str | None:
    if loss.cause is not LossCause.REFUSED:
        return row.excluded
    workers: dict[str, int] = json.loads(row.excluded) if row.excluded else {}
    until = _FOR_EVER if loss.not_this_worker else work.now + EXCLUDED_SECONDS * 1_000_000
    kept = {id: time for id, time in workers.items() if time > work.now}
    return json.dumps({**kept, row.worker_id: max(until, kept.get(row.worker_id, 0))})


def end_run(
    work: Work,
    run: RunRow,
    reason: str,
    cause: CrashedDetails.Cause.ValueType,
    is_presumed: bool,
    exit_code: int | None = None,
) -> None:
    """Write the state of a run whose process is gone: what was being cancelled is cancelled.

    A crash that was presumed is described anew, if this is known better.
    """
    is_guess = run.books.type is CRASHED and run.is_presumed and exit_code is not None
    if run.books.type in FINAL_TYPES and not is_guess:
        return
    type: StateType = CANCELLED if run.books.type is CANCELLING else CRASHED
    state = State(id=new_id(), type=type.number, name=default_name(type), message=reason)  # type: ignore[arg-type]
    if type is CRASHED:
        state.crashed.cause = cause
        if exit_code is not None:
            state.crashed.exit_code = exit_code
    else:
        state.cancel.SetInParent()  # the word of the server, and not of a process
    run.is_presumed = is_presumed
    enter(work, run, state)


def was_given_up(run: RunRow) -> bool:
    """Whether the server has ended the run by itself, because it had lost sight of its process.

    Nobody else has the run, and what the process has recorded of its end is taken. But it is not to go on.
    """
    return run.is_presumed and run.books.type in FINAL_TYPES


def enter(work: Work, run: RunRow, state: State) -> None:
    """The run enters a state that the server itself has decided on; its instants are filled in."""
    type = StateType.from_number(state.type)
    scheduled = micros(state.scheduled.scheduled_time) if type is SCHEDULED else None
    books = keep_books(run.books, type, work.now, scheduled)
    set_micros(state.event_time, books.timestamp)
    set_micros(state.record_time, work.now)
    work.enter(run, state.id, state.name, books, state.SerializeToString())
