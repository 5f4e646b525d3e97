"""Commands that need a transaction of their own: ending recorders, deleting runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from headrace.core.errors import ObjectNotFound, RunActive
from headrace.core.states import StateType
from headrace.v1.state_pb2 import CrashedDetails
from headrace_services.domain.attempt_rules import LossCause
from headrace_services.domain.states import FINAL_TYPES, PENDING
from headrace_services.storage import steps
from headrace_services.storage.command import Command
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.deployment_commands import forget_deployment
from headrace_services.storage.dispatch_rows import AttemptRow, SessionRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.losing import Loss, end_run, lose
from headrace_services.storage.ops import Wanted
from headrace_services.storage.rows import RecorderRow, RunRow, flow_id_of
from headrace_services.storage.steps import Row, Steps
from headrace_services.storage.work import Work

__all__ = ["CrashRecorder", "DeleteFlow", "DeleteRun", "SealRecorder", "crash_runs"]

_ENDED = "The process that ran it has ended."


class CrashRecorder(Command[list[str]]):
    """A recorder's lease is over: what it executes has crashed, as far as the server can tell."""

    is_solo = True
    needs_lease = True

    def __init__(
        self, recorder_id: str, reason: str, cause: CrashedDetails.Cause.ValueType, expired_before: int | None
    ) -> None:
        super().__init__()
        self._id = recorder_id.lower()
        self._reason = reason
        self._cause = cause
        self._expired_before = expired_before

    def recorders(self) -> Sequence[str]:
        return (self._id,)

    def apply(self, work: Work) -> Steps[list[str]]:
        recorder = work.recorders.get(self._id)
        if recorder is None:
            raise ObjectNotFound.of("recorder", self._id)
        if self._is_alive(recorder):
            return []
        if recorder.expires_at is not None:
            recorder.expires_at = None
            work.touch_recorder(recorder, lease=True)
        is_silent = self._expired_before is not None
        return (
            yield from crash_runs(
                work, self._id, self._reason, self._cause, is_presumed=True, is_silent=is_silent
            )
        )

    def _is_alive(self, recorder: RecorderRow) -> bool:
        """The lease was renewed since somebody found it over."""
        if self._expired_before is None:
            return False
        return recorder.expires_at is not None and recorder.expires_at >= self._expired_before


class SealRecorder(Command[None]):
    """A recorder has said that it is done."""

    is_solo = True
    needs_lease = True

    def __init__(self, recorder_id: str) -> None:
        super().__init__()
        self._id = recorder_id.lower()

    def recorders(self) -> Sequence[str]:
        return (self._id,)

    def apply(self, work: Work) -> Steps[None]:
        recorder = work.recorders.get(self._id)
        if recorder is None:
            raise ObjectNotFound.of("recorder", self._id)
        if recorder.is_sealed:
            return
        recorder.is_sealed, recorder.expires_at = True, None
        work.touch_recorder(recorder, lease=True)
        cause = CrashedDetails.CAUSE_PROCESS_EXIT
        yield from crash_runs(work, self._id, _ENDED, cause, is_presumed=False)


def crash_runs(
    work: Work,
    recorder_id: str,
    reason: str,
    cause: CrashedDetails.Cause.ValueType,
    *,
    is_presumed: bool,
    is_silent: bool = False,
) -> Steps[list[str]]:
    """End the unfinished runs that the recorder executes, children first; their ids.

    A run that a worker was given is ended by the rule for lost attempts; one whose recorder is only silent
    (`is_silent`) is left alone while its worker answers for it.
    """
    ids = [row[0] for row in (yield from steps.load_unfinished(recorder_id))]
    yield from work.load_runs(ids)
    runs = [run for id in ids if (run := work.runs.get(id)) is not None]
    attempts = yield from _attempts(work, runs)
    kept = yield from _held_by_workers(work, attempts)
    if not is_silent:
        # The process is gone for certain. What had not begun its worker explains, or its own end.
        kept = {run.id for run in runs if run.id in kept and run.books.type is PENDING}
    ordered = [run for run in _children_first(runs) if run.owner_id not in kept]
    loss_cause = LossCause.SILENT if is_silent else LossCause.EXITED
    for run in ordered:
        row = attempts.get(run.id)
        if row is None:
            end_run(work, run, reason, cause, is_presumed)
        else:
            yield from lose(work, row, Loss(loss_cause, reason, cause, is_presumed=is_presumed))
    return [run.id for run in ordered]


