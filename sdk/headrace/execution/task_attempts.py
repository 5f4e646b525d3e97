"""Task runs that a server has on record already, executed by this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.context import TaskRunContext, tags
from headrace.exceptions import LostInFlight, UpstreamTaskError
from headrace.execution import api
from headrace.execution.calls import recorded_task_call
from headrace.execution.deferring import WAIT_FOR
from headrace.execution.encoding import state_from_proto
from headrace.execution.obeying import attending
from headrace.execution.ownership import owning
from headrace.results import StoredResult
from headrace.runs import Owner, TaskRun

if TYPE_CHECKING:
    from headrace.engine.tasks import TaskCall
    from headrace.states import State
    from headrace.tasks import Task
    from headrace.v1.run_pb2 import Run

__all__ = ["TaskAttempt"]


class TaskAttempt:
    """One attempt of a task run that was handed to this process.

    Args:
        task: what the run executes.
        recorded: the run as the server had it when it handed the attempt out, in full.
        attempt: which ownership of the run this is, from 1.
        fence: what guards it.
    """

    def __init__(self, task: Task[..., Any], recorded: Run, attempt: int, fence: int) -> None:
        self._task = task
        self._recorded = recorded
        self._run = _recorded_task_run(recorded, attempt, fence)
        self._context: TaskRunContext | None = None
        self._abandoned_because: str | None = None

    @property
    def state_name(self) -> str | None:
        """Name of the newest state of the run as this process knows it."""
        return None if self._run.state is None else self._run.state.name

    def run(self) -> State[Any]:
        """Execute the run, whose function is a plain one, in this thread.

        Returns:
            The final state. A run whose arguments cannot be read, or that depends on something that did not
            complete, is FAILED.

        Raises:
            Abort: the run is not this attempt's any longer: there is nothing to report.
            BaseException: execution was ended from outside; the run is CRASHED.
        """
        call, error = self._call()
        with owning(self._run, call.context), attending(call.context), tags(*self._run.tags):
            if error is not None:
                return api.fail_task_run(call, error)
            return _ended(call, api.run_task_sync(call))

    async def run_async(self) -> State[Any]:
        """Execute the run, whose function is a coroutine function, on this loop; see `run`."""
        call, error = self._call()
        with owning(self._run, call.context), attending(call.context), tags(*self._run.tags):
            if error is not None:
                return api.fail_task_run(call, error)
            return _ended(call, await api.run_task_async(call))

    def abandon(self, reason: str) -> None:
        """Interrupt it, from any thread; nothing more is recorded of it by this process."""
        self._abandoned_because = reason
        if self._context is not None:
            self._context.lost = reason
            self._context.cancel(reason)

    def _call(self) -> tuple[TaskCall, Exception | None]:
        error: Exception | None = None
        given: dict[str, Any] = {}
        try:
            if self._recorded.HasField("parameters"):
                given = StoredResult(self._recorded.parameters).load()
        except Exception as caught:
            # Whatever unpickling the author's own classes raises.
            error = caught
        if not self._task.idempotent and self._run.owner.attempt > 1 and self._run.run_count:
            error = LostInFlight()
        wait_for = given.pop(WAIT_FOR, None)
        call = recorded_task_call(self._task, self._run, given, wait_for)
        self._context = call.context
        if self._abandoned_because is not None:
            self.abandon(self._abandoned_because)
        return call, error


def _ended(call: TaskCall, state: State[Any]) -> State[Any]:
    """A final state of the run: nobody is left who would look at one that is not ready."""
    if state.is_final():
        return state
    return api.fail_task_run(call, UpstreamTaskError(state.message or "An upstream did not complete."))


def _recorded_task_run(recorded: Run, attempt: int, fence: int) -> TaskRun:
    """A task run that a server has, as this attempt of it knows it."""
    return TaskRun(
        recorded.id,
        recorded.name,
        recorded.root_run_id,
        Owner(recorded.id, attempt, fence),
        parent_run_id=recorded.parent_run_id or None,
        state=state_from_proto(recorded.state, task_run_id=recorded.id),
        run_count=recorded.run_count,
        tags=list(recorded.tags),
        inputs={edge.parameter: list(edge.run_ids) for edge in recorded.inputs},
        start_micros=recorded.start_time.ToMicroseconds() if recorded.HasField("start_time") else 0,
        traceparent=recorded.traceparent,
        task_name=recorded.task_name,
        task_key=recorded.task_key,
        dynamic_key=recorded.dynamic_key,
        flow_name=recorded.flow_name,
    )
