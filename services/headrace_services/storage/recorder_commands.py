"""Commands of recorders that live: open, record, renew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.core.errors import InternalError, ObjectNotFound, RecorderSealed, SequenceGap, ServiceError
from headrace.v1.record_service_pb2 import AttemptVerdict, RecordEntry, RecorderOpen
from headrace.v1.run_pb2 import AttemptRef
from headrace_services.domain.states import FINAL_TYPES, PAUSED, SCHEDULED
from headrace_services.storage.command import Command
from headrace_services.storage.ops import Op, Wanted, prepare, wanted_by
from headrace_services.storage.recording import apply_entries
from headrace_services.storage.rows import RecorderRow, text
from headrace_services.storage.steps import Conflict, Steps
from headrace_services.storage.values import EntryOutcome, RecorderStatus, RecordOutcome
from headrace_services.storage.work import Work

__all__ = ["OpenRecorder", "Record", "Renew"]


class Record(Command[RecordOutcome]):
    """Entries of a recorder."""

    is_optimistic = True

    def __init__(self, recorder_id: str, first_seq: int, ops: list[Op]) -> None:
        super().__init__()
        self._recorder_id = recorder_id
        self._first_seq = first_seq
        self._ops = ops
        self.weight = len(ops)

    @classmethod
    def of(cls, recorder_id: str, first_seq: int, entries: Sequence[RecordEntry]) -> Record:
        """The command for entries as they came."""
        return cls(recorder_id.lower(), first_seq, prepare(entries))

    def wanted(self, wanted: Wanted) -> None:
        wanted_by(self._ops, wanted)

    def recorders(self) -> Sequence[str]:
        return (self._recorder_id,)

    def apply(self, work: Work) -> Steps[RecordOutcome]:
        recorder = work.recorders.get(self._recorder_id)
        if recorder is None:
            raise ObjectNotFound.of("recorder", self._recorder_id)
        if recorder.is_sealed:
            raise RecorderSealed()
        if recorder.is_remembered and self._first_seq != recorder.durable_seq + 1:
            # Another replica may have gone on: what is remembered is not enough to refuse or to skip.
            raise Conflict
        if self._first_seq > recorder.durable_seq + 1:
            raise SequenceGap.at(recorder.durable_seq)
        results = yield from apply_entries(work, recorder, self._first_seq, self._ops)
        return RecordOutcome(recorder.durable_seq, results)

    def parts(self) -> list[Command[Any]]:
        middle = len(self._ops) // 2
        if not middle:
            return []
        return [
            Record(self._recorder_id, self._first_seq, self._ops[:middle]),
            Record(self._recorder_id, self._first_seq + middle, self._ops[middle:]),
        ]

    def join(self, parts: Sequence[Command[Any]]) -> None:
        outcomes: list[RecordOutcome] = [part.future.result() for part in parts]
        results: list[tuple[int, EntryOutcome]] = [r for outcome in outcomes for r in outcome.results]
        if not self.future.done():
            self.future.set_result(RecordOutcome(outcomes[-1].durable_seq, results))
            self.done()

    def poisoned(self, error: InternalError) -> Command[Any] | None:
        if len(self._ops) != 1 or self._ops[0] is error or isinstance(self._ops[0], ServiceError):
            return None
        return Record(self._recorder_id, self._first_seq, [error])


class OpenRecorder(Command[RecorderStatus]):
    """A recorder's stream opens."""

    needs_lease = True
    needs_lease_clock = True

    def __init__(self, open: RecorderOpen, replica_id: str, lease_seconds: float) -> None:
        super().__init__()
        self._open = open
        self._id = open.recorder_id.lower()
        self._replica_id = replica_id
        self._lease = int(lease_seconds * 1_000_000)

    def wanted(self, wanted: Wanted) -> None:
        _want_attempts(wanted, self._open.executing)

    def recorders(self) -> Sequence[str]:
        return (self._id,)

    def apply(self, work: Work) -> Steps[RecorderStatus]:
        recorder = work.recorders.get(self._id)
        if recorder is None:
            recorder = self._new(work)
        if not recorder.is_sealed:
            recorder.expires_at = work.lease_now + self._lease
            recorder.replica_id = self._replica_id
            work.touch_recorder(recorder, lease=True)
        yield from ()
        return RecorderStatus(
            recorder.durable_seq, recorder.is_sealed, lost_attempts(work, self._open.executing)
        )

    def _new(self, work: Work) -> RecorderRow:
        sdk = self._open.sdk
        recorder = RecorderRow()
        recorder.id = self._id
        recorder.durable_seq = recorder.stored_seq = 0
        recorder.is_sealed = recorder.is_remembered = False
        recorder.is_new = recorder.writes_lease = True
        recorder.host, recorder.pid = text(sdk.host), sdk.pid
        recorder.sdk = text(f"{sdk.name} {sdk.version} {sdk.language}".strip())
        recorder.create_time = work.now
        recorder.dropped_logs = recorder.dropped_spans = 0
        work.recorders[self._id] = recorder
        return recorder


class Renew(Command[list[AttemptVerdict]]):
    """Leases are renewed."""

    def __init__(self, renewals: Mapping[str, int], executing: Sequence[AttemptRef]) -> None:
        super().__init__()
        self._renewals = {id.lower(): expires_at for id, expires_at in renewals.items()}
        self._executing = executing

    def wanted(self, wanted: Wanted) -> None:
        _want_attempts(wanted, self._executing)

    def apply(self, work: Work) -> Steps[list[AttemptVerdict]]:
        work.writes.renewals.update(self._renewals)
        yield from ()
        return lost_attempts(work, self._executing)


def _want_attempts(wanted: Wanted, executing: Sequence[AttemptRef]) -> None:
    for attempt in executing:
        wanted.runs.add(attempt.run_id.lower())
        wanted.roots.add(attempt.run_id.lower())


def lost_attempts(work: Work, executing: Sequence[AttemptRef]) -> list[AttemptVerdict]:
    """Those of the attempts that no longer own their runs, or must leave them: the runs are suspended."""
    verdicts: list[AttemptVerdict] = []
    for attempt in executing:
        run = work.runs.get(attempt.run_id.lower())
        owner = run if run is None or run.owner_id == run.id else work.runs.get(run.owner_id)
        if owner is None:
            # It may be recorded in a moment: only a run that was deleted is lost.
            if attempt.run_id.lower() in work.deleted:
                verdicts.append(AttemptVerdict(attempt=attempt, lost=True, reason="The run was deleted."))
        elif owner.fence != attempt.fence:
            reason = f"The run is owned by its attempt {owner.attempt}."
            if owner.books.type in FINAL_TYPES:
                reason = f"The run has ended: it is {owner.state_name}."
            verdicts.append(AttemptVerdict(attempt=attempt, lost=True, reason=reason))
        elif owner.recorder_id is None and owner.books.type in (PAUSED, SCHEDULED):
            reason = f"The run is {owner.state_name}."
            verdicts.append(AttemptVerdict(attempt=attempt, suspended=True, reason=reason))
    return verdicts