def _attempts(work: Work, runs: Collection[RunRow]) -> Steps[dict[str, AttemptRow]]:
    """The attempts that are alive of those among the runs that workers were given."""
    ids = sorted(run.id for run in runs if run.fence > 1 and run.owner_id == run.id)
    if not ids:
        return {}
    rows = yield from work.rows.find(AttemptRow, [("run_id", "in", ids)])
    return {row.run_id: row for row in rows}


def _held_by_workers(work: Work, attempts: Mapping[str, AttemptRow]) -> Steps[set[str]]:
    """Runs that a worker answers for whose own lease is not over: their process may just not reach us."""
    sessions = sorted({row.session_id for row in attempts.values() if row.session_id is not None})
    if not sessions:
        return set()
    rows = yield from work.rows.find(SessionRow, [("id", "in", sessions)], lock=Lock.NONE)
    alive = {row.id for row in rows if row.expires_at is not None}
    return {id for id, row in attempts.items() if row.session_id in alive}


def _children_first(runs: Collection[RunRow]) -> list[RunRow]:
    by_id = {run.id: run for run in runs}

    def depth(run: RunRow) -> int:
        steps_up, parent = 0, run.parent_id
        while parent in by_id:
            steps_up, parent = steps_up + 1, by_id[parent].parent_id
        return steps_up

    return sorted(runs, key=depth, reverse=True)


class DeleteRun(Command[int]):
    """A run goes, with everything below it."""

    is_solo = True

    def __init__(self, run_id: str, force: bool) -> None:
        super().__init__()
        self._id = run_id.lower()
        self._force = force

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._id)

    def apply(self, work: Work) -> Steps[int]:
        run = work.runs.get(self._id)
        if run is None:
            return 0
        tree = yield from steps.load_tree([run.root_id])
        return (yield from _delete(work, _below(tree, {self._id}), self._force))


class DeleteFlow(Command[int]):
    """A flow goes, with its deployments and all its runs."""

    is_solo = True

    def __init__(self, flow_id: str | None, name: str | None, force: bool) -> None:
        super().__init__()
        self._id = flow_id.lower() if flow_id is not None else flow_id_of(name or "")
        self._key = flow_id or name or ""
        self._force = force

    def apply(self, work: Work) -> Steps[int]:
        if not (yield from steps.lock_flow(self._id)):
            raise ObjectNotFound.of("flow", self._key)
        found = yield from steps.load_flow_roots(self._id)
        top = {row[0] for row in found}
        tree = yield from steps.load_tree({row[1] for row in found})
        deleted = yield from _delete(work, _below(tree, top), self._force)
        deployments = yield from work.rows.find(DeploymentRow, [("flow_id", "=", self._id)], lock=Lock.OWN)
        for deployment in deployments:  # their runs are the flow's
            yield from forget_deployment(work, deployment)
        work.writes.deleted_flows.append(self._id)
        return deleted


def _below(tree: Iterable[Row], top: set[str]) -> list[Row]:
    """The rows of `tree` that are `top` or below it."""
    children: dict[str, list[Row]] = {}
    rows: list[Row] = []
    for row in tree:
        if row[0] in top:
            rows.append(row)
        elif row[1] is not None:
            children.setdefault(row[1], []).append(row)
    for row in rows:  # grows while it is walked
        rows.extend(children.pop(row[0], ()))
    return rows


def _delete(work: Work, rows: list[Row], force: bool) -> Steps[int]:
    active = [row for row in rows if _is_active(row)]
    if active and not force:
        raise RunActive(
            f"{len(active)} of the {len(rows)} runs may still be executing, run {active[0][0]} among them. "
            "Wait for them to end, or delete with force.",
            facts={"run_id": active[0][0]},
        )
    work.writes.deleted_runs.extend(rows)
    work.writes.tombstones.extend(row[0] for row in active)
    yield from ()
    return len(rows)


def _is_active(row: Row) -> bool:
    """Whether a process may still write to the run: it has not ended, and was started or submitted."""
    state_type, start_time = row[3], row[4]
    is_final = state_type >= FINAL_TYPES[0].number
    return not is_final and (start_time is not None or state_type > StateType.SCHEDULED.number)
