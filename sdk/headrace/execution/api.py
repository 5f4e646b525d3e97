"""Entry points of the engine, for `Task`, `Flow` and task runners.

A task runner's `submit` begins a run in the caller's thread, so that its future has an id and the record
shows the run while it waits, and runs it wherever it likes, in a copy of the caller's context:

    call = begin_task_run(task, parameters, wait_for=wait_for)
    pool.submit(contextvars.copy_context().run, run_task_sync, call)      # task.isasync is False
    asyncio.create_task(run_task_async(call))                             # task.isasync is True
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from headrace.context import FlowRunContext, RunContext, TagsContext, TaskRunContext, current_run
from headrace.core.ids import new_id
from headrace.core.names import slug
from headrace.engine.drive import run_now
from headrace.engine.flows import FlowCall, run_flow
from headrace.engine.tasks import Outcome, TaskCall, announce, cancel_unstarted, run_task
from headrace.execution.blocking import BLOCKING
from headrace.execution.generators import EMITTING, EMITTING_LOOP, aiterate, iterate
from headrace.execution.loop import LOOP
from headrace.execution.ownership import owning, owning_if_root, terminating, terminating_loop
from headrace.logging.configuration import ensure_configured
from headrace.logging.prints import watch_prints
from headrace.runs import FlowRun, Owner, TaskRun
from headrace.settings import get_current_settings
from headrace.states import State
from headrace.upstreams import collect_inputs

if TYPE_CHECKING:
    from headrace.flows import Flow
    from headrace.tasks import Task

__all__ = [
    "begin_task_run",
    "call_flow",
    "call_flow_async",
    "call_task",
    "call_task_async",
    "cancel_task_run",
    "run_task_async",
    "run_task_sync",
]


def new_task_call(task: Task[..., Any], parameters: Mapping[str, Any], wait_for: Any = None) -> TaskCall:
    """A task run in the current context, not recorded yet.

    Raises:
        ValueError: the call would wait for itself.
        TypeError: the record of a run is among the arguments.
    """
    parent = current_run()
    run_id = new_id()
    if parent is None:
        run = TaskRun(run_id, task.name, run_id, Owner(run_id), task_name=task.name, dynamic_key="0")
        flow = None
        ensure_configured()
        log_prints = task.log_prints
        if log_prints is None:
            log_prints = get_current_settings().logging_log_prints
        persist = task.persist_result
    else:
        caller = parent.run
        flow = parent if type(parent) is FlowRunContext else parent.flow_context
        name = f"{task.name}-{run_id[-3:]}" if flow is not None else task.name
        run = TaskRun(run_id, name, caller.root_run_id, caller.owner, caller.id, task_name=task.name)
        if flow is None:
            run.dynamic_key = run_id
        else:
            flow_run = flow.flow_run
            run.flow_run_id = flow_run.id
            run.flow_name = flow_run.flow_name
            run.flow_run_run_count = flow_run.run_count
            run.dynamic_key = flow.next_key(task.task_key)
        log_prints = parent.log_prints if task.log_prints is None else task.log_prints
        persist = parent.persist_result if task.persist_result is None else task.persist_result
    if log_prints:
        watch_prints()
    run.task_key = task.task_key
    run.parameters = parameters
    run.persist_result = persist
    run.policy = task.policy
    tags = TagsContext.get().current_tags
    if tags or task.tags:
        run.tags = sorted(tags | task.tags)
    inputs = collect_inputs(
        parameters,
        wait_for,
        None if flow is None else flow.origins,
        own_run_ids=() if parent is None else parent.run_ids,
    )
    if type(parent) is TaskRunContext:
        inputs.edges["__parents__"] = [parent.task_run.id]
    run.inputs = inputs.edges
    context = TaskRunContext(
        task,
        run,
        parameters,
        parent=parent,
        flow_context=flow,
        log_prints=log_prints,
        persist_result=persist,
    )
    return TaskCall(context, inputs, wait_for)


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
    return run_now(run_task(BLOCKING, call)).state


async def run_task_async(call: TaskCall) -> State[Any]:
    """Run a call that `begin_task_run` made, of a coroutine function, on this loop; see `run_task_sync`."""
    return (await run_task(LOOP, call)).state


def cancel_task_run(call: TaskCall, message: str) -> State[Any]:
    """Record that a call which `begin_task_run` made ended CANCELLED before its body was entered."""
    return cancel_unstarted(BLOCKING, call, message)


def call_task(task: Task[..., Any], parameters: Mapping[str, Any], return_state: bool, wait_for: Any) -> Any:
    """Call a task that is a plain function, here and now; the value, or the state if that was asked for."""
    call = new_task_call(task, parameters, wait_for)
    if call.context.parent is not None:
        return _handed(run_now(run_task(BLOCKING, call)), return_state)
    with owning(call.run, call.context), terminating():
        return _handed(run_now(run_task(BLOCKING, call)), return_state)


async def call_task_async(
    task: Task[..., Any], parameters: Mapping[str, Any], return_state: bool, wait_for: Any
) -> Any:
    """Call a task that is a coroutine function; see `call_task`."""
    call = new_task_call(task, parameters, wait_for)
    if call.context.parent is not None:
        return _handed(await run_task(LOOP, call), return_state)
    with owning(call.run, call.context), terminating_loop():
        return _handed(await run_task(LOOP, call), return_state)


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
            f"A generator {kind} has no final state while it is iterated over: call it without return_state=True."
        )


def _iterate_task(
    task: Task[..., Any], parameters: Mapping[str, Any], wait_for: Any
) -> Generator[Any, Any, Any]:
    call = new_task_call(task, parameters, wait_for)
    with owning_if_root(call.run, call.context):
        return (yield from iterate(run_task(EMITTING, call), _remember(call.context, call.run.id)))


async def _iterate_task_async(
    task: Task[..., Any], parameters: Mapping[str, Any], wait_for: Any
) -> AsyncGenerator[Any, Any]:
    call = new_task_call(task, parameters, wait_for)
    with owning_if_root(call.run, call.context):
        async with aclosing(
            aiterate(run_task(EMITTING_LOOP, call), _remember(call.context, call.run.id))
        ) as values:
            async for value in values:
                yield value


def _remember(context: RunContext, run_id: str) -> Callable[[Any], None]:
    """What is done with each value that a run yields: its run is where it came from."""
    origins = _origins(context.parent)
    return (lambda _: None) if origins is None else (lambda value: origins.remember(value, run_id))


def new_flow_call(flow: Flow[..., Any], parameters: Mapping[str, Any], wait_for: Any = None) -> FlowCall:
    """A flow run in the current context, not recorded yet.

    Raises:
        ValueError: the call would wait for itself.
        TypeError: the record of a run is among the arguments.
    """
    parent = current_run()
    settings = get_current_settings()
    run_id = new_id()
    run = FlowRun(run_id, slug(random), run_id, Owner(run_id), flow_name=flow.name)
    log_prints, persist = flow.log_prints, flow.persist_result
    if parent is None:
        ensure_configured()
        log_prints = settings.logging_log_prints if log_prints is None else log_prints
        run.root_flow_run_id = run_id
    else:
        _attach(run, parent)
        log_prints = parent.log_prints if log_prints is None else log_prints
        persist = parent.persist_result if persist is None else persist
    if log_prints:
        watch_prints()
    run.flow_version = flow.version
    run.parameters = parameters
    run.persist_result = persist
    run.policy = flow.policy
    run.tags = sorted(TagsContext.get().current_tags)
    run.expected_start_micros = BLOCKING.now()
    inputs = collect_inputs(
        parameters,
        wait_for,
        _origins(parent),
        own_run_ids=() if parent is None else parent.run_ids,
    )
    run.inputs = inputs.edges
    context = FlowRunContext(
        flow, run, parameters, parent=parent, log_prints=log_prints, persist_result=persist
    )
    return FlowCall(context, inputs, wait_for)


def _attach(run: FlowRun, parent: FlowRunContext | TaskRunContext) -> None:
    """Make `run` a subflow run of what is running."""
    caller = parent.run
    run.parent_run_id = caller.id
    run.root_run_id = caller.root_run_id
    run.owner = caller.owner
    flow = FlowRunContext.get()
    run.parent_flow_run_id = flow.flow_run.id if flow else None
    run.root_flow_run_id = flow.flow_run.root_flow_run_id if flow else run.id
    run.parent_task_run_id = caller.id if isinstance(caller, TaskRun) else None


def _origins(parent: FlowRunContext | TaskRunContext | None) -> Any:
    flow = parent if parent is None or type(parent) is FlowRunContext else parent.flow_context
    return None if flow is None else flow.origins


def call_flow(flow: Flow[..., Any], parameters: Mapping[str, Any], return_state: bool, wait_for: Any) -> Any:
    """Call a flow that is a plain function, here and now; the value, or the state if that was asked for."""
    call = new_flow_call(flow, parameters, wait_for)
    if call.context.parent is not None:
        return _handed(run_now(run_flow(BLOCKING, call)), return_state)
    with owning(call.context.flow_run, call.context), terminating():
        return _handed(run_now(run_flow(BLOCKING, call)), return_state)


async def call_flow_async(
    flow: Flow[..., Any], parameters: Mapping[str, Any], return_state: bool, wait_for: Any
) -> Any:
    """Call a flow that is a coroutine function; see `call_flow`."""
    call = new_flow_call(flow, parameters, wait_for)
    if call.context.parent is not None:
        return _handed(await run_flow(LOOP, call), return_state)
    with owning(call.context.flow_run, call.context), terminating_loop():
        return _handed(await run_flow(LOOP, call), return_state)


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
    call = new_flow_call(flow, parameters, wait_for)
    run = call.context.flow_run
    with owning_if_root(run, call.context):
        return (yield from iterate(run_flow(EMITTING, call), _remember(call.context, run.id)))


async def _iterate_flow_async(
    flow: Flow[..., Any], parameters: Mapping[str, Any], wait_for: Any
) -> AsyncGenerator[Any, Any]:
    call = new_flow_call(flow, parameters, wait_for)
    run = call.context.flow_run
    with owning_if_root(run, call.context):
        async with aclosing(
            aiterate(run_flow(EMITTING_LOOP, call), _remember(call.context, run.id))
        ) as values:
            async for value in values:
                yield value
