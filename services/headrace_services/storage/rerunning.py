"""Runs that are run again, or at another time."""

from __future__ import annotations

from headrace.core.errors import ObjectNotFound
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import STATE_TYPE_SCHEDULED, ScheduledDetails, State
from headrace_services.domain.effects import RetryType
from headrace_services.domain.states import FINAL_TYPES, SCHEDULED
from headrace_services.storage.command import Command
from headrace_services.storage.instants import set_micros
from headrace_services.storage.ops import Wanted
from headrace_services.storage.proposals import propose
from headrace_services.storage.rows import RunRow
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["RescheduleRun", "RetryRun", "run_again"]


def run_again(work: Work, run: RunRow, state: State) -> Steps[ProposeStateResponse]:
    """Have the run enter a state in which it is SCHEDULED, if the rules let it.

    What its former process may still have to say of a run that had ended is then about a run that is not its
    own.
    """
    had_ended = run.books.type in FINAL_TYPES
    version = run.state_seq
    response = yield from propose(work, run, state)
    if had_ended and run.state_seq > version and run.books.type is SCHEDULED:
        run.fence += 1
        run.attempt += 1
        run.recorder_id = None
    return response


class _Rerun(Command[ProposeStateResponse]):
    """A run is to be SCHEDULED again."""

    def __init__(self, run_id: str, state_id: str, scheduled_time: int | None) -> None:
        super().__init__()
        self._run_id = run_id.lower()
        self._state_id = state_id.lower()
        self._scheduled_time = scheduled_time

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._run_id)
        wanted.facts.append((self._run_id, self._state_id))

    def apply(self, work: Work) -> Steps[ProposeStateResponse]:
        run = work.runs.get(self._run_id)
        if run is None:
            raise ObjectNotFound.of("run", self._run_id)
        facts = work.facts.get((run.id, self._state_id))
        is_repeated = facts is not None and facts[1] is not None
        refusal = None if is_repeated else self._refusal(run)
        if refusal is not None:
            return ProposeStateResponse(abort=ProposeStateResponse.Abort(reason=refusal))
        return (yield from run_again(work, run, self._state(work)))

    def _state(self, work: Work) -> State:
        state = State(id=self._state_id, type=STATE_TYPE_SCHEDULED)
        set_micros(state.event_time, work.now)
        set_micros(state.scheduled.scheduled_time, self._scheduled_time or work.now)
        self._describe(state)
        return state

    def _refusal(self, run: RunRow) -> str | None:
        raise NotImplementedError

    def _describe(self, state: State) -> None:
        raise NotImplementedError


class RetryRun(_Rerun):
    """A run that has ended is run again."""

    def _refusal(self, run: RunRow) -> str | None:
        if run.books.type in FINAL_TYPES:
            return None
        return f"The run has not ended: it is {run.state_name or 'without a state'}."

    def _describe(self, state: State) -> None:
        state.name = "AwaitingRetry"
        state.scheduled.cause = ScheduledDetails.CAUSE_RETRY


class RescheduleRun(_Rerun):
    """A run that nobody executes gets another time."""

    def _refusal(self, run: RunRow) -> str | None:
        if run.books.type in FINAL_TYPES:
            return None
        if run.books.type is SCHEDULED and run.retry_type is not RetryType.IN_PROCESS:
            return None
        return f"Somebody executes the run: it is {run.state_name or 'without a state'}."

    def _describe(self, state: State) -> None:
        state.scheduled.cause = ScheduledDetails.CAUSE_CREATED
