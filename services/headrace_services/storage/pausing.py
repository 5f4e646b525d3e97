"""Pauses and what runs are told: commands, and what a paused state brings with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from headrace.core.errors import FieldsInvalid, FieldViolation, ObjectAlreadyExists, ObjectNotFound
from headrace.core.ids import new_id
from headrace.v1.run_service_pb2 import ProposeStateResponse, RunInput
from headrace.v1.state_pb2 import (
    STATE_TYPE_FAILED,
    STATE_TYPE_PAUSED,
    STATE_TYPE_RUNNING,
    STATE_TYPE_SCHEDULED,
    ScheduledDetails,
    State,
)
from headrace_services.domain.json_schema import Fault, faults
from headrace_services.domain.states import PAUSED
from headrace_services.storage import steps
from headrace_services.storage.command import Command
from headrace_services.storage.instants import micros, set_micros
from headrace_services.storage.ops import Wanted
from headrace_services.storage.pause_notes import input_key
from headrace_services.storage.proposals import propose
from headrace_services.storage.rows import RunRow, text
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import TimerKind, Work

__all__ = ["DeleteRunInput", "ExpirePause", "ResumeRun", "SendRunInput"]

_FAULTS_SHOWN: Final = 50


class ResumeRun(Command[ProposeStateResponse]):
    """A paused run goes on, with the input it asked for."""

    def __init__(self, run_id: str, state_id: str, answer: str) -> None:
        super().__init__()
        self._run_id = run_id.lower()
        self._state_id = state_id.lower()
        self._answer_text = answer

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._run_id)
        wanted.facts.append((self._run_id, self._state_id))

    def apply(self, work: Work) -> Steps[ProposeStateResponse]:
        run = work.runs.get(self._run_id)
        if run is None:
            raise ObjectNotFound.of("run", self._run_id)
        facts = work.facts.get((self._run_id, self._state_id))
        current = work.current_state(run, facts)
        is_repeated = facts is not None and facts[1] is not None
        if current is None or (current.type != STATE_TYPE_PAUSED and not is_repeated):
            return _refused(f"The run is not paused: it is {run.state_name or 'without a state'}.")
        keyset = current.paused.input_keyset
        answer = b""
        if keyset and not is_repeated:
            answer = yield from self._checked_answer(work, keyset)
        response = yield from propose(work, run, self._next_state(work, current))
        if keyset and answer and response.WhichOneof("verdict") == "accepted":
            work.writes.inputs[run.id, input_key(keyset, "response")] = (answer, "")
        return response

    def _next_state(self, work: Work, paused: State) -> State:
        state = State(id=self._state_id)
        set_micros(state.event_time, work.now)
        if paused.paused.reschedule:
            state.type, state.name = STATE_TYPE_SCHEDULED, "Resuming"
            set_micros(state.scheduled.scheduled_time, work.now)
            state.scheduled.cause = ScheduledDetails.CAUSE_RESUMED
        else:
            state.type = STATE_TYPE_RUNNING
        return state

    def _checked_answer(self, work: Work, keyset: str) -> Steps[bytes]:
        """The answer as it is kept.

        Raises:
            FieldsInvalid: it does not fit the schema of the pause.
        """
        value = _parsed("input", self._answer_text or "{}")
        schema = yield from _load_input(work, self._run_id, input_key(keyset, "schema"))
        if schema is not None:
            wrong = list(_violations(value, schema))
            if wrong:
                summary = "; ".join(f"{fault.field}: {fault.description}" for fault in wrong)
                raise FieldsInvalid(f"The input does not fit: {summary}", violations=wrong)
        return json.dumps(value).encode()


def _refused(reason: str) -> ProposeStateResponse:
    return ProposeStateResponse(abort=ProposeStateResponse.Abort(reason=reason))


def _parsed(field: str, value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise FieldsInvalid.of(field, "must be JSON") from None


def _violations(value: object, schema: bytes) -> Iterator[FieldViolation]:
    """What in the answer does not fit; nothing for a schema that cannot be read."""
    try:
        rules = json.loads(schema)
    except (ValueError, RecursionError):
        return
    for number, fault in enumerate(faults(value, rules)):
        if number == _FAULTS_SHOWN:
            return
        yield FieldViolation(_field(fault), f"{fault.reason}")


def _field(fault: Fault) -> str:
    return f"input.{fault.path}" if fault.path else "input"


def _load_input(work: Work, run_id: str, key: str) -> Steps[bytes | None]:
    """The value of one of the run's inputs, written in this transaction or before."""
    if (run_id, key) in work.writes.inputs:
        said = work.writes.inputs[run_id, key]
        return None if said is None else said[0]
    rows = yield from steps.load_inputs(run_id, [key])
    value: bytes | None = rows[0][1] if rows else None
    return value


