"""Leaving a run to others because the process is asked to end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from headrace.core.clock import from_micros
from headrace.core.states import StateType
from headrace.states.value import StateDetails

if TYPE_CHECKING:
    from headrace.context import FlowRunContext
    from headrace.engine.api import Ops
    from headrace.engine.journal import Journal
    from headrace.states import State

__all__ = ["LEAVING", "Termination", "hand_over"]

Termination: TypeAlias = Literal["crash", "reschedule", "relinquish"]
"""What becomes of a run when its process is asked to end: it is CRASHED, it is queued for another attempt, or
it is left to whatever has started the process, which starts it again."""

LEAVING = "Execution was aborted by a termination signal."


async def hand_over(ops: Ops, context: FlowRunContext, journal: Journal) -> tuple[bool, State[Any]]:
    """Ask the server to leave the run to others; nothing of it runs here any more.

    Returns:
        Whether they have it, and the state it is in now.

    Raises:
        Abort: the run is not this process's any longer.
    """
    # What was recorded of it so far is refused once it is another attempt's.
    await ops.settle(context.flow_run)
    details = replace(
        StateDetails(flow_run_id=context.flow_run.id),
        scheduled_time=from_micros(ops.now()),
        left_to="server" if context.on_termination == "reschedule" else "infrastructure",
    )
    proposed = journal.make(StateType.SCHEDULED, "AwaitingRetry", LEAVING, details=details)
    state = await journal.propose(proposed)
    return state is proposed, state
