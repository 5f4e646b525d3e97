"""What can be asked of the writer. A command says what to load, then changes the rows at hand."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from headrace.core.errors import (
    EtagMismatch,
    FieldsInvalid,
    InternalError,
    ObjectAlreadyExists,
    ObjectNotFound,
    RecorderSealed,
    RequestIdReused,
    SequenceGap,
    ServiceError,
    StaleAttempt,
    TransitionNotAllowed,
)
from headrace.core.ids import new_id
from headrace.v1.record_service_pb2 import AttemptVerdict, RecordEntry, RecorderOpen
from headrace.v1.run_pb2 import AttemptRef, Run
from headrace.v1.run_service_pb2 import CONFLICT_POLICY_FAIL, ConflictPolicy, ProposeStateResponse
from headrace.v1.state_pb2 import STATE_TYPE_SCHEDULED, ScheduledDetails, State
from headrace_services.domain.states import PAUSED, SCHEDULED
from headrace_services.storage import steps
from headrace_services.storage.instants import set_micros
from headrace_services.storage.proposals import propose
from headrace_services.storage.recording import (
    Op,
    RunOp,
    Wanted,
    apply_entries,
    load_full,
    make_run,
    prepare,
    wanted_by,
)
from headrace_services.storage.rows import RecorderRow, RunRow, encode_tags, flow_id_of, full_spec, text
from headrace_services.storage.run_codec import run_message
from headrace_services.storage.steps import Conflict, Steps
from headrace_services.storage.values import EntryOutcome, RecorderStatus, RecordOutcome
from headrace_services.storage.work import Work

__all__ = ["Command", "CreateRun", "OpenRecorder", "ProposeState", "Record", "Renew", "UpdateRun"]

T = TypeVar("T")


class Command(Generic[T]):
    """One request to the writer.

    Attributes:
        future: resolved when the command is durable, or has failed.
        weight: how much of a batch it fills; a record counts its entries.
    """

    weight = 1
    is_solo = False
    """Needs a transaction of its own."""
    needs_lease = False
    """Decides on a recorder's lease, which others renew: it must be loaded."""

    def __init__(self) -> None:
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._answer: T | None = None
        self._error: BaseException | None = None

    def wanted(self, wanted: Wanted) -> None:
        """Add what must be loaded to `wanted`."""

    def recorders(self) -> Sequence[str]:
        """The recorders that must be loaded."""
        return ()

    def apply(self, work: Work) -> Steps[T]:
        """Change the rows at hand. A `ServiceError` is raised before anything is changed."""
        raise NotImplementedError

    def run(self, work: Work) -> Steps[None]:
        """Apply, and keep the answer until the transaction is committed."""
        self._answer = self._error = None
        try:
            self._answer = yield from self.apply(work)
        except ServiceError as error:
            self._error = error

    def finish(self) -> None:
        """Give the answer: the transaction is committed."""
        if self.future.done():
            return  # whoever asked has gone
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._answer)  # type: ignore[arg-type]  # apply has set it

    def fail(self, error: BaseException) -> None:
        """Nothing of the command was written."""
        if not self.future.done():
            self.future.set_exception(error)

    def parts(self) -> list[Command[Any]]:
        """The command in smaller pieces, to find the one that breaks; empty when there are none."""
        return []

    def join(self, parts: Sequence[Command[Any]]) -> None:
        """Take the answer from the pieces, which are committed."""
        raise NotImplementedError

    def poisoned(self, error: InternalError) -> Command[Any] | None:
        """What to commit in place of a command that breaks by itself; None: nothing."""
        return None


class Record(Command[RecordOutcome]):
    """Entries of a recorder."""

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

    def poisoned(self, error: InternalError) -> Command[Any] | None:
        if len(self._ops) != 1 or self._ops[0] is error or isinstance(self._ops[0], ServiceError):
            return None
        return Record(self._recorder_id, self._first_seq, [error])


