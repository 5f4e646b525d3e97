"""What a process does for a flow run whose own process is gone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from headrace.engine.drive import run_now
from headrace.engine.hooks import run_hooks
from headrace.execution.attempts import recorded_flow_run, recorded_parameters_of
from headrace.execution.blocking import BLOCKING
from headrace.execution.calls import recorded_flow_call
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLED, STATE_TYPE_CRASHED

if TYPE_CHECKING:
    from headrace.flows import Flow
    from headrace.v1.run_pb2 import Run

__all__ = ["call_ending_hooks", "is_end_of_a_lost_process"]

_log = logging.getLogger("headrace.flow_runs")


def is_end_of_a_lost_process(run: Run) -> bool:
    """Whether a run is CRASHED or CANCELLED by the word of others, who have found its process gone or have
    ended it, and not by its own."""
    state = run.state
    if state.type == STATE_TYPE_CANCELLED:
        return state.HasField("cancel")
    return state.type == STATE_TYPE_CRASHED and not state.crashed.error.type


def call_ending_hooks(flow: Flow[..., Any], recorded: Run) -> None:
    """Call the hooks of a run that has crashed, or was cancelled, which its process cannot do any more.

    Nothing else changes.

    Args:
        flow: the flow.
        recorded: the run as the server has it, in full.
    """
    run = recorded_flow_run(recorded, recorded.attempt, recorded.fence)
    assert run.state is not None
    hooks = flow.on_cancellation_hooks if run.state.is_cancelled() else flow.on_crashed_hooks
    if not hooks:
        return
    call = recorded_flow_call(flow, run, recorded_parameters_of(recorded))
    with call.context:
        run_now(run_hooks(BLOCKING, _log, hooks, flow, run, run.state))
