"""The rows one transaction works on, in memory between the one load and the one write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from headrace.core.states import StateType
from headrace.v1.run_pb2 import RUN_KIND_FLOW
from headrace.v1.state_pb2 import State
from headrace_services.domain.books import Books
from headrace_services.domain.effects import RetryType
from headrace_services.domain.states import CANCELLED, CANCELLING, PAUSED
from headrace_services.storage import steps
from headrace_services.storage.declared_rows import DeploymentRow, WorkPoolRow, WorkQueueRow
from headrace_services.storage.entities import Entity
from headrace_services.storage.fairness_rows import FairnessRuleRow
from headrace_services.storage.queueing import Queueing, may_be_dispatched
from headrace_services.storage.rows import RecorderRow, RunRow, decode_tags
from headrace_services.storage.rowset import Rows, RowWrites
from headrace_services.storage.state_codec import StateStamp
from headrace_services.storage.steps import Row, Steps

_DECIDING: Final = (DeploymentRow, FairnessRuleRow, WorkPoolRow, WorkQueueRow)
"""Tables whose changes may let a run go that has waited."""

__all__ = ["Facts", "TimerKind", "Work", "Writes", "recorder_from_row", "run_from_row"]

Facts = tuple[bytes | None, bytes | None, int | None]
"""A run's current state, the state that has the proposed id, and its recorder's lease."""
_TYPES: Final = (None, *StateType)
_NO_RUNS: Final[Mapping[str, RunRow]] = MappingProxyType({})


class TimerKind(IntEnum):
    """What the server does to a run at some instant."""

    PAUSE = 1
    """End its pause."""
    CANCEL = 2
    """End it, as it is being cancelled; or, if it was, what is left below it."""


def run_from_row(row: Row) -> RunRow:
    """A run as it was loaded: the columns of `columns.RUN_COLUMNS`."""
    run = RunRow()
    (
        run.id, run.kind, run.flow_id, run.name, run.task_name, run.root_id, run.parent_id, run.owner_id,
        run.recorder_id, run.deployment_id, run.work_pool, run.work_queue, run.idempotency_key,
        run.create_digest, run.tags, type_number, run.state_name, run.state_id, timestamp, run.state_seq,
        is_presumed, run.attempt, run.fence, run_count, run.flow_run_count, is_resuming, retry_type,
        run.pause_keys, run.create_time, start, end, expected, upcoming, run_time, run.version, run.spec,
    ) = row  # fmt: skip
    run.is_presumed = bool(is_presumed)
    run.retry_type = RetryType(retry_type)
    run.books = Books(
        *(_TYPES[type_number], timestamp or 0, start, end, expected, upcoming),
        *(run_time, run_count, bool(is_resuming)),
    )
    run.full_spec = run.body = None
    run.entered, run.is_history_known = [], False
    run.stored_version, run.stored_type, run.stored_tags = run.version, type_number, run.tags
    run.writes_spec = run.writes_full_spec = False
    run.requeue = None
    return run


def recorder_from_row(row: Row) -> RecorderRow:
    """A recorder as it was loaded: the columns of `columns.RECORDER_COLUMNS`."""
    recorder = RecorderRow()
    (
        recorder.id, recorder.durable_seq, is_sealed, recorder.expires_at, recorder.replica_id,
        recorder.host, recorder.pid, recorder.sdk, recorder.create_time, recorder.dropped_logs,
        recorder.dropped_spans,
    ) = row  # fmt: skip
    recorder.is_sealed = bool(is_sealed)
    recorder.is_new = recorder.is_remembered = recorder.writes_lease = False
    recorder.stored_seq = recorder.durable_seq
    return recorder


class Writes:
    """Everything that one transaction writes, by table, and what it has decided by without writing it."""

    __slots__ = (
        "absent_runs",
        "confirmed_flows",
        "confirmed_runs",
        "deleted_flows",
        "deleted_runs",
        "ended_attempts",
        "events",
        "flows",
        "inputs",
        "inserted_runs",
        "is_trimming",
        "kept_rows",
        "logs",
        "passes",
        "recorders",
        "renewals",
        "requests",
        "row_writes",
        "rows",
        "spans",
        "states",
        "tag_deletes",
        "tag_inserts",
        "time",
        "timers",
        "tombstones",
        "unkeyed",
        "unqueued",
        "updated_runs",
    )

    def __init__(self, time: int) -> None:
        self.time = time
        self.inserted_runs: list[RunRow] = []
        self.updated_runs: list[RunRow] = []
        self.states: list[Row] = []
        self.tag_inserts: list[Row] = []
        self.tag_deletes: list[Row] = []
        self.recorders: list[RecorderRow] = []
        self.flows: dict[str, str] = {}
        self.logs: list[Row] = []
        self.spans: list[Row] = []
        self.events: list[Row] = []
        self.requests: list[Row] = []
        self.renewals: dict[str, int] = {}
        self.deleted_runs: list[Row] = []
        # Ids of runs that nobody holds any more.
        self.ended_attempts: list[str] = []
        self.deleted_flows: list[str] = []
        self.tombstones: list[str] = []
        # By run id and key: value and sender; None: the input goes.
        self.inputs: dict[tuple[str, str], tuple[bytes, str] | None] = {}
        # By kind and run id: state id and due time; None: the timer goes.
        self.timers: dict[tuple[int, str], tuple[str, int] | None] = {}
        self.is_trimming = False
        self.rows = Rows()
        # What is left of them for the end.
        self.row_writes: list[RowWrites] = []
        # Ids of runs that leave the queue.
        self.unqueued: list[str] = []
        # By the name of a line in which runs take turns by key: how far it has come.
        self.passes: dict[str, int] = {}
        # What the write fails without, because it was read and not locked: runs at these versions, flows.
        self.confirmed_runs: list[tuple[str, int]] = []
        self.confirmed_flows: list[str] = []
        # Ids of runs that must not have been deleted.
        self.absent_runs: list[str] = []
        # Rows of other tables, as they were read; names of lines in which nobody has used a key yet.
        self.kept_rows: dict[type[Entity], list[Entity]] = {}
        self.unkeyed: list[str] = []

    @property
    def is_empty(self) -> bool:
        """There is nothing to write."""
        return not (
            self.inserted_runs
            or self.updated_runs
            or self.recorders
            or self.logs
            or self.spans
            or self.events
            or self.requests
            or self.renewals
            or self.deleted_runs
            or self.deleted_flows
            or self.inputs
            or self.timers
            or self.unqueued
            or self.passes
            or not self.rows.is_empty
        )


class Work:
    """What the commands of one transaction share.

    Attributes:
        now: the server's clock, microseconds: the record time of everything that is written.
        lease_now: the clock of leases, microseconds.
        runs: loaded and new runs; None: there is none with that id.
        recorders: loaded and new recorders.
        facts: what proposals need beyond the row.
        keys: ids of runs by flow id and idempotency key.
        known_flows: ids of flows that are in the database.
        new_roots: ids of runs that would be made at the top of a tree, unless they were deleted once; not
            looked up beforehand, so the write must fail for those that were.
        deleted: ids of runs that were deleted while something may have executed them.
        rows: pools, queues, deployments and whatever else is an entity.
        is_optimistic: rows are not locked when they are read, so the write must confirm them.
        queueing: who waits for a worker from now on, and who does not any more.

    Args:
        remembered: runs that need not be loaded; for an optimistic transaction only.
        known_routes: lines of the queue that are in the database.
        keyed_scopes: see `Queueing`.
    """

    def __init__(
        self,
        now: int,
        lease_now: int,
        *,
        is_optimistic: bool = False,
        remembered: Mapping[str, RunRow] = _NO_RUNS,
        known_routes: Collection[int] = (),
        keyed_scopes: set[str] | None = None,
    ) -> None:
        self.now = now
        self.lease_now = lease_now
        self.is_optimistic = is_optimistic
        self._remembered = remembered
        self.stamp = StateStamp(now)
        self.runs: dict[str, RunRow | None] = {}
        self.recorders: dict[str, RecorderRow] = {}
        self.facts: dict[tuple[str, str], Facts] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.known_flows: set[str] = set()
        self.deleted: set[str] = set()
        self.new_roots: set[str] = set()
        self.writes = Writes(now)
        self.rows = self.writes.rows
        self.queueing = Queueing(self, known_routes, set() if keyed_scopes is None else keyed_scopes)
        self._touched: dict[str, RunRow] = {}
        self._touched_recorders: dict[str, RecorderRow] = {}

    # Loading

    def expect_new(self, ids: Iterable[str]) -> None:
        """Where the write confirms it, take for granted that there are no such runs but those known."""
        if self.is_optimistic:
            self.runs.update((id, None) for id in ids if id not in self._remembered)

    def load_runs(self, ids: Iterable[str]) -> Steps[None]:
        """Make `runs` know about `ids`, and about the owners of those that exist."""
        missing = self._recall({id for id in ids if id not in self.runs})
        if not missing:
            return
        for row in (yield from steps.load_runs(missing)):
            if row[0] not in self.runs:
                self.runs[row[0]] = run_from_row(row)
        for id in missing:
            self.runs.setdefault(id, None)

    def _recall(self, ids: set[str]) -> set[str]:
        """Take what is remembered of the runs and their owners; the ids of those that must be loaded."""
        found = [run for id in ids if (run := self._remembered.get(id)) is not None]
        if not found:
            return ids
        missing = ids.difference(run.id for run in found)
        self.runs.update((run.id, run) for run in found)
        owners = {run.owner_id for run in found if run.owner_id not in self.runs}
        return missing | self._recall(owners) if owners else missing

    def load_recorders(self, ids: Iterable[str]) -> Steps[None]:
        """Make `recorders` know about those of `ids` that exist."""
        missing = {id for id in ids if id not in self.recorders}
        if missing:
            for row in (yield from steps.load_recorders(missing)):
                recorder = self.recorders[row[0]] = recorder_from_row(row)
                recorder.is_remembered = self.is_optimistic

    def needs_facts(self, run: RunRow) -> bool:
        """Whether a decision on the run needs more of the database than the rows at hand."""
        if run.stored_version is None:  # of a run that is made right now, the database knows nothing
            return False
        is_recorder_known = run.recorder_id is None or run.recorder_id in self.recorders
        return not (run.is_history_known and is_recorder_known)

    def load_facts(self, pairs: Collection[tuple[str, str]]) -> Steps[None]:
        """Make `facts` know about (run id, state id)."""
        missing = [pair for pair in pairs if pair not in self.facts]
        if missing:
            for run_id, state_id, current, earlier, lease in (yield from steps.load_facts(missing)):
                self.facts[run_id, state_id] = (current, earlier, lease)

    def load_known(self, flow_ids: set[str], run_ids: set[str]) -> Steps[None]:
        """Make `known_flows` and `deleted` know about these."""
        if flow_ids or run_ids:
            for is_run, id in (yield from steps.load_known(flow_ids, run_ids)):
                (self.deleted if is_run else self.known_flows).add(id)

    def load_keys(self, pairs: Collection[tuple[str, str]]) -> Steps[None]:
        """Make `keys` know about (flow id, idempotency key), and `runs` about the runs that have them."""
        if pairs:
            for flow_id, key, run_id in (yield from steps.load_keys(pairs)):
                self.keys[flow_id, key] = run_id
            yield from self.load_runs(self.keys.values())

    # Changing

    def touch(self, run: RunRow) -> None:
        """The run will be written."""
        if run.id not in self._touched:
            self._touched[run.id] = run
            run.version += 1

    def touch_recorder(self, recorder: RecorderRow, *, lease: bool = False) -> None:
        """The recorder will be written, with its lease or without."""
        self._touched_recorders[recorder.id] = recorder
        recorder.writes_lease |= lease

    def enter(self, run: RunRow, state_id: str, name: str, books: Books, body: bytes) -> None:
        """The run enters a state."""
        type = books.type
        assert type is not None
        if run.books.type is PAUSED and type is not PAUSED and run.kind == RUN_KIND_FLOW:
            self.writes.timers[TimerKind.PAUSE, run.id] = None
        if type is CANCELLED and run.kind == RUN_KIND_FLOW:
            self.writes.timers[TimerKind.CANCEL, run.id] = (state_id, self.now)
        elif run.books.type is CANCELLING:
            self.writes.timers[TimerKind.CANCEL, run.id] = None
        before, name_before = run.books, run.state_name
        run.state_seq += 1
        run.state_id = state_id
        run.state_name = name
        run.books = books
        run.body = body
        run.entered.append((state_id, body))
        if may_be_dispatched(run):
            self.queueing.entered(run, before, name_before)
        self.touch(run)
        self.writes.states.append(
            (run.id, run.state_seq, state_id, type.number, name, books.timestamp, self.now, body)
        )

    def current_state(self, run: RunRow, facts: Facts | None) -> State | None:
        """The message of the run's current state."""
        body = run.body if run.body is not None else (facts[0] if facts is not None else None)
        return None if body is None else State.FromString(body)

    # Writing

    def flush(self, before: Callable[[], None]) -> Steps[None]:
        """Write what was changed; `before` is called when it is known what that is."""
        writes = self.writes
        for run in self._touched.values():
            if run.stored_version is None:
                writes.inserted_runs.append(run)
            else:
                writes.updated_runs.append(run)
            self._write_tags(run)
        writes.recorders.extend(self._touched_recorders.values())
        yield from self.queueing.flush()
        writes.row_writes = yield from self.rows.take()
        self.queueing.has_news |= not self.rows.written.isdisjoint(_DECIDING)
        if self.is_optimistic:
            self._confirm()
        before()
        if not writes.is_empty or writes.confirmed_runs:
            yield from steps.flush(writes)
        for rows in writes.row_writes:
            rows.note_stored()

    def _confirm(self) -> None:
        """Note what the decisions rest on beside the rows that are written, each at its version."""
        writes = self.writes
        writes.confirmed_runs = sorted(
            (run.id, run.stored_version)
            for run in self.runs.values()
            if run is not None and run.stored_version is not None and run.id not in self._touched
        )
        flow_ids = {run.flow_id for run in writes.inserted_runs if run.flow_id is not None}
        writes.confirmed_flows = sorted(flow_ids - writes.flows.keys())
        written = {id(row) for rows in writes.row_writes for row in (*rows.updated, *rows.deleted)}
        for (cls, _), row in self.rows.kept.items():
            if id(row) not in written:
                writes.kept_rows.setdefault(cls, []).append(row)
        writes.absent_runs = [run.id for run in writes.inserted_runs if run.id in self.new_roots]

    def _write_tags(self, run: RunRow) -> None:
        """Keep the rows that lists filter tags by in step with the run."""
        if not run.tags and not run.stored_tags:
            return
        type_number = 0 if run.books.type is None else run.books.type.number
        now = {(tag, run.kind, type_number, run.create_time, run.id) for tag in decode_tags(run.tags)}
        before: set[Row] = set()
        if run.stored_version is not None:
            stored = decode_tags(run.stored_tags)
            before = {(tag, run.kind, run.stored_type, run.create_time, run.id) for tag in stored}
        # No row in both: one statement may do it all.
        self.writes.tag_deletes.extend(sorted(before - now))
        self.writes.tag_inserts.extend(sorted(now - before))