class OpenRecorder(Command[RecorderStatus]):
    """A recorder's stream opens."""

    needs_lease = True

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
            verdicts.append(AttemptVerdict(attempt=attempt, lost=True, reason=reason))
        elif owner.recorder_id is None and owner.books.type in (PAUSED, SCHEDULED):
            reason = f"The run is {owner.state_name}."
            verdicts.append(AttemptVerdict(attempt=attempt, suspended=True, reason=reason))
    return verdicts


class CreateRun(Command[tuple[Run, bool]]):
    """A run is asked for."""

    def __init__(self, run: Run, idempotency_key: str, on_conflict: ConflictPolicy.ValueType) -> None:
        super().__init__()
        self._run = run
        self._key = text(idempotency_key)
        self._on_conflict = on_conflict
        root_id = run.root_run_id.lower()
        self._op = RunOp(
            run, run.id.lower(), run.owner_run_id.lower() or root_id, run.parent_run_id.lower(), root_id
        )
        asked = run.SerializeToString(deterministic=True)
        self._digest = hashlib.sha256(asked + b"\0" + idempotency_key.encode()).digest()

    def wanted(self, wanted: Wanted) -> None:
        op = self._op
        wanted.runs.update(id for id in (op.id, op.owner_id, op.parent_id, op.root_id) if id)
        wanted.roots.add(op.id)
        if self._run.flow_name:
            wanted.flows.add(self._run.flow_name)

    def apply(self, work: Work) -> Steps[tuple[Run, bool]]:
        existing = work.runs.get(self._op.id)
        if existing is not None:
            if existing.create_digest not in (None, self._digest):
                raise RequestIdReused(
                    f"Run {existing.id} was created by a request that says something else.",
                    facts={"run_id": existing.id},
                )
            return (yield from self._shown(work, existing)), True
        existing = yield from self._by_key(work)
        if existing is not None:
            if self._on_conflict == CONFLICT_POLICY_FAIL:
                raise ObjectAlreadyExists(
                    f"Run {existing.id} has the idempotency key '{self._key}' already.",
                    facts={"kind": "run", "key": existing.id},
                )
            return (yield from self._shown(work, existing)), True
        run = self._make(work)
        yield from propose(work, run, self._first_state(work))
        return (yield from self._shown(work, run)), False

    def _by_key(self, work: Work) -> Steps[RunRow | None]:
        """The run that has the idempotency key."""
        if not self._key or not self._run.flow_name:
            return None
        flow_id = flow_id_of(text(self._run.flow_name))
        for run in work.runs.values():
            if run is not None and run.idempotency_key == self._key and run.flow_id == flow_id:
                return run
        found = yield from steps.load_keys([(flow_id, self._key)])
        if not found:
            return None
        run_id: str = found[0][2]
        yield from work.load_runs([run_id])
        return work.runs.get(run_id)

    def _make(self, work: Work) -> RunRow:
        for id in {self._op.parent_id, self._op.root_id, self._op.owner_id} - {"", self._op.id}:
            if work.runs.get(id) is None:
                raise ObjectNotFound.of("run", id)
        run = make_run(work, self._op, None)
        if isinstance(run, ServiceError):
            raise run
        run.attempt, run.fence = 1, 1
        run.create_digest = self._digest
        run.idempotency_key = self._key if self._key and run.flow_id is not None else None
        return run

    def _first_state(self, work: Work) -> State:
        if self._run.HasField("state"):
            return self._run.state
        state = State(id=new_id(), type=STATE_TYPE_SCHEDULED)
        set_micros(state.event_time, work.now)
        set_micros(state.scheduled.scheduled_time, work.now)
        state.scheduled.cause = ScheduledDetails.CAUSE_CREATED
        return state

    def _shown(self, work: Work, run: RunRow) -> Steps[Run]:
        return (yield from shown(work, run))


