"""Changes of schedules: one by one, and of a deployment as a whole."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from google.protobuf.json_format import MessageToDict

from headrace.core.clock import from_micros, to_micros
from headrace.core.errors import EtagMismatch, FieldsInvalid, ObjectAlreadyExists, ObjectNotFound
from headrace.core.ids import new_id
from headrace.core.schedules import ScheduleInvalid, next_fire
from headrace.v1.deployment_pb2 import FieldChange
from headrace.v1.schedule_pb2 import Schedule
from headrace_services.domain.schedules import lead_before
from headrace_services.storage.command import Command
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.schedule_disabling import disable
from headrace_services.storage.schedule_firing import looks_at_others, owned_schedule
from headrace_services.storage.schedule_rows import Plan, ScheduleRow, checked_spec, plan_of, schedule_message
from headrace_services.storage.scheduled_runs import clear_scheduled
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = [
    "CreateSchedule",
    "DeleteSchedule",
    "SetSchedulePaused",
    "UpdateSchedule",
    "apply_schedules",
    "delete_schedules",
    "drop_schedules",
    "lead_of",
    "recompute_schedules",
]


# What a deployment's own commands call, with the deployment's row locked


def apply_schedules(
    work: Work, deployment: DeploymentRow, asked: Sequence[Schedule], actor: str, *, dry_run: bool = False
) -> Steps[list[FieldChange]]:
    """Make the deployment's schedules what a declaration says.

    With slugs it is by slug: those that the declaration names are changed or made, the others stay. Without
    slugs it is as a set: what is not named goes; what fires at the same instants keeps its schedule. A
    schedule that has not changed is not touched, and one that somebody has paused by hand stays paused until
    the declaration says something else of it than before.

    Args:
        work: the rows at hand.
        deployment: whose schedules; new or locked.
        asked: the declaration; `replaces` names the slug that a schedule had before.
        actor: who asks.
        dry_run: only say what would change.

    Returns:
        What changes, with paths such as `schedules[nightly]`.

    Raises:
        FieldsInvalid: a schedule cannot be kept, slugs clash, or schedules with slugs would be lost.
    """
    same = [("deployment_id", "=", deployment.id)]
    rows = yield from work.rows.find(ScheduleRow, same, order=["create_time", "id"])
    matched, gone = _match(asked, rows, work.now)
    changes = [FieldChange(path=f"schedules[{row.label}]", old_value=_declared(row)) for row in gone]
    changed: list[ScheduleRow] = []
    for index, (said, row) in enumerate(matched):
        after = _after(work, deployment, index, said, row, actor)
        if after is not None:
            path = f"schedules[{said.slug or index}]"
            before = "" if row is None else _declared(row)
            changes.append(FieldChange(path=path, old_value=before, new_value=_declared(after)))
            changed.append(after)
    if not dry_run:
        yield from _write(work, deployment, changed, gone)
    return changes


def _after(
    work: Work, deployment: DeploymentRow, index: int, said: Schedule, row: ScheduleRow | None, actor: str
) -> ScheduleRow | None:
    """The schedule as the declaration wants it; None: it is that already."""
    before = None if row is None else Schedule.FromString(row.spec)
    spec = checked_spec(said, work.now, f"schedules[{index}]", before)
    if row is None or before is None:
        return _new_row(deployment.id, said, spec, work.now, actor)
    if row.spec == spec and (row.slug or "") == said.slug:
        return None
    after = replace(row, slug=said.slug or None, spec=spec, update_time=work.now)
    if not _fires_alike(row.spec, spec):
        after.next_fire_time = None
    if said.paused != before.paused:
        after.is_paused = said.paused
    return after


def _write(
    work: Work, deployment: DeploymentRow, changed: Sequence[ScheduleRow], gone: Sequence[ScheduleRow]
) -> Steps[None]:
    for row in gone:
        work.rows.delete(row)
    for row in changed:
        work.rows.put(row)
    if changed or gone:
        yield from clear_scheduled(work, deployment.id, {row.id for row in (*changed, *gone)}, overdue=False)
    for row in changed:
        start_firing(work, deployment, row)


def drop_schedules(work: Work, deployment: DeploymentRow, kept: Collection[str]) -> Steps[list[FieldChange]]:
    """Delete the deployment's schedules that have a slug which is none of `kept`; what changes by that."""
    where = [("deployment_id", "=", deployment.id), ("slug", "is", True)]
    rows = yield from work.rows.find(ScheduleRow, where, order=["create_time", "id"])
    gone = [row for row in rows if row.slug not in kept]
    for row in gone:
        work.rows.delete(row)
    if gone:
        yield from clear_scheduled(work, deployment.id, {row.id for row in gone}, overdue=False)
    return [FieldChange(path=f"schedules[{row.label}]", old_value=_declared(row)) for row in gone]


