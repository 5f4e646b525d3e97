"""What both kinds of `Ops` share: the clock, and putting things on record."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any

from headrace.core.passing import passing_time
from headrace.core.verdicts import Accept, Reject, Verdict
from headrace.exceptions import TerminationSignal
from headrace.execution.encoding import run_entry, state_entry, state_from_proto
from headrace.execution.ownership import TERMINATED
from headrace.recorder import get_recorder
from headrace.runs import FlowRun, TaskRun
from headrace.states import State
from headrace.v1 import state_pb2

__all__ = ["Recording"]


class Recording:
    """Records through the process's recorder."""

    __slots__ = ()

    @property
    def streams(self) -> bool:
        return False

    def now(self) -> int:
        return passing_time().now()

    def record_run(self, run: FlowRun | TaskRun, *states: State[Any]) -> None:
        first, *others = states
        get_recorder().post(run_entry(run, first), *[state_entry(run, state) for state in others])

    def update_run(self, run: FlowRun | TaskRun) -> None:
        get_recorder().post(run_entry(run, None))

    def record(self, run: FlowRun | TaskRun, *states: State[Any]) -> None:
        get_recorder().post(*[state_entry(run, state) for state in states])

    def is_interruption(self, error: BaseException) -> bool:
        cancelled = (asyncio.CancelledError, concurrent.futures.CancelledError)
        return isinstance(error, (*cancelled, TerminationSignal))

    def is_termination(self, error: BaseException) -> bool:
        is_ours = isinstance(error, asyncio.CancelledError) and TERMINATED in error.args
        return is_ours or isinstance(error, TerminationSignal)

    def crash_message(self, error: BaseException) -> str:
        if isinstance(error, KeyboardInterrupt):
            return "aborted by an interrupt signal"
        if self.is_termination(error):
            return "aborted by a termination signal"
        if isinstance(error, SystemExit):
            return "aborted by Python system exit call"
        if isinstance(error, (asyncio.CancelledError, concurrent.futures.CancelledError, GeneratorExit)):
            return "cancelled by the runtime environment"
        return f"interrupted by an unexpected exception: {type(error).__name__}: {error}"


def decoded(
    verdict: Verdict[state_pb2.State], run: FlowRun | TaskRun, proposed: State[Any]
) -> Verdict[State[Any]]:
    """A recorder's verdict, about states as values."""
    if isinstance(verdict, Accept):
        if verdict.state.running.run_count:
            # The server knows better: going on after a pause is no new try. This one is counted hereafter.
            run.run_count = verdict.state.running.run_count - 1
        if verdict.state.name in ("", proposed.name):
            return Accept(proposed)
        return Accept(state_from_proto(verdict.state, flow_run_id=run.id))
    if isinstance(verdict, Reject):
        return Reject(state_from_proto(verdict.state, flow_run_id=run.id), verdict.reason)
    return verdict
