"""What a run has been through: makes its states, in order, and has them recorded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.core.clock import from_micros
from headrace.core.errors import StaleAttempt
from headrace.core.states import FINAL, StateType
from headrace.core.verdicts import Abort as AbortVerdict
from headrace.core.verdicts import Accept, Reject
from headrace.exceptions import Abort
from headrace.states.value import NO_DATA, State, StateDetails

if TYPE_CHECKING:
    from headrace.context import FlowRunContext, TaskRunContext
    from headrace.engine.api import Ops
    from headrace.engine.endings import Ending
    from headrace.runs import FlowRun, TaskRun

__all__ = ["Journal"]


class Journal:
    """The states of one run.

    The first state is recorded together with the run and, when nothing has to be waited for before it, with
    the state that follows.

    Args:
        ops: records.
        context: the run; its `state`, counts and times follow what is entered.
        details: what every state of the run says.
    """

    __slots__ = ("_context", "_details", "_first", "_ops", "run")

    def __init__(self, ops: Ops, context: FlowRunContext | TaskRunContext, details: StateDetails) -> None:
        self._ops = ops
        self._context = context
        self._details = details
        self._first: State[Any] | None = None
        self.run: FlowRun | TaskRun = context.run

    def make(
        self,
        type: StateType,
        name: str,
        message: str | None = None,
        data: Any = NO_DATA,
        details: StateDetails | None = None,
    ) -> State[Any]:
        """A state of the run, later than every one before it."""
        now = self._ops.now()
        last = self.run.state
        if last is not None and now <= last.micros:
            now = last.micros + 1
        return State.at(now, type, name, details or self._details, message, data)

    def make_scheduled(self, name: str, delay_seconds: float, message: str | None = None) -> State[Any]:
        """A SCHEDULED state of the run, for `delay_seconds` from now."""
        time = from_micros(self._ops.now() + round(delay_seconds * 1_000_000))
        details = replace(self._details, scheduled_time=time)
        return self.make(StateType.SCHEDULED, name, message, NO_DATA, details)

    def make_final(self, state: State[Any], data: Any) -> State[Any]:
        """A state made by hand, as a state of this run."""
        own = self._details
        said = replace(state.state_details, flow_run_id=own.flow_run_id, task_run_id=own.task_run_id)
        return self.make(state.type, state.name, state.message, data, said)

    def draft(self, ending: Ending) -> State[Any]:
        """The state that a task run would end in, not entered yet."""
        if ending.by_hand is None:
            return self.make(ending.type, ending.name, ending.message, ending.data)
        state = self.make_final(ending.by_hand, ending.data)
        state.state_details = replace(state.state_details, returned_state=True)
        return state

    @property
    def is_unrecorded(self) -> bool:
        """Whether the run is not on record yet."""
        return self._first is not None

    def begin(self, state: State[Any]) -> None:
        """The run exists in its first state; recorded with the next one, or by `announce`.

        Raises:
            Abort: the run is not this process's any longer.
            Cancel: a run around it is being cancelled.
        """
        self._context.check_ownership()
        self._context.check_cancelled()
        self._first = state
        self._follow(state)

    def announce(self) -> None:
        """Record the run now, if it has not been."""
        if self._first is not None:
            first, self._first = self._first, None
            self._ops.record_run(self.run, first)

    def enter(self, state: State[Any]) -> State[Any]:
        """The run enters `state`, and that is recorded.

        Raises:
            Abort: the run is not this process's any longer.
        """
        self._context.check_ownership()
        self._follow(state)
        if self._first is None:
            self._ops.record(self.run, state)
        else:
            first, self._first = self._first, None
            self._ops.record_run(self.run, first, state)
        return state

    async def propose(self, state: State[Any]) -> State[Any]:
        """The run enters `state` if the server lets it.

        Returns:
            The state that the run is in now: `state`, or the one that holds instead.

        Raises:
            Abort: the run is not this process's any longer.
        """
        self.announce()
        while True:
            self._context.check_ownership()
            try:
                verdict = await self._ops.propose(self.run, state)
            except StaleAttempt as error:
                raise Abort(error.message) from None
            if isinstance(verdict, Accept):
                # The server may have renamed it; the data stays here.
                if verdict.state.name != state.name:
                    state.name = verdict.state.name
                self._follow(state)
                return state
            if isinstance(verdict, Reject):
                self._follow(verdict.state)
                return verdict.state
            if isinstance(verdict, AbortVerdict):
                raise Abort(verdict.reason)
            began = self._ops.now()
            await self._ops.sleep(verdict.seconds)
            self.was_idle(self._ops.now() - began)

    def was_idle(self, micros: int) -> None:
        """The run was paused for so long, or waited for a place."""
        if self.run.start_micros:
            self._context.idle_micros += micros

    def _follow(self, state: State[Any]) -> None:
        run = self.run
        run.state = state
        if state.type is StateType.RUNNING:
            run.run_count += 1
            if not run.start_micros:
                run.start_micros = state.micros
        elif state.type in FINAL:
            run.end_micros = state.micros
