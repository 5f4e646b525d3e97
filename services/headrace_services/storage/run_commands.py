"""Commands on single runs: create, propose, update."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from headrace.core.errors import (
    EtagMismatch,
    FieldsInvalid,
    ObjectAlreadyExists,
    ObjectNotFound,
    RequestIdReused,
    ServiceError,
    TransitionNotAllowed,
)
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import RUN_KIND_FLOW, AttemptRef, Run
from headrace.v1.run_service_pb2 import CONFLICT_POLICY_FAIL, ConflictPolicy, ProposeStateResponse
from headrace.v1.state_pb2 import STATE_TYPE_SCHEDULED, ScheduledDetails, State
from headrace_services.storage import steps
from headrace_services.storage.command import Command
from headrace_services.storage.instants import set_micros
from headrace_services.storage.ops import Wanted, run_op
from headrace_services.storage.proposals import propose
from headrace_services.storage.rows import RunRow, encode_tags, flow_id_of, full_spec, text
from headrace_services.storage.run_codec import run_message
from headrace_services.storage.run_making import load_full, make_run, stale_attempt
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["CreateRun", "ProposeState", "UpdateRun"]


class CreateRun(Command[tuple[Run, bool]]):
    """A run is asked for."""

    def __init__(self, run: Run, idempotency_key: str, on_conflict: ConflictPolicy.ValueType) -> None:
        super().__init__()
        self._run = run
        self._key = text(idempotency_key)
        self.is_optimistic = run.kind == RUN_KIND_FLOW
        self._on_conflict = on_conflict
        self._op = run_op(run)
        asked = run.SerializeToString(deterministic=True)
        self._digest = hashlib.sha256(asked + b"\0" + idempotency_key.encode()).digest()

    def wanted(self, wanted: Wanted) -> None:
        op = self._op
        wanted.runs.update(id for id in (op.id, op.owner_id, op.parent_id, op.root_id) if id)
        wanted.roots.add(op.id)
        wanted.fresh.add(op.id)
        if self._run.flow_name:
            wanted.flows.add(self._run.flow_name)
        keyed = self._keyed()
        if keyed is not None:
            wanted.keys.add(keyed)

    def apply(self, work: Work) -> Steps[tuple[Run, bool]]:
        existing = work.runs.get(self._op.id)
        if existing is not None:
            if existing.create_digest not in (None, self._digest):
                raise RequestIdReused(
                    f"Run {existing.id} was created by a request that says something else.",
                    facts={"run_id": existing.id},
                )
            return (yield from self._shown(work, existing)), True
        keyed = self._keyed()
        existing = work.runs.get(work.keys[keyed]) if keyed in work.keys else None
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

    def _keyed(self) -> tuple[str, str] | None:
        """The run's flow and idempotency key, if it has both."""
        if not self._key or not self._run.flow_name:
            return None
        return flow_id_of(text(self._run.flow_name)), self._key

    def _make(self, work: Work) -> RunRow:
        for id in {self._op.parent_id, self._op.root_id, self._op.owner_id} - {"", self._op.id}:
            if work.runs.get(id) is None:
                raise ObjectNotFound.of("run", id)
        run = make_run(work, self._op, None)
        if isinstance(run, ServiceError):
            raise run
        run.attempt, run.fence = 1, 1
        run.create_digest = self._digest
        keyed = self._keyed()
        if keyed is not None:
            run.idempotency_key = self._key
            work.keys[keyed] = run.id
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
        if owner is None:
            raise ObjectNotFound.of("run", run.owner_id)
        if owner.fence != attempt.fence:
            raise stale_attempt(owner, attempt.fence)


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