class ExpirePause(Command[bool]):
    """A pause has lasted its time; nothing happens to a run that has left it."""

    def __init__(self, run_id: str, state_id: str) -> None:
        super().__init__()
        self._run_id = run_id.lower()
        self._state_id = state_id.lower()

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._run_id)

    def apply(self, work: Work) -> Steps[bool]:
        run = work.runs.get(self._run_id)
        if run is None or run.state_id != self._state_id or run.books.type is not PAUSED:
            work.writes.timers[TimerKind.PAUSE, self._run_id] = None
            return False
        yield from work.load_facts([(run.id, self._state_id)])
        current = work.current_state(run, work.facts.get((run.id, self._state_id)))
        if current is None or micros(current.paused.timeout_time) > work.now:
            return False
        # Rule 12 makes of any proposal what has to be written: that the run was never resumed.
        failed = State(id=new_id(), type=STATE_TYPE_FAILED)
        set_micros(failed.event_time, work.now)
        yield from propose(work, run, failed)
        return True


class SendRunInput(Command[RunInput]):
    """A run is told something."""

    def __init__(self, said: RunInput) -> None:
        super().__init__()
        self._said = said
        self._run_id = said.run_id.lower()

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._run_id)

    def apply(self, work: Work) -> Steps[RunInput]:
        run = work.runs.get(self._run_id)
        if run is None:
            raise ObjectNotFound.of("run", self._run_id)
        _parsed("input.value", self._said.value)
        key, value, sender = text(self._said.key), self._said.value.encode(), text(self._said.sender)
        before = yield from _find_input(work, run, key)
        if before is None:
            work.writes.inputs[run.id, key] = (value, sender)
        elif before[:2] != (value, sender):
            raise ObjectAlreadyExists(
                f"Run {run.id} has an input '{key}' that says something else.",
                facts={"kind": "run input", "key": key},
            )
        kept = RunInput(run_id=run.id, key=key, value=self._said.value, sender=sender)
        set_micros(kept.create_time, work.now if before is None else before[2])
        return kept


def _find_input(work: Work, run: RunRow, key: str) -> Steps[tuple[bytes, str, int] | None]:
    """Value, sender and create time of one of the run's inputs."""
    if (run.id, key) in work.writes.inputs:
        said = work.writes.inputs[run.id, key]
        return None if said is None else (*said, work.now)
    rows = yield from steps.load_inputs(run.id, [key])
    return (rows[0][1], rows[0][2], rows[0][3]) if rows else None


class DeleteRunInput(Command[None]):
    """What a run was told is forgotten."""

    def __init__(self, run_id: str, key: str) -> None:
        super().__init__()
        self._run_id = run_id.lower()
        self._key = key

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._run_id)

    def apply(self, work: Work) -> Steps[None]:
        if work.runs.get(self._run_id) is None:
            raise ObjectNotFound.of("run", self._run_id)
        work.writes.inputs[self._run_id, text(self._key)] = None
        yield from ()