def recompute_schedules(work: Work, deployment: DeploymentRow) -> Steps[None]:
    """The deployment was paused, or goes on, or says something else of overlaps: its schedules follow.

    When it is paused, the runs that schedules made and nobody has begun with go, overdue ones too.
    """
    rows = yield from work.rows.find(ScheduleRow, [("deployment_id", "=", deployment.id)])
    for row in rows:
        work.rows.put(row)
        start_firing(work, deployment, row)
    if deployment.is_paused and rows:
        yield from clear_scheduled(work, deployment.id, {row.id for row in rows}, overdue=True)


def delete_schedules(work: Work, deployment_id: str) -> Steps[None]:
    """The deployment goes, and its schedules with it; the runs are its own affair."""
    yield from work.rows.delete_where(ScheduleRow, [("deployment_id", "=", deployment_id)])


def start_firing(work: Work, deployment: DeploymentRow, row: ScheduleRow) -> None:
    """Find out when the schedule is due next, or stop it when it or its deployment is paused."""
    if row.is_paused or deployment.is_paused:
        row.stop(work.now)
        return
    try:
        plan = plan_of(row.spec)
    except ScheduleInvalid as error:
        disable(work, row, error)
        return
    if row.next_fire_time is not None and row.next_fire_time <= work.now:
        row.expect(row.next_fire_time, lead_of(plan, deployment, row.next_fire_time))  # what is due stays due
        return
    if row.idle_since is not None and plan.catch_up.include_paused and not row.disabled_reason:
        _expect_after(row, plan, deployment, row.idle_since)
        return
    row.disabled_reason = ""
    _expect_after(row, plan, deployment, work.now)


def _expect_after(row: ScheduleRow, plan: Plan, deployment: DeploymentRow, instant: int) -> None:
    found = next_fire(plan.timing, from_micros(instant))
    fire = None if found is None else to_micros(found)
    row.expect(fire, 0 if fire is None else lead_of(plan, deployment, fire))


def lead_of(plan: Plan, deployment: DeploymentRow, fire: int) -> int:
    """How long before its instant the run of the fire is made, microseconds."""
    if looks_at_others(plan, deployment):
        return 0
    later = next_fire(plan.timing, from_micros(fire))
    return lead_before(fire, None if later is None else to_micros(later))


def _match(
    asked: Sequence[Schedule], rows: Sequence[ScheduleRow], now: int
) -> tuple[list[tuple[Schedule, ScheduleRow | None]], list[ScheduleRow]]:
    """Which row each of the declared schedules is, and which rows go."""
    _check_slugs(asked, rows)
    by_slug = {row.slug: row for row in rows if row.slug}
    if any(said.slug for said in asked):
        named = [(said, by_slug.get(said.replaces) or by_slug.get(said.slug)) for said in asked]
        taken = {row.id for _, row in named if row}
        without = [row for row in rows if not row.slug and row.id not in taken]
        return named, without if not by_slug else []
    return _match_set(asked, rows, now)


def _match_set(
    asked: Sequence[Schedule], rows: Sequence[ScheduleRow], now: int
) -> tuple[list[tuple[Schedule, ScheduleRow | None]], list[ScheduleRow]]:
    """The same for schedules without slugs: by what they say, then by when they fire."""
    left, found = list(rows), dict[int, ScheduleRow]()
    for is_match in (_is_same, _fires_alike):
        for index, said in enumerate(asked):
            for row in left if index not in found else ():
                before = Schedule.FromString(row.spec)
                if is_match(row.spec, checked_spec(said, now, f"schedules[{index}]", before)):
                    found[index] = row
                    left.remove(row)
                    break
    return [(said, found.get(index)) for index, said in enumerate(asked)], left


