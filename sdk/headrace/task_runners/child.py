"""What runs in a child of the process pool: `python -m headrace.task_runners.child DESCRIPTOR`."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import sys
from collections.abc import Generator, Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
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
from headrace.execution.interruption import takes_signals, was_for_scope
from headrace.execution.processes.messages import Channel, Ended, Job, Refused, Start, Taken
from headrace.execution.processes.remote import Parent, RemoteRecorder
from headrace.execution.processes.shipping import packed, packed_error, unpacked
from headrace.execution.submissions import Bell
from headrace.futures import HeadraceFuture, helped_by
from headrace.logging.configuration import ensure_configured
from headrace.logging.prints import watch_prints
from headrace.recorder.process import record_through
from headrace.states.value import NO_DATA, State
from headrace.task_runners.threads import ThreadPoolTaskRunner
from headrace.upstreams import Inputs

__all__ = ["main"]


class _ChildHelp:
    """Lets waits for a next try end when the task runner in the parent is told to cancel everything."""

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


class _Child:
    """Runs one job after the other on the main thread, where a time limit can interrupt it."""

    def __init__(self, channel: Channel) -> None:
        start: Start = channel.receive()
        sys.path[:] = start.path
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._parent = Parent(channel, self._jobs.put, self._cancel, self._interrupt)
        self._cancelled = Bell()
        self._nested: ThreadPoolTaskRunner | None = None
        self._executing: TaskRunContext | None = None
        record_through(RemoteRecorder(self._parent, self._lost))
        self._parent.listen()
        before = dict(os.environ)
        self._refusal = _initialize(start.initializer)
        self._variables = {name: text for name, text in os.environ.items() if before.get(name) != text}

    def serve(self) -> None:
        """Until the parent says that there will be no more jobs."""
        while (job := self._jobs.get()) is not None:
            self._parent.send(Taken())
            self._parent.send(Refused(self._refusal) if self._refusal is not None else self._do(job))

    def _do(self, job: Job) -> Ended | Refused:
        if job.is_cancelled:
            self._cancelled.ring()
        with _environment({**job.environment, **self._variables}):
            try:
                with hydrated_context(job.context):
                    task, parameters = unpacked(job.call)
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
        _watch_prints(context)
        error: BaseException | None = None
        self._executing = context
        with self._nested_runner(flow), helped_by(_ChildHelp(self._cancelled)):
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
            flow.use_runner(runner, lambda key: str(self._parent.ask("next_key", run_id, key).result()))
            self._nested = runner
            yield
        self._nested = None

    def _cancel(self) -> None:
        self._cancelled.ring()
        nested = self._nested
        if nested is not None:
            nested.cancel_all()

    def _interrupt(self, reason: str) -> None:
        self._cancelled.ring()
        context, nested = self._executing, self._nested
        if nested is not None:
            nested.interrupt_all(CANCEL_SECONDS)
        if context is not None:
            context.cancel(reason)

    def _lost(self, reason: str) -> None:
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


def _initialize(packed_call: bytes | None) -> bytes | None:
    """Call the initializer; gives what it raised, pickled."""
    if packed_call is None:
        return None
    try:
        initializer, arguments = unpacked(packed_call)
        initializer(*arguments)
    except Exception as error:
        return packed_error(error)
    return None


@contextmanager
def _environment(variables: Mapping[str, str]) -> Generator[None]:
    """Exactly these variables while inside."""
    before = dict(os.environ)
    _replace_environment(variables)
    try:
        yield
    finally:
        _replace_environment(before)


def _replace_environment(variables: Mapping[str, str]) -> None:
    if os.environ == variables:
        return
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _go_on(signum: int, frame: FrameType | None) -> None:
    """Take a signal and do nothing."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    """Interrupt the body that is to end; for everybody else, SIGTERM ends the process."""
    if not was_for_scope(frame):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def main(descriptor: int) -> None:
    """Serve the parent at the other end of the socket `descriptor`."""
    os.set_inheritable(descriptor, False)
    # Ctrl-C reaches every process of a terminal; the parent decides. Not SIG_IGN, which programs that a task
    # starts would inherit.
    signal.signal(signal.SIGINT, _go_on)
    signal.signal(signal.SIGTERM, _terminate)
    with takes_signals():
        _Child(Channel(descriptor)).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
