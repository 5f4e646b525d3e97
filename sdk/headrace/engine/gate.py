"""What holds the tasks of a paused flow run back."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.core.states import StateType
from headrace.exceptions import Pause
from headrace.states import State

if TYPE_CHECKING:
    from headrace.context import FlowRunContext
    from headrace.engine.api import Ops
    from headrace.engine.journal import Journal

__all__ = ["PauseGate", "until_flow_runs"]


async def until_flow_runs(ops: Ops, flow: FlowRunContext, journal: Journal) -> State[Any] | None:
    """Hold a task run back until the pause of its flow run is over.

    Returns:
        None when the flow run goes on, else the state in which the task run has ended.

    Raises:
        Pause: the flow run is suspended: its process is to leave.
        Cancel: the flow run is being cancelled.
        Abort: the run is not this process's any longer.
    """
    flow.check_cancelled()
    while (gate := flow.gate) is not None and not gate.state.state_details.pause_reschedule:
        details = replace(gate.state.state_details, task_run_id=journal.run.id, pause_key=None)
        journal.enter(journal.make(StateType.PAUSED, "NotReady", "The flow run is paused.", details=details))
        began = ops.now()
        await ops.wait([gate])
        journal.was_idle(ops.now() - began)
        flow.check_cancelled()
        if gate.ended is not None:
            return journal.enter(journal.make(StateType.CANCELLED, "Cancelled", gate.ended))
    reason = flow.outermost.suspended
    if gate is not None or reason is not None:
        raise Pause(reason or "The flow run is suspended.", state=flow.flow_run.state)
    return None


class PauseGate:
    """Closed while a flow run is paused. Waited for like a future (see `headrace.engine.api.Upstream`).

    Args:
        state: the paused state.

    Attributes:
        state: the paused state.
        ended: why the flow run does not go on; None: it does.
    """

    def __init__(self, state: State[Any]) -> None:
        self.state = state
        self.ended: str | None = None
        self._opened: Future[PauseGate] = Future()

    @property
    def task_run_id(self) -> str:
        """Nobody's: it stands for no task run."""
        return ""

    def open(self, ended: str | None = None) -> None:
        """Let everybody through; with a reason: tell them that the flow run does not go on."""
        self.ended = ended
        self._opened.set_result(self)

    def join(self, timeout: float | None = None) -> None:
        """Block until it is opened, or for `timeout` seconds."""
        try:
            self._opened.result(timeout)
        except FutureTimeoutError:
            return

    def add_done_callback(self, fn: Callable[[Any], None], /) -> None:
        """Call `fn` when it is opened, at once if it is; from any thread."""
        self._opened.add_done_callback(fn)