def _is_same(before: bytes, after: bytes) -> bool:
    """Whether two specs say the same, but for being paused."""
    old, new = Schedule.FromString(before), Schedule.FromString(after)
    old.paused = new.paused = False
    return old == new


def _fires_alike(before: bytes, after: bytes) -> bool:
    """Whether two specs fire at the same instants."""
    try:
        return plan_of(before).timing == plan_of(after).timing
    except ScheduleInvalid:
        return False


def _check_slugs(asked: Sequence[Schedule], rows: Sequence[ScheduleRow]) -> None:
    slugs = [said.slug for said in asked if said.slug]
    replaced = [said.replaces for said in asked if said.replaces]
    known = {row.slug for row in rows if row.slug}
    for index, said in enumerate(asked):
        place = f"schedules[{index}]"
        if said.slug and slugs.count(said.slug) > 1:
            raise FieldsInvalid.of(f"{place}.slug", f"'{said.slug}' is given twice")
        if not said.replaces:
            if not said.slug and known:
                others = ", ".join(sorted(known))
                raise FieldsInvalid.of(
                    f"{place}.slug", f"is missing; the deployment's other schedules have one ({others})"
                )
            continue
        if replaced.count(said.replaces) > 1:
            raise FieldsInvalid.of(f"{place}.replaces", f"'{said.replaces}' is replaced twice")
        if not said.slug:
            raise FieldsInvalid.of(
                f"{place}.slug", "is what the schedule is called from now on: it is missing"
            )
        if said.replaces in known and said.slug in known and said.slug != said.replaces:
            raise FieldsInvalid.of(f"{place}.slug", f"there is another schedule '{said.slug}' already")


def _new_row(deployment_id: str, said: Schedule, spec: bytes, now: int, actor: str) -> ScheduleRow:
    return ScheduleRow(
        id=new_id(),
        deployment_id=deployment_id,
        slug=said.slug or None,
        is_paused=said.paused,
        due_time=None,
        next_fire_time=None,
        last_fire_time=None,
        idle_since=None,
        missed_fires=0,
        skipped_fires=0,
        last_skip_reason="",
        disabled_reason="",
        create_time=now,
        update_time=now,
        created_by=actor,
        spec=spec,
    )


def _declared(row: ScheduleRow) -> str:
    """What somebody declared, as JSON text."""
    said = Schedule.FromString(row.spec)
    said.slug, said.paused = row.slug or "", row.is_paused
    return json.dumps(MessageToDict(said))


# One by one


class CreateSchedule(Command[Schedule]):
    """One more schedule of a deployment."""

    is_solo = True

    def __init__(self, schedule: Schedule, request_id: str, actor: str) -> None:
        super().__init__()
        self._asked = schedule
        self._request_id = request_id
        self._actor = actor

    def apply(self, work: Work) -> Steps[Schedule]:
        deployment = yield from _deployment(work, self._asked.deployment_id)
        same = [("deployment_id", "=", deployment.id)]
        rows = yield from work.rows.find(ScheduleRow, same, order=["create_time", "id"])
        id = _requested_id(self._request_id, deployment.id)
        before = next((row for row in rows if row.id == id), None)
        if before is not None:
            return schedule_message(before)
        slug = self._asked.slug
        if slug and any(row.slug == slug for row in rows):
            raise ObjectAlreadyExists(
                f"The deployment has a schedule '{slug}' already.", facts={"kind": "schedule", "key": slug}
            )
        row = _new_row(deployment.id, self._asked, checked_spec(self._asked, work.now), work.now, self._actor)
        row.id = id
        work.rows.put(row)
        start_firing(work, deployment, row)
        return schedule_message(row)


def _requested_id(request_id: str, deployment_id: str) -> str:
    """The id of the schedule that a request makes: a repeated one makes the same."""
    from uuid import UUID, uuid5

    return str(uuid5(UUID(deployment_id), request_id)) if request_id else new_id()


def _deployment(work: Work, id: str) -> Steps[DeploymentRow]:
    yield from work.rows.load(DeploymentRow, [(id.lower(),)])
    row = work.rows.get(DeploymentRow, id.lower())
    if row is None:
        raise ObjectNotFound.of("deployment", id)
    return row


