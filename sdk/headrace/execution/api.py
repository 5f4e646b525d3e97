"""Entry points of the engine, for `Task`, `Flow` and task runners.

A task runner's `submit` begins a run in the caller's thread, so that its future has an id and the record
shows the run while it waits, and runs it wherever it likes, in a copy of the caller's context:

    call = begin_task_run(task, parameters, wait_for=wait_for)
    pool.submit(contextvars.copy_context().run, run_task_sync, call)      # task.isasync is False
    asyncio.create_task(run_task_async(call))                             # task.isasync is True
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from headrace.context import FlowRunContext, TaskRunContext
from headrace.engine.drive import run_now
from headrace.engine.outcome import Outcome
from headrace.engine.steps import note
from headrace.engine.tasks import (
    TaskCall,
    announce,
    cancel_unstarted,
    crash_elsewhere,
    fail_elsewhere,
    prepare_elsewhere,
)
from headrace.execution.blocking import BLOCKING
from headrace.execution.calls import new_flow_call, new_task_call, origins_around
from headrace.execution.generators import EMITTING, EMITTING_LOOP, aiterate, iterate
from headrace.execution.interruption import LoopScope, ThreadScope
from headrace.execution.loop import LOOP
from headrace.execution.obeying import attending
from headrace.execution.ownership import owning, owning_if_root, terminating, terminating_loop
from headrace.execution.traced import flow_engine, task_engine
from headrace.states import State

if TYPE_CHECKING:
    from headrace.flows import Flow
    from headrace.results import StoredResult
    from headrace.tasks import Task

__all__ = [
    "begin_task_run",
    "call_flow",
    "call_flow_async",
    "call_task",
    "call_task_async",
    "cancel_task_run",
    "crash_task_run",
    "fail_task_run",
    "iterate_flow",
    "iterate_task",
    "note_task_run",
    "prepare_task_run",
    "run_task_async",
    "run_task_sync",
]


def begin_task_run(
    task: Task[..., Any],
    parameters: Mapping[str, Any],
    wait_for: Any = None,
    dependencies: Mapping[str, list[str]] | None = None,
) -> TaskCall:
    """Make a task run in the current context and record it PENDING, to be run later or elsewhere.

    Args:
        task: the task.
        parameters: the arguments by parameter name, as `task.binder.bind` gives them.
        wait_for: futures and states that must complete first, in any collection.
        dependencies: further edges to record: run ids, by parameter.

    Returns:
        The call: its `run` is the task run, its `inputs.waits_for` the futures that have not ended yet.

    Raises:
        ValueError: the call would wait for itself.
        TypeError: the record of a run is among the arguments.
    """
    call = new_task_call(task, parameters, wait_for)
    for name, run_ids in (dependencies or {}).items():
        known = call.inputs.edges.setdefault(name, [])
        known += [run_id for run_id in run_ids if run_id not in known]
    announce(BLOCKING, call)
    return call


def run_task_sync(call: TaskCall) -> State[Any]:
    """Run a call that `begin_task_run` made, of a plain function, in this thread.

    Returns:
        The newest state of the run: a final one, or `NotReady` when an upstream did not complete.

    Raises:
        BaseException: execution was ended from outside; the run is CRASHED.
    """
    with ThreadScope(call.context):
        return run_now(task_engine(BLOCKING, call)).state


async def run_task_async(call: TaskCall) -> State[Any]:
    """Run a call that `begin_task_run` made, of a coroutine function, on this loop; see `run_task_sync`."""
    async with LoopScope(call.context):
        return (await task_engine(LOOP, call)).state


def cancel_task_run(call: TaskCall, message: str) -> State[Any]:
    """Record that a call which `begin_task_run` made ended CANCELLED before its body was entered."""
    return cancel_unstarted(BLOCKING, call, message)


def prepare_task_run(
    call: TaskCall, stays: Callable[[StoredResult], bool] | None = None
) -> State[Any] | None:
    """Resolve the arguments of a call whose body another process is to run, in place.

    Args:
        call: the call.
        stays: whether the result of an upstream that is stored elsewhere stays there, and is not fetched.

    Returns:
        The newest state of the run when the body must not run; None: it is to run.

    Raises:
        BaseException: execution was ended from outside; the run is CRASHED.
    """
    return run_now(prepare_elsewhere(BLOCKING, call, stays))


def fail_task_run(call: TaskCall, error: Exception) -> State[Any]:
    """End a run FAILED that could not be handed to another process; its hooks are called here."""
    return run_now(fail_elsewhere(BLOCKING, call, error))


def crash_task_run(call: TaskCall, message: str) -> State[Any]:
    """End a run CRASHED whose process is gone."""
    return crash_elsewhere(BLOCKING, call, message)


def note_task_run(call: TaskCall) -> None:
    """A run has ended in another process: the next pass through its caller's body may ask for its result."""
    state = call.run.state
    if call.run.step_key and state is not None and state.is_final():
        note(call.context, state)


