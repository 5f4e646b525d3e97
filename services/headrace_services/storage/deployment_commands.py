"""Commands on deployments.

What a deployment is to be is worked out and checked before: the command names the version of the row that
this was done with, and writes nothing when the deployment has changed since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from headrace.core.errors import FieldsInvalid, ObjectNotFound, RequestIdReused
from headrace.core.ids import new_id
from headrace.v1.deployment_pb2 import Deployment, DeploymentVersion, FieldChange
from headrace.v1.deployment_service_pb2 import ApplyDeploymentResponse, DeploymentKey
from headrace_services.domain.deployments import differences, digest_of
from headrace_services.domain.states import SCHEDULED
from headrace_services.storage import steps
from headrace_services.storage.command import Command
from headrace_services.storage.declared_rows import DeploymentRow, DeploymentVersionRow
from headrace_services.storage.deployment_codec import declared, deployment_message, set_declared
from headrace_services.storage.entities import Lock, Where
from headrace_services.storage.rows import RunRow, flow_id_of
from headrace_services.storage.schedule_changes import (
    apply_schedules,
    delete_schedules,
    drop_schedules,
    recompute_schedules,
)
from headrace_services.storage.schedule_rows import ScheduleRow, declared_schedule
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work
from headrace_services.storage.work_pool_commands import ensure_queue, find_pool

__all__ = [
    "Applied",
    "ApplyDeployment",
    "Declaration",
    "DeleteDeployment",
    "Repeat",
    "Schedules",
    "SetDeploymentPaused",
    "find_deployment",
    "forget_deployment",
    "where_is",
]


def where_is(key: DeploymentKey) -> Where:
    """The condition that a row is the deployment of the key.

    Raises:
        FieldsInvalid: the name is not of a flow and a deployment.
    """
    if key.WhichOneof("key") == "id":
        return [("id", "=", key.id.lower())]
    flow_name, _, name = key.name.rpartition("/")
    if not flow_name or not name:
        raise FieldsInvalid.of("deployment.name", "must be like 'flow-name/deployment-name'")
    return [("flow_name", "=", flow_name), ("name", "=", name)]


def find_deployment(work: Work, key: DeploymentKey, lock: Lock = Lock.CHANGE) -> Steps[DeploymentRow]:
    """The deployment of the key, locked.

    Raises:
        ObjectNotFound: there is none.
    """
    row = yield from work.rows.one(DeploymentRow, where_is(key), lock)
    if row is None:
        raise ObjectNotFound.of("deployment", key.id or key.name)
    return row


class Schedules(Enum):
    """How much a declaration says of the deployment's schedules."""

    KEPT = 1
    """Nothing: they stay."""
    DECLARED = 2
    """What they are to be; one with a slug that is not named stays."""
    EXACT = 3
    """All of them: what is not named goes."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is to be written.

    Attributes:
        wanted: the deployment as it is to be, checked.
        base_version: of the row it was worked out from; None: there was none.
        schedules: what `wanted` says of its schedules.
        actor: who asks.
        dry_run: say what would change, change nothing.
    """

    wanted: Deployment
    base_version: int | None
    schedules: Schedules
    actor: str
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a declaration.

    Attributes:
        deployment: as it is now, or would be, without its schedules.
        created: it was not there before.
        changes: empty: nothing changed.
    """

    deployment: Deployment
    created: bool
    changes: Sequence[FieldChange]


class ApplyDeployment(Command["Applied | None"]):
    """A deployment becomes what is declared; a real change is a version.

    Args:
        declaration: what it is to be.
        repeat: which request this is, for one that carries a request id.

    Answers None, and writes nothing, when the deployment is not what the declaration was worked out from.

    Raises:
        ObjectNotFound: there is no such work pool.
        FieldsInvalid: of its schedules.
        RequestIdReused: the request id was used for another request.
    """

    is_solo = True

    def __init__(self, declaration: Declaration, repeat: Repeat | None = None) -> None:
        super().__init__()
        self._declaration = declaration
        self._repeat = repeat

    def apply(self, work: Work) -> Steps[Applied | None]:
        if self._repeat is not None:
            answered = yield from self._repeat.answered()
            if answered is not None:
                return Applied(answered.deployment, answered.created, answered.changes)
        said = self._declaration
        where = [("flow_name", "=", said.wanted.flow_name), ("name", "=", said.wanted.name)]
        row = yield from work.rows.one(DeploymentRow, where)
        if said.base_version != (None if row is None else row.version):
            return None
        applied = yield from _declare(work, row, said)
        if self._repeat is not None:
            self._repeat.note(work, applied)
        return applied


class Repeat(NamedTuple):
    """A request that may come again.

    Attributes:
        method: the name of the call.
        request_id: chosen by whoever asks.
        digest: of what is asked.
    """

    method: str
    request_id: str
    digest: bytes

    @classmethod
    def of(cls, method: str, request_id: str, asked: bytes) -> Repeat | None:
        """The request, if it has an id."""
        return cls(method, request_id, hashlib.sha256(asked).digest()) if request_id else None

    def answered(self) -> Steps[ApplyDeploymentResponse | None]:
        """What it was answered before."""
        for *_, digest, response in (yield from steps.load_requests([(self.method, self.request_id)])):
            if digest != self.digest:
                raise RequestIdReused(facts={"request_id": self.request_id})
            return ApplyDeploymentResponse.FromString(response)
        return None

    def note(self, work: Work, applied: Applied) -> None:
        """Keep the answer."""
        answer = ApplyDeploymentResponse(
            deployment=applied.deployment, created=applied.created, changes=applied.changes
        )
        row = (self.method, self.request_id, self.digest, answer.SerializeToString())
        work.writes.requests.append(row)


def _declare(work: Work, row: DeploymentRow | None, said: Declaration) -> Steps[Applied]:
    """Write what is different; nothing when nothing is."""
    wanted = said.wanted
    changes = differences(None if row is None else declared(row), wanted)
    pool = (yield from find_pool(work, wanted.work_pool)) if wanted.work_pool else None
    is_new = row is None
    # What is only tried must leave no trace in the rows at hand.
    row = _new_row(work, wanted, said.actor) if row is None else replace(row) if said.dry_run else row
    if changes or is_new:
        set_declared(row, wanted)
    changes += yield from _declare_schedules(work, row, said)
    if not changes and not is_new:
        return Applied(deployment_message(row), False, changes)
    row.updated_by, row.update_time = said.actor, work.now
    is_version = is_new or any(change.path != "paused" for change in changes)
    if is_version:
        row.version_id, row.version_number = new_id(), row.version_number + 1
    if said.dry_run:
        return Applied(deployment_message(row), is_new, changes)
    if is_version:
        yield from _keep_version(work, row, changes, said.actor)
    if not is_new and any(change.path in _DECIDES_FIRES for change in changes):
        yield from recompute_schedules(work, row)
    if pool is not None and wanted.work_queue:
        yield from ensure_queue(work, pool, wanted.work_queue)
    if is_new:
        work.writes.flows[row.flow_id] = row.flow_name
    work.rows.put(row)
    return Applied(deployment_message(row), is_new, changes)


_DECIDES_FIRES: Final = ("paused", "overlap")


def _declare_schedules(work: Work, row: DeploymentRow, said: Declaration) -> Steps[list[FieldChange]]:
    if said.schedules is Schedules.KEPT:
        return []
    asked = said.wanted.schedules
    gone: list[FieldChange] = []
    if said.schedules is Schedules.EXACT:
        slugs = {schedule.slug for schedule in asked if schedule.slug}
        gone = yield from drop_schedules(work, row, slugs)
    return gone + (yield from apply_schedules(work, row, asked, said.actor, dry_run=said.dry_run))


def _new_row(work: Work, wanted: Deployment, actor: str) -> DeploymentRow:
    return DeploymentRow(
        id=new_id(),
        flow_id=flow_id_of(wanted.flow_name),
        flow_name=wanted.flow_name,
        name=wanted.name,
        is_paused=wanted.paused,
        work_pool=None,
        work_queue=None,
        concurrency_limit=None,
        tags=None,
        version_id="",
        version_number=0,
        create_time=work.now,
        update_time=work.now,
        created_by=actor,
        updated_by=actor,
        spec=b"",
    )


def _keep_version(work: Work, row: DeploymentRow, changes: Sequence[FieldChange], actor: str) -> Steps[None]:
    """Write down what the deployment is from now on, its schedules with it."""
    whole = declared(row)
    schedules = yield from work.rows.find(
        ScheduleRow, [("deployment_id", "=", row.id)], order=["create_time", "id"], lock=Lock.NONE
    )
    whole.schedules.extend(declared_schedule(schedule) for schedule in schedules)
    body = DeploymentVersion(deployment=whole, changes=changes)
    version = DeploymentVersionRow(
        id=row.version_id,
        deployment_id=row.id,
        number=row.version_number,
        digest=digest_of(whole),
        create_time=work.now,
        created_by=actor,
        body=body.SerializeToString(deterministic=True),
    )
    work.rows.put(version)


class SetDeploymentPaused(Command[str]):
    """A deployment is paused, or goes on; its id.

    Raises:
        ObjectNotFound: there is no such deployment.
    """

    is_solo = True

    def __init__(self, key: DeploymentKey, paused: bool, actor: str) -> None:
        super().__init__()
        self._key = key
        self._paused = paused
        self._actor = actor

    def apply(self, work: Work) -> Steps[str]:
        row = yield from find_deployment(work, self._key)
        if row.is_paused != self._paused:
            row.is_paused = self._paused
            row.updated_by, row.update_time = self._actor, work.now
            work.rows.put(row)
            yield from recompute_schedules(work, row)
        return row.id


class DeleteDeployment(Command[int]):
    """A deployment goes, with its versions and the runs that never started; how many these are.

    Raises:
        ObjectNotFound: there is no such deployment.
    """

    is_solo = True

    def __init__(self, key: DeploymentKey) -> None:
        super().__init__()
        self._key = key

    def apply(self, work: Work) -> Steps[int]:
        row = yield from find_deployment(work, self._key, Lock.OWN)
        ids = [found[0] for found in (yield from steps.load_unstarted(row.id))]
        yield from work.load_runs(ids)
        gone = [run for id in ids if (run := work.runs[id]) is not None and _never_started(run)]
        work.writes.deleted_runs.extend(
            (run.id, run.parent_id, run.kind, SCHEDULED.number, None, run.create_time, run.tags)
            for run in gone
        )
        yield from forget_deployment(work, row)
        return len(gone)


_WAITS_FOR_SLOT: Final = "AwaitingConcurrencySlot"


def _never_started(run: RunRow) -> bool:
    """Whether the run is still what it was when it was looked for, now that it is locked."""
    is_scheduled = run.books.type is SCHEDULED and not run.books.run_count
    return is_scheduled and run.state_name != _WAITS_FOR_SLOT


def forget_deployment(work: Work, row: DeploymentRow) -> Steps[None]:
    """Delete the deployment, which must be owned, its schedules and versions, but none of its runs."""
    yield from delete_schedules(work, row.id)
    yield from work.rows.delete_where(DeploymentVersionRow, [("deployment_id", "=", row.id)])
    work.rows.delete(row)
