"""Runs whose process gets SIGTERM: what becomes of them, and how the server hears of it before they began."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Final, cast

from headrace.client import get_client
from headrace.client.background import run_in_background
from headrace.core.errors import ServiceError
from headrace.core.ids import new_id
from headrace.core.passing import passing_time
from headrace.engine.leaving import LEAVING, Termination
from headrace.execution.encoding import LEFT_TO
from headrace.settings import get_current_settings
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_RESCHEDULE, Run
from headrace.v1.run_service_pb2 import ProposeStateRequest
from headrace.v1.state_pb2 import STATE_TYPE_CRASHED, STATE_TYPE_SCHEDULED, CrashedDetails

__all__ = ["ON_LOST", "leave_alone", "leave_unstarted", "termination_behavior"]

ON_LOST: Final = "HEADRACE__ON_LOST"
"""What the run's policy for lost attempts is, as whoever starts its process says."""
_TIMEOUT_SECONDS: Final = 10.0


def termination_behavior(recorded: Run | None = None) -> Termination:
    """What becomes of a run whose process is asked to end: as the setting says, else as its `on_lost` does.

    Args:
        recorded: the run; None: only its environment is asked.
    """
    said = get_current_settings().flow_run_execute_sigterm_behavior
    if said is not None:
        return cast("Termination", said)
    on_lost = os.environ.get(ON_LOST, "")
    if recorded is not None and recorded.retry_policy.on_lost == LOST_ATTEMPT_POLICY_RESCHEDULE:
        on_lost = "reschedule"
    return "reschedule" if on_lost == "reschedule" else "crash"


def leave_unstarted(run_id: str, attempt: int, fence: int, behavior: Termination) -> bool:
    """The process is asked to end, and has not entered the run: the server is told, as far as it answers.

    Returns:
        Whether the run is another attempt's now.
    """
    if behavior == "relinquish":
        return False
    request = ProposeStateRequest(run_id=run_id)
    request.attempt.run_id, request.attempt.attempt, request.attempt.fence = run_id, attempt, fence
    state = request.state
    state.id, state.message = new_id(), f"{LEAVING} The flow had not begun."
    state.event_time.FromMicroseconds(passing_time().now())
    if behavior == "reschedule":
        state.type, state.name = STATE_TYPE_SCHEDULED, "AwaitingRetry"
        state.scheduled.scheduled_time.CopyFrom(state.event_time)
        state.scheduled.cause = LEFT_TO["server"]
    else:
        state.type, state.name = STATE_TYPE_CRASHED, "Crashed"
        state.crashed.cause = CrashedDetails.CAUSE_SIGNAL
    try:
        return run_in_background(_was_accepted(request)) and behavior == "reschedule"
    except ServiceError as error:
        print(f"The server could not be told: {error.message}", file=sys.stderr)
        return False


async def _was_accepted(request: ProposeStateRequest) -> bool:
    async with get_client() as client:
        answer = await client.propose_state(request, timeout=_TIMEOUT_SECONDS)
        return answer.WhichOneof("verdict") == "accepted"


def leave_alone() -> None:
    """The run of this process has ended, and that is on record: SIGTERM does nothing from now on.

    What is left is to say the last things to the server, which is bounded in time. A handler and not
    SIG_IGN: programs that are started from here do not inherit it.
    """
    if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, None):
        signal.signal(signal.SIGTERM, _nothing)


def _nothing(signum: int, frame: FrameType | None) -> None:
    pass
