"""Runs that schedules make: how they come to be, which of them have not ended, and how those go again."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from headrace.core.ids import new_id
from headrace.core.names import slug
from headrace.core.states import StateType
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.run_pb2 import Run
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLING, STATE_TYPE_SCHEDULED, ScheduledDetails, State
from headrace_services.domain.books import keep_books
from headrace_services.domain.deployments import run_of_deployment
from headrace_services.domain.schedules import QUEUED, ActiveRun
from headrace_services.domain.states import SCHEDULED
from headrace_services.storage import steps
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.instants import set_micros
from headrace_services.storage.ops import run_op
from headrace_services.storage.proposals import propose
from headrace_services.storage.rows import RunRow, decode_tags
from headrace_services.storage.run_making import make_run
from headrace_services.storage.schedule_rows import OverlapWaitRow, plan_of
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work, run_from_row

__all__ = [
    "AUTO_TAG",
    "FiringSchedule",
    "Wish",
    "active_runs",
    "add_run",
    "cancel_runs",
    "clear_run",
    "clear_scheduled",
    "deployment_spec",
    "enter_scheduled",
    "idempotency_key",
    "run_id_of",
    "template_of",
]

AUTO_TAG: Final = "auto-scheduled"
ACTIVE_MAX: Final = 1000
"""How many runs of one deployment that have not ended are looked at."""
_random: Final = random.Random()


def run_id_of(schedule_id: str, fire: int) -> str:
    """The id of the run of one fire: known before the run exists, and the same whoever makes it."""
    # UUIDv5 of schedule and instant; `uuid.uuid5` takes five times as long.
    said = bytes.fromhex(schedule_id.replace("-", "")) + str(fire).encode()
    digest = int.from_bytes(hashlib.sha1(said, usedforsecurity=False).digest()[:16])
    digest = digest & ~(0xF << 76) & ~(0x3 << 62) | 0x5 << 76 | 0x2 << 62
    text = f"{digest:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class FiringSchedule(Protocol):
    """What a run needs of its schedule: the row itself, or what is kept of one."""

    @property
    def id(self) -> str:
        """Of the schedule."""
        ...

    @property
    def deployment_id(self) -> str:
        """Of its deployment."""
        ...

    @property
    def label(self) -> str:
        """How it is named to people."""
        ...

    @property
    def spec(self) -> bytes:
        """headrace.v1.Schedule."""
        ...


def idempotency_key(schedule: FiringSchedule, fire: int) -> str:
    """The key of the run of one fire."""
    return f"scheduled {schedule.deployment_id} {schedule.id} {fire}"


@lru_cache(maxsize=16384)
def deployment_spec(spec: bytes) -> Deployment:
    """The deployment as it is kept; not to be changed."""
    return Deployment.FromString(spec)


class Wish(NamedTuple):
    """What a run of a schedule is made with.

    Attributes:
        id: of the run.
        scheduled_time: when it is to start, microseconds.
        key: idempotency key; None: none.
        parameters: over those of the schedule.
        priority: None: the deployment's.
        waits: until earlier runs have ended.
        by: who asks for it; empty: the schedule itself.
        backfill_id: of the backfill that it belongs to.
    """

    id: str
    scheduled_time: int
    key: str | None
    parameters: Mapping[str, Any] | None = None
    priority: int | None = None
    waits: bool = False
    by: str = ""
    backfill_id: str = ""


def add_run(work: Work, deployment: DeploymentRow, schedule: FiringSchedule, wish: Wish) -> RunRow:
    """Make the run, and let it enter SCHEDULED."""
    source = _source(deployment, schedule, wish.parameters)
    source.id, source.name = wish.id, slug(_random)
    source.deployment_id, source.schedule_id = deployment.id, schedule.id
    source.created_by = wish.by or f"schedule:{schedule.label}"
    if not wish.by and AUTO_TAG not in source.tags:
        source.tags.append(AUTO_TAG)
    if wish.priority is not None:
        source.priority = wish.priority
    source.backfill_id = wish.backfill_id
    run = make_run(work, run_op(source), None)
    if not isinstance(run, RunRow):
        raise run
    run.idempotency_key = wish.key
    enter_scheduled(work, run, wish.scheduled_time, QUEUED if wish.waits else "Scheduled")
    return run


def _source(deployment: DeploymentRow, schedule: FiringSchedule, over: Mapping[str, Any] | None) -> Run:
    if over:
        said = deployment_spec(deployment.spec)
        parameters = _parameters(said, schedule.spec) | dict(over)
        return run_of_deployment(said, deployment.version_id, parameters)
    source = Run()
    source.CopyFrom(template_of(deployment, schedule))
    return source


def _parameters(said: Deployment, schedule: bytes) -> dict[str, Any]:
    of_schedule: dict[str, Any] = json.loads(plan_of(schedule).spec.parameters or "{}")
    of_deployment: dict[str, Any] = json.loads(said.parameters or "{}")
    return of_deployment | of_schedule


def template_of(deployment: DeploymentRow, schedule: FiringSchedule) -> Run:
    """What all runs of a schedule have in common; not to be changed."""
    return _template(deployment.spec, deployment.version_id, schedule.spec)


@lru_cache(maxsize=16384)
def _template(deployment: bytes, version_id: str, schedule: bytes) -> Run:
    said = deployment_spec(deployment)
    return run_of_deployment(said, version_id, _parameters(said, schedule))


def enter_scheduled(work: Work, run: RunRow, scheduled_time: int, name: str) -> None:
    """The run waits for its time; what it was before must allow that."""
    books = keep_books(run.books, SCHEDULED, work.now, scheduled_time)
    state = State(id=new_id(), type=STATE_TYPE_SCHEDULED, name=name)
    set_micros(state.event_time, books.timestamp)
    set_micros(state.record_time, work.now)
    set_micros(state.scheduled.scheduled_time, scheduled_time)
    state.scheduled.cause = ScheduledDetails.CAUSE_CREATED
    work.enter(run, state.id, name, books, state.SerializeToString())


# Those that have not ended


def active_runs(work: Work, deployment_ids: Collection[str]) -> Steps[dict[str, list[ActiveRun]]]:
    """Per deployment, its runs that have not ended, locked, oldest first; at most `ACTIVE_MAX` of each."""
    found: dict[str, list[ActiveRun]] = {id: [] for id in deployment_ids}
    if not found:
        return found
    for run in (yield from _load(work, deployment_ids)):
        assert run.books.type is not None and run.deployment_id is not None
        spec = Run.FromString(run.spec)
        # Somebody has asked for the past by hand; it does not stand in the way of what is due.
        schedule_id = "" if spec.backfill_id else spec.schedule_id
        found[run.deployment_id].append(ActiveRun(run.id, run.books.type, run.state_name, schedule_id))
    return found


def _load(work: Work, deployment_ids: Collection[str]) -> Steps[list[RunRow]]:
    ids = sorted(deployment_ids)
    rows = yield from steps.load_deployment_runs(ids, ACTIVE_MAX)
    if len(rows) == ACTIVE_MAX and len(ids) > 1:  # of some of them there may be none among these
        middle = len(ids) // 2
        first = yield from _load(work, ids[:middle])
        return first + (yield from _load(work, ids[middle:]))
    found: list[RunRow] = []
    for row in rows:
        run = work.runs.get(row[0]) or run_from_row(row)
        work.runs[run.id] = run
        found.append(run)
    return found


def cancel_runs(work: Work, run_ids: Sequence[str], message: str) -> Steps[None]:
    """Ask the runs to end."""
    yield from work.load_runs(run_ids)
    for id in run_ids:
        run = work.runs.get(id)
        if run is not None:
            asked = State(id=new_id(), type=STATE_TYPE_CANCELLING, message=message)
            set_micros(asked.event_time, work.now)
            yield from propose(work, run, asked)


def clear_scheduled(
    work: Work, deployment_id: str, schedule_ids: Collection[str], *, overdue: bool
) -> Steps[int]:
    """Delete runs that schedules made and that nobody has begun with.

    Runs made by hand stay, as do those that wait for a slot or for another try.

    Args:
        work: the rows at hand.
        deployment_id: of the deployment.
        schedule_ids: of the schedules.
        overdue: also those whose time has come.

    Returns:
        How many are gone.
    """
    count = 0
    for run in (yield from _load(work, [deployment_id])):
        if Run.FromString(run.spec).schedule_id in schedule_ids and _is_unbegun(run, work.now, overdue):
            yield from _take_back(work, run)
            count += 1
    return count


def clear_run(work: Work, run: RunRow) -> Steps[bool]:
    """Delete a run that a schedule made, if nobody has begun with it; whether it is gone."""
    if not _is_unbegun(run, work.now, overdue=True):
        return False
    yield from _take_back(work, run)
    return True


def _take_back(work: Work, run: RunRow) -> Steps[None]:
    work.writes.deleted_runs.append(
        (run.id, None, run.kind, StateType.SCHEDULED.number, None, run.create_time, run.tags)
    )
    yield from work.rows.delete_where(OverlapWaitRow, [("run_id", "=", run.id)])


def _is_unbegun(run: RunRow, now: int, overdue: bool) -> bool:
    books = run.books
    if books.type is not SCHEDULED or books.run_count or run.fence > 1:
        return False
    if run.state_name not in ("Scheduled", "Late", QUEUED) or AUTO_TAG not in decode_tags(run.tags):
        return False
    return overdue or run.state_name == QUEUED or (books.next_scheduled_start_time or 0) > now