def call_task(task: Task[..., Any], parameters: Mapping[str, Any], return_state: bool, wait_for: Any) -> Any:
    """Call a task that is a plain function, here and now; the value, or the state if that was asked for."""
    call = new_task_call(task, parameters, wait_for)
    if call.context.parent is not None:
        return _handed(run_now(task_engine(BLOCKING, call)), return_state)
    with owning(call.run, call.context), terminating(), attending(call.context), ThreadScope(call.context):
        return _handed(run_now(task_engine(BLOCKING, call)), return_state)


async def call_task_async(
    task: Task[..., Any], parameters: Mapping[str, Any], return_state: bool, wait_for: Any
) -> Any:
    """Call a task that is a coroutine function; see `call_task`."""
    call = new_task_call(task, parameters, wait_for)
    if call.context.parent is not None:
        return _handed(await task_engine(LOOP, call), return_state)
    with owning(call.run, call.context), terminating_loop(), attending(call.context):
        async with LoopScope(call.context):
            return _handed(await task_engine(LOOP, call), return_state)


def iterate_task(
    task: Task[..., Any], parameters: Mapping[str, Any], return_state: bool, wait_for: Any
) -> Any:
    """Call a task that is a generator: the iterator over its values.

    Raises:
        ValueError: the state was asked for.
    """
    _refuse_state(return_state, "task")
    if task.isasync:
        return _iterate_task_async(task, parameters, wait_for)
    return _iterate_task(task, parameters, wait_for)


def _refuse_state(return_state: bool, kind: str) -> None:
    if return_state:
        raise ValueError(
            f"A generator {kind} has no final state while it is iterated over: call it without return_state."
        )


def _iterate_task(
    task: Task[..., Any], parameters: Mapping[str, Any], wait_for: Any
) -> Generator[Any, Any, Any]:
    call = new_task_call(task, parameters, wait_for, is_step=False)
    with owning_if_root(call.run, call.context):
        return (yield from iterate(task_engine(EMITTING, call), _remember(call.context, call.run.id)))


async def _iterate_task_async(
    task: Task[..., Any], parameters: Mapping[str, Any], wait_for: Any
) -> AsyncGenerator[Any, Any]:
    call = new_task_call(task, parameters, wait_for, is_step=False)
    with owning_if_root(call.run, call.context):
        async with aclosing(
            aiterate(task_engine(EMITTING_LOOP, call), _remember(call.context, call.run.id))
        ) as values:
            async for value in values:
                yield value


def _remember(context: FlowRunContext | TaskRunContext, run_id: str) -> Callable[[Any], None]:
    """What is done with each value that a run yields: its run is where it came from."""
    origins = origins_around(context.parent)
    return (lambda _: None) if origins is None else (lambda value: origins.remember(value, run_id))


def call_flow(flow: Flow[..., Any], parameters: Mapping[str, Any], return_state: bool, wait_for: Any) -> Any:
    """Call a flow that is a plain function, here and now; the value, or the state if that was asked for."""
    call = new_flow_call(flow, parameters, wait_for)
    if call.context.parent is not None:
        return _handed(run_now(flow_engine(BLOCKING, call)), return_state)
    with owning(call.context.flow_run, call.context), terminating():
        return _handed(run_now(flow_engine(BLOCKING, call)), return_state)


async def call_flow_async(
    flow: Flow[..., Any], parameters: Mapping[str, Any], return_state: bool, wait_for: Any
) -> Any:
    """Call a flow that is a coroutine function; see `call_flow`."""
    call = new_flow_call(flow, parameters, wait_for)
    if call.context.parent is not None:
        return _handed(await flow_engine(LOOP, call), return_state)
    with owning(call.context.flow_run, call.context), terminating_loop():
        return _handed(await flow_engine(LOOP, call), return_state)


def _handed(outcome: Outcome, return_state: bool) -> Any:
    if return_state:
        return outcome.state
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def iterate_flow(
    flow: Flow[..., Any], parameters: Mapping[str, Any], return_state: bool, wait_for: Any
) -> Any:
    """Call a flow that is a generator: the iterator over its values.

    Raises:
        ValueError: the state was asked for.
    """
    _refuse_state(return_state, "flow")
    if flow.isasync:
        return _iterate_flow_async(flow, parameters, wait_for)
    return _iterate_flow(flow, parameters, wait_for)


def _iterate_flow(
    flow: Flow[..., Any], parameters: Mapping[str, Any], wait_for: Any
) -> Generator[Any, Any, Any]:
    call = new_flow_call(flow, parameters, wait_for, is_step=False)
    run = call.context.flow_run
    with owning_if_root(run, call.context):
        return (yield from iterate(flow_engine(EMITTING, call), _remember(call.context, run.id)))


async def _iterate_flow_async(
    flow: Flow[..., Any], parameters: Mapping[str, Any], wait_for: Any
) -> AsyncGenerator[Any, Any]:
    call = new_flow_call(flow, parameters, wait_for, is_step=False)
    run = call.context.flow_run
    with owning_if_root(run, call.context):
        async with aclosing(
            aiterate(flow_engine(EMITTING_LOOP, call), _remember(call.context, run.id))
        ) as values:
            async for value in values:
                yield value