def shown(work: Work, run: RunRow) -> Steps[Run]:
    """The run as it is now, view FULL."""
    yield from load_full(run)
    body = run.body
    if body is None and run.state_id is not None:
        pair = (run.id, run.state_id)
        yield from work.load_facts([pair])
        body = work.facts[pair][0]
    return run_message(run, body, work.now, full=True)


class ProposeState(Command[ProposeStateResponse]):
    """A state is proposed."""

    def __init__(
        self, run_id: str, attempt: AttemptRef | None, state: State, force: bool, actor: str
    ) -> None:
        super().__init__()
        self._run_id = run_id.lower()
        self._attempt = attempt
        self._state = state
        self._force = force
        self._actor = actor

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._run_id)
        wanted.facts.append((self._run_id, self._state.id.lower()))

    def apply(self, work: Work) -> Steps[ProposeStateResponse]:
        run = work.runs.get(self._run_id)
        if run is None:
            raise ObjectNotFound.of("run", self._run_id)
        if self._attempt is not None:
            self._check_fence(work, run, self._attempt)
        return (
            yield from propose(
                work,
                run,
                self._state,
                by_executor=self._attempt is not None,
                force=self._force,
                actor=self._actor,
            )
        )

    def _check_fence(self, work: Work, run: RunRow, attempt: AttemptRef) -> None:
        owner = work.runs.get(run.owner_id)
        if owner is None or owner.fence != attempt.fence:
            raise StaleAttempt(facts={"run_id": run.id})


_EDITABLE = ("name", "tags", "labels", "parameters")


class UpdateRun(Command[Run]):
    """Facts about a run are corrected."""

    def __init__(self, run: Run, paths: Sequence[str], request_id: str) -> None:
        super().__init__()
        self._run = run
        self._paths = tuple(paths)
        self._request_id = request_id
        asked = run.SerializeToString(deterministic=True) + "\0".join(sorted(paths)).encode()
        self._digest = hashlib.sha256(asked).digest()

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._run.id.lower())

    def apply(self, work: Work) -> Steps[Run]:
        answered = yield from self._answered()
        if answered is not None:
            return answered
        run = work.runs.get(self._run.id.lower())
        if run is None:
            raise ObjectNotFound.of("run", self._run.id)
        self._check(run)
        yield from load_full(run)
        for path in self._paths:
            _set(run, path, self._run)
        work.touch(run)
        answer = yield from shown(work, run)
        if self._request_id:
            row = ("UpdateRun", self._request_id, self._digest, answer.SerializeToString())
            work.writes.requests.append(row)
        return answer

    def _answered(self) -> Steps[Run | None]:
        """The answer that the same request got before."""
        if not self._request_id:
            return None
        for *_, digest, response in (yield from steps.load_requests([("UpdateRun", self._request_id)])):
            if digest != self._digest:
                raise RequestIdReused(facts={"request_id": self._request_id})
            return Run.FromString(response)
        return None

    def _check(self, run: RunRow) -> None:
        unknown = [path for path in self._paths if path not in _EDITABLE]
        if unknown or not self._paths:
            what = ", ".join(_EDITABLE)
            raise FieldsInvalid.of("update_mask", f"names fields that can be changed: {what}")
        if self._run.etag and self._run.etag != str(run.version):
            raise EtagMismatch(facts={"etag": str(run.version)})
        if "parameters" in self._paths and run.books.start_time is not None:
            raise TransitionNotAllowed("The run has started: its parameters are what it ran with.")


def _set(run: RunRow, path: str, source: Run) -> None:
    if path == "name":
        run.name = text(source.name)
    elif path == "tags":
        run.tags = encode_tags(source)
    elif path == "labels":
        spec = Run.FromString(run.spec)
        spec.ClearField("labels")
        spec.labels.update(source.labels)
        run.spec, run.writes_spec = spec.SerializeToString(), True
    else:
        full = Run.FromString(run.full_spec or b"")
        full.ClearField("parameters")
        if source.HasField("parameters"):
            full.parameters.CopyFrom(source.parameters)
        run.full_spec, run.writes_full_spec = full_spec(full) or b"", True
