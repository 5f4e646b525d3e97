"""Commands that need a transaction of their own: ending recorders, deleting runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from headrace.core.errors import ObjectNotFound, RunActive
from headrace.core.ids import new_id
from headrace.core.states import StateType, default_name
from headrace.v1.state_pb2 import CrashedDetails, State
from headrace_services.domain.books import keep_books
from headrace_services.domain.states import CANCELLED, CANCELLING, CRASHED, FINAL_TYPES
from headrace_services.storage import steps
from headrace_services.storage.command import Command
from headrace_services.storage.instants import set_micros
from headrace_services.storage.ops import Wanted
from headrace_services.storage.rows import RecorderRow, RunRow, flow_id_of
from headrace_services.storage.steps import Row, Steps
from headrace_services.storage.work import Work

__all__ = ["CrashRecorder", "DeleteFlow", "DeleteRun", "SealRecorder"]

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
        return (yield from crash_runs(work, self._id, self._reason, self._cause, is_presumed=True))

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
    work: Work, recorder_id: str, reason: str, cause: CrashedDetails.Cause.ValueType, *, is_presumed: bool
) -> Steps[list[str]]:
    """Mark the unfinished runs that the recorder executes, children first; their ids."""
    ids = [row[0] for row in (yield from steps.load_unfinished(recorder_id))]
    yield from work.load_runs(ids)
    runs = [run for id in ids if (run := work.runs.get(id)) is not None]
    for run in _children_first(runs):
        _end(work, run, reason, cause, is_presumed)
    return [run.id for run in _children_first(runs)]


def _children_first(runs: Collection[RunRow]) -> list[RunRow]:
    by_id = {run.id: run for run in runs}

    def depth(run: RunRow) -> int:
        steps_up, parent = 0, run.parent_id
        while parent in by_id:
            steps_up, parent = steps_up + 1, by_id[parent].parent_id
        return steps_up

    return sorted(runs, key=depth, reverse=True)


def _end(
    work: Work, run: RunRow, reason: str, cause: CrashedDetails.Cause.ValueType, is_presumed: bool
) -> None:
    """Write the state of a run whose process is gone: what was being cancelled is cancelled."""
    if run.books.type in FINAL_TYPES:
        return
    type: StateType = CANCELLED if run.books.type is CANCELLING else CRASHED
    books = keep_books(run.books, type, work.now)
    state = State(id=new_id(), type=type.number, name=default_name(type), message=reason)  # type: ignore[arg-type]
    set_micros(state.event_time, books.timestamp)
    set_micros(state.record_time, work.now)
    if type is CRASHED:
        state.crashed.cause = cause
    run.is_presumed = is_presumed
    work.enter(run, state.id, state.name, books, state.SerializeToString())


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
    """A flow goes, with all its runs."""

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