_SPEC_PATHS: Final = frozenset(
    {
        *("cron", "interval", "rrule", "parameters", "start", "end", "jitter"),
        *("catch_up", "overlap", "max_scheduled_runs"),
    }
)


class UpdateSchedule(Command[Schedule]):
    """Some fields of a schedule change."""

    is_solo = True

    def __init__(self, schedule: Schedule, paths: Sequence[str]) -> None:
        super().__init__()
        self._asked = schedule
        self._paths = tuple(paths)

    def apply(self, work: Work) -> Steps[Schedule]:
        row, deployment = yield from owned_schedule(work, self._asked.id)
        if self._asked.etag and self._asked.etag != str(row.version):
            raise EtagMismatch(facts={"kind": "schedule", "key": row.id})
        spec = self._merged(row)
        if "slug" in self._paths:
            yield from self._check_slug(work, row)
            row.slug = self._asked.slug or None
        if "paused" in self._paths:
            row.is_paused = self._asked.paused
        checked = checked_spec(spec, work.now, "schedule", Schedule.FromString(row.spec))
        if not _fires_alike(row.spec, checked):
            row.next_fire_time = None
        is_other, row.spec, row.update_time = checked != row.spec, checked, work.now
        work.rows.put(row)
        if is_other or "paused" in self._paths:
            yield from clear_scheduled(work, row.deployment_id, {row.id}, overdue=row.is_paused)
            start_firing(work, deployment, row)
        return schedule_message(row)

    def _merged(self, row: ScheduleRow) -> Schedule:
        spec = Schedule.FromString(row.spec)
        for number, path in enumerate(self._paths):
            if path in ("slug", "paused"):
                continue
            if path not in _SPEC_PATHS:
                known = ", ".join(sorted(_SPEC_PATHS | {"slug", "paused"}))
                raise FieldsInvalid.of(f"update_mask.paths[{number}]", f"'{path}' is none of {known}")
            spec.ClearField(path)  # type: ignore[arg-type]  # the stub wants literals
            part = Schedule()
            part.CopyFrom(self._asked)
            for name in list(Schedule.DESCRIPTOR.fields_by_name):
                if name != path:
                    part.ClearField(name)  # type: ignore[arg-type]
            spec.MergeFrom(part)
        return spec

    def _check_slug(self, work: Work, row: ScheduleRow) -> Steps[None]:
        slug = self._asked.slug
        same = [("deployment_id", "=", row.deployment_id), ("slug", "=", slug), ("id", "<>", row.id)]
        if slug and (yield from work.rows.one(ScheduleRow, same, Lock.NONE)) is not None:
            raise ObjectAlreadyExists(
                f"The deployment has another schedule '{slug}'.", facts={"kind": "schedule", "key": slug}
            )


class SetSchedulePaused(Command[Schedule]):
    """A schedule makes no more runs, or makes them again."""

    is_solo = True

    def __init__(self, schedule_id: str, paused: bool) -> None:
        super().__init__()
        self._schedule_id = schedule_id
        self._paused = paused

    def apply(self, work: Work) -> Steps[Schedule]:
        row, deployment = yield from owned_schedule(work, self._schedule_id)
        if row.is_paused != self._paused or row.disabled_reason:
            row.is_paused, row.update_time = self._paused, work.now
            work.rows.put(row)
            start_firing(work, deployment, row)
            if row.is_paused:
                yield from clear_scheduled(work, row.deployment_id, {row.id}, overdue=True)
        return schedule_message(row)


class DeleteSchedule(Command[bool]):
    """A schedule goes, with the runs that it made and nobody has begun with; whether it was there."""

    is_solo = True

    def __init__(self, schedule_id: str) -> None:
        super().__init__()
        self._id = schedule_id.lower()

    def apply(self, work: Work) -> Steps[bool]:
        yield from work.rows.load(ScheduleRow, [(self._id,)])
        row = work.rows.get(ScheduleRow, self._id)
        if row is None:
            return False
        yield from clear_scheduled(work, row.deployment_id, {row.id}, overdue=False)
        work.rows.delete(row)
        return True
