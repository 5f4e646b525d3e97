"""Single instants of schedules that are skipped, before there is a run for them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from headrace.core.clock import from_micros
from headrace.core.errors import FieldsInvalid, PreconditionFailed
from headrace.core.schedules import ScheduleInvalid, fires_between, next_fire
from headrace.v1.schedule_pb2 import Schedule
from headrace_services.storage.command import Command
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.schedule_changes import lead_of
from headrace_services.storage.schedule_firing import owned_schedule
from headrace_services.storage.schedule_rows import Plan, ScheduleRow, plan_of, schedule_message
from headrace_services.storage.scheduled_runs import clear_run, run_id_of
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["SKIPPED_MAX", "SkipFire", "UnskipFire"]

SKIPPED_MAX: Final = 100
"""How many instants to come of one schedule may be skipped at a time."""


class SkipFire(Command[Schedule]):
    """No run is made for one instant to come. Skipping twice is skipping once.

    Args:
        schedule_id: of the schedule.
        fire_time: an instant at which it fires, microseconds.

    Raises, as what the command fails with:
        ObjectNotFound: there is no such schedule.
        FieldsInvalid: it does not fire then, the instant is past, or too many are skipped.
        PreconditionFailed: there is a run for it that has begun, or the schedule was stopped by the server.
    """

    is_solo = True

    def __init__(self, schedule_id: str, fire_time: int) -> None:
        super().__init__()
        self._schedule_id = schedule_id
        self._fire = fire_time

    def apply(self, work: Work) -> Steps[Schedule]:
        row, deployment = yield from owned_schedule(work, self._schedule_id)
        fire, skipped = self._fire, row.skipped_times
        if fire not in skipped:
            plan = _plan(row)
            _check(work.now, plan, fire, [at for at in skipped if at > work.now])
            yield from self._take_back(work, run_id_of(row.id, fire))
            row.skip({*skipped, fire})
            row.update_time = work.now
            if _is_before_next(row, deployment, fire):
                row.expect(fire, 0)
            work.rows.put(row)
        return schedule_message(row)

    def _take_back(self, work: Work, run_id: str) -> Steps[None]:
        """The run of the instant, which may have been made already, goes."""
        yield from work.load_runs([run_id])
        run = work.runs.get(run_id)
        if run is not None and not (yield from clear_run(work, run)):
            raise PreconditionFailed(
                f"Run {run.name} ({run.id}) is there for this instant already; it can be cancelled.",
                facts={"kind": "run", "key": run.id},
            )


class UnskipFire(Command[Schedule]):
    """A run is made for an instant after all, if that is still to come.

    Args:
        schedule_id: of the schedule.
        fire_time: the instant, microseconds.

    Raises, as what the command fails with:
        ObjectNotFound: there is no such schedule.
    """

    is_solo = True

    def __init__(self, schedule_id: str, fire_time: int) -> None:
        super().__init__()
        self._schedule_id = schedule_id
        self._fire = fire_time

    def apply(self, work: Work) -> Steps[Schedule]:
        row, deployment = yield from owned_schedule(work, self._schedule_id)
        fire, skipped = self._fire, row.skipped_times
        if fire in skipped:
            row.skip(at for at in skipped if at != fire)
            row.update_time = work.now
            if fire > work.now and _is_before_next(row, deployment, fire):
                plan = _plan(row)
                if _fires_at(plan, fire):  # the rule may be another one since
                    row.expect(fire, lead_of(plan, deployment, fire))
            work.rows.put(row)
        return schedule_message(row)


def _is_before_next(row: ScheduleRow, deployment: DeploymentRow, fire: int) -> bool:
    """Whether the schedule, which makes runs at all, has dealt with the instant, or would as the next one."""
    if row.is_paused or deployment.is_paused or row.disabled_reason:
        return False
    return row.next_fire_time is None or fire <= row.next_fire_time


def _plan(row: ScheduleRow) -> Plan:
    try:
        return plan_of(row.spec)
    except ScheduleInvalid as error:
        raise PreconditionFailed(f"The schedule cannot be read: {error}.") from None


def _fires_at(plan: Plan, fire: int) -> bool:
    at = from_micros(fire)
    return bool(list(fires_between(plan.timing, at, at + timedelta(microseconds=1), 1)))


def _check(now: int, plan: Plan, fire: int, skipped: list[int]) -> None:
    """See that the instant may be skipped.

    Raises:
        FieldsInvalid: it may not.
    """
    if fire <= now:
        raise FieldsInvalid.of("fire_time", "is past")
    if not _fires_at(plan, fire):
        later = next_fire(plan.timing, from_micros(fire))
        hint = "it fires no more after it" if later is None else f"the next one is {later:%Y-%m-%dT%H:%M:%SZ}"
        raise FieldsInvalid.of("fire_time", f"is none of the instants of the schedule; {hint}")
    if len(skipped) >= SKIPPED_MAX:
        raise FieldsInvalid.of(
            "fire_time", f"{SKIPPED_MAX} instants are skipped already; pause the schedule, or give it an end"
        )
