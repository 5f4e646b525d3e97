"""What a process does for a flow run whose own process is gone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from headrace.engine.drive import run_now
from headrace.engine.hooks import run_hooks
from headrace.execution.attempts import recorded_flow_run, recorded_parameters_of
from headrace.execution.blocking import BLOCKING
from headrace.execution.calls import recorded_flow_call
from headrace.v1.state_pb2 import STATE_TYPE_CRASHED

if TYPE_CHECKING:
    from headrace.flows import Flow
    from headrace.v1.run_pb2 import Run

__all__ = ["call_crashed_hooks", "is_crash_of_a_lost_process"]

_log = logging.getLogger("headrace.flow_runs")


def is_crash_of_a_lost_process(run: Run) -> bool:
    """Whether a run is CRASHED because others have found its process gone, and not by its own word."""
    return run.state.type == STATE_TYPE_CRASHED and not run.state.crashed.error.type


def call_crashed_hooks(flow: Flow[..., Any], recorded: Run) -> None:
    """Call the `on_crashed` hooks of a run, which its process cannot do any more; nothing else changes.

    Args:
        flow: the flow.
        recorded: the run as the server has it, in full.
    """
    run = recorded_flow_run(recorded, recorded.attempt, recorded.fence)
    assert run.state is not None
    call = recorded_flow_call(flow, run, recorded_parameters_of(recorded))
    with call.context:
        run_now(run_hooks(BLOCKING, _log, flow.on_crashed_hooks, flow, run, run.state))
