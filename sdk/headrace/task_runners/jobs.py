"""Runs task runs that another process has submitted: in a child of it, or in a worker of a cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from headrace.context import (
    CANCEL_SECONDS,
    FlowRunContext,
    TaskRunContext,
    current_run,
    hydrated_context,
)
from headrace.engine.tasks import TaskCall
from headrace.exceptions import SerializationError
from headrace.execution import api
from headrace.execution.assets import asset_context
from headrace.execution.processes.messages import Ended, Job, Refused
from headrace.execution.processes.shipping import packed, packed_error, unpacked
from headrace.execution.submissions import Bell
from headrace.futures import HeadraceFuture, helped_by
from headrace.logging.configuration import ensure_configured
from headrace.logging.prints import watch_prints
from headrace.states.value import NO_DATA, State
from headrace.task_runners.threads import ThreadPoolTaskRunner
from headrace.upstreams import Inputs

__all__ = ["JobExecution"]


class _Help:
    """Lets waits for a next try end when the task runner of the submission is told to cancel everything."""

    def __init__(self, cancelled: Bell) -> None:
        self._cancelled = cancelled

    def owns(self, future: HeadraceFuture[Any]) -> bool:
        return False

    def run_if_queued(self, future: HeadraceFuture[Any]) -> None:
        raise NotImplementedError("only called for futures that are owned")

    def blocked(self) -> AbstractContextManager[None]:
        return nullcontext()

    def sleep(self, seconds: float) -> None:
        if self._cancelled.sleep(seconds):
            raise CancelledError

    async def asleep(self, seconds: float) -> None:
        if await self._cancelled.asleep(seconds):
            raise CancelledError


class JobExecution:
    """Runs one job after the other, in the thread that calls it.

    Args:
        next_key: tells the calls of one task in a flow run apart, in all processes; given the id of the flow
            run and the key of the task.
    """

    def __init__(self, next_key: Callable[[str, str], str]) -> None:
        self._next_key = next_key
        self._cancelled = Bell()
        self._nested: ThreadPoolTaskRunner | None = None
        self._executing: TaskRunContext | None = None
        self._lock = threading.Lock()
        self._told: tuple[str, str] | None = None

    def run(self, job: Job, parts: Sequence[bytes] = ()) -> Ended | Refused:
        """Run a job to its end.

        Args:
            job: the job.
            parts: the results that its arguments only name, pickled.
        """
        if job.is_cancelled:
            self._cancelled.ring()
        try:
            with hydrated_context(job.context):
                task, parameters = unpacked(job.call, parts)
                ensure_configured()
                return self._execute(job, task, parameters)
        except SerializationError as error:
            return Refused(packed_error(error))

    def _execute(self, job: Job, task: Any, parameters: dict[str, Any]) -> Ended:
        flow = FlowRunContext.get()
        run = job.run
        run.parameters = parameters
        outlet = _Outlet()
        context = TaskRunContext(
            task,
            run,
            parameters,
            parent=current_run(),
            flow_context=flow,
            log_prints=job.log_prints,
            persist_result=job.persist_result,
        )
        context.hand_over = outlet.take
        context.assets = asset_context(task, flow, job.upstream_assets)
        _watch_prints(context)
        error: BaseException | None = None
        with self._lock:
            self._executing = context
            if self._told is not None and self._told[0] == run.id:
                context.cancel(self._told[1])
        with self._nested_runner(flow), helped_by(_Help(self._cancelled)):
            try:
                _run(TaskCall(context, Inputs()))
            except BaseException as raised:
                error = raised
        self._executing = None
        return outlet.ended(context, error)

    @contextmanager
    def _nested_runner(self, flow: FlowRunContext | None) -> Generator[None]:
        """What the task submits runs in threads of this process, and ends before the task is handed back."""
        if flow is None:
            yield
            return
        run_id = flow.flow_run.id
        with ThreadPoolTaskRunner() as runner:
            flow.use_runner(runner, lambda key: self._next_key(run_id, key))
            self._nested = runner
            yield
        self._nested = None

    def cancel(self) -> None:
        """End waits for a next try, and begin nothing more; bodies go on."""
        self._cancelled.ring()
        nested = self._nested
        if nested is not None:
            nested.cancel_all()

    def interrupt(self, run_id: str, reason: str) -> None:
        """The run of a job is cancelled: interrupt its body, and what it has submitted; from any thread."""
        with self._lock:
            context, nested, self._told = self._executing, self._nested, (run_id, reason)
        if context is None or context.task_run.id != run_id:
            return  # it has ended, or is to come
        self._cancelled.ring()
        if nested is not None:
            nested.interrupt_all(CANCEL_SECONDS)
        context.cancel(reason)

    def lose(self, reason: str) -> None:
        """The run that is executed is not this process's any longer."""
        context = self._executing
        if context is not None:
            context.outermost.lost = reason


class _Outlet:
    """Pickles what a body returns while that can still be a failure of the body."""

    def __init__(self) -> None:
        self._value: Any = self
        self._blob = b""

    def take(self, value: Any) -> None:
        """Pickle `value`.

        Raises:
            SerializationError: it cannot be pickled.
        """
        try:
            self._value, self._blob = value, packed(value)
        except SerializationError as error:
            raise SerializationError(f"The result cannot leave its process: {error}") from error.__cause__

    def ended(self, context: TaskRunContext, error: BaseException | None) -> Ended:
        """What the parent is told of a run that has ended."""
        run = context.task_run
        state = run.state
        assert state is not None
        names = ("name", "run_count", "start_micros", "end_micros", "traceparent")
        changes = {name: getattr(run, name) for name in names}
        carried = None if error is None else packed_error(error)
        return Ended(state.with_data(NO_DATA), self._packed_data(state), changes, carried)

    def _packed_data(self, state: State[Any]) -> bytes | None:
        if not state.has_data:
            return None
        if state.data is self._value:
            return self._blob
        if isinstance(state.data, BaseException):
            return packed_error(state.data)
        try:
            return packed(state.data)
        except SerializationError:
            # Not what the body has returned just now: it was found where results are kept.
            return None


def _run(call: TaskCall) -> None:
    if call.context.task.isasync:
        asyncio.run(api.run_task_async(call))
    else:
        api.run_task_sync(call)


def _watch_prints(context: FlowRunContext | TaskRunContext | None) -> None:
    while context is not None:
        if context.log_prints:
            watch_prints()
        context = context.parent
