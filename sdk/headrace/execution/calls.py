"""From a call to a run: everything about a new run that is known before its body is entered."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from headrace.context import FlowRunContext, TagsContext, TaskRunContext, current_run
from headrace.core.ids import new_id
from headrace.core.names import slug
from headrace.core.passing import passing_time
from headrace.engine.flows import FlowCall
from headrace.engine.steps import StepBook, enlist
from headrace.engine.tasks import TaskCall
from headrace.execution.assets import asset_context
from headrace.logging.configuration import ensure_configured
from headrace.logging.prints import watch_prints
from headrace.runs import FlowRun, Owner, TaskRun
from headrace.settings import get_current_settings
from headrace.upstreams import collect_inputs

if TYPE_CHECKING:
    from headrace.flows import Flow
    from headrace.tasks import Task
    from headrace.upstreams import ResultOrigins

__all__ = ["new_flow_call", "new_task_call", "origins_around", "recorded_flow_call", "recorded_task_call"]

_PARENTS: Final = "__parents__"
"""The name under which `inputs` holds the task run in whose body a task run was called."""


def new_task_call(
    task: Task[..., Any], parameters: Mapping[str, Any], wait_for: Any = None, *, is_step: bool = True
) -> TaskCall:
    """A task run in the current context, not recorded yet.

    Args:
        task: the task.
        parameters: the arguments by parameter name.
        wait_for: futures and states that must complete first, in any collection.
        is_step: whether its result may stand for it when the body that calls it is run again.

    Raises:
        ValueError: the call would wait for itself.
        TypeError: the record of a run is among the arguments.
    """
    parent = current_run()
    run = _lone_task_run(task) if parent is None else _called_task_run(task, parent)
    run.task_name = task.name
    run.task_key = task.task_key
    run.parameters = parameters
    run.policy = task.policy
    tags = TagsContext.get().current_tags
    if tags or task.tags:
        run.tags = sorted(tags | task.tags)
    inputs = collect_inputs(
        parameters,
        wait_for,
        origins_around(parent),
        own_run_ids=() if parent is None else parent.run_ids,
    )
    if type(parent) is TaskRunContext:
        inputs.edges[_PARENTS] = [parent.task_run.id]
    run.inputs = inputs.edges
    context = TaskRunContext(
        task,
        run,
        parameters,
        parent=parent,
        flow_context=_flow_around(parent),
        log_prints=_log_prints(task.log_prints, parent),
        persist_result=_task_persists(task.persist_result, parent),
    )
    run.persist_result = context.persist_result
    context.assets = asset_context(task, context.flow_context)
    call = TaskCall(context, inputs, wait_for)
    if is_step and context.steps is not None:
        enlist(call, context.steps, task.task_key)
    return call


def _lone_task_run(task: Task[..., Any]) -> TaskRun:
    """A run that no other called: the top of its own tree."""
    ensure_configured()
    run_id = new_id()
    return TaskRun(run_id, task.name, run_id, Owner(run_id), dynamic_key="0")


def _called_task_run(task: Task[..., Any], parent: FlowRunContext | TaskRunContext) -> TaskRun:
    run_id = new_id()
    caller = parent.run
    flow = _flow_around(parent)
    if flow is None:
        return TaskRun(run_id, task.name, caller.root_run_id, caller.owner, caller.id, dynamic_key=run_id)
    flow_run = flow.flow_run
    return TaskRun(
        run_id,
        f"{task.name}-{run_id[-3:]}",
        caller.root_run_id,
        caller.owner,
        caller.id,
        dynamic_key=flow.next_key(task.task_key),
        flow_run_id=flow_run.id,
        flow_name=flow_run.flow_name,
        flow_run_run_count=flow_run.run_count,
    )


def new_flow_call(
    flow: Flow[..., Any], parameters: Mapping[str, Any], wait_for: Any = None, *, is_step: bool = True
) -> FlowCall:
    """A flow run in the current context, not recorded yet.

    Args:
        flow: the flow.
        parameters: the arguments by parameter name.
        wait_for: futures and states that must complete first, in any collection.
        is_step: whether its result may stand for it when the body that calls it is run again.

    Raises:
        ValueError: the call would wait for itself.
        TypeError: the record of a run is among the arguments.
    """
    parent = current_run()
    run_id = new_id()
    run = FlowRun(run_id, slug(random), run_id, Owner(run_id), flow_name=flow.name, root_flow_run_id=run_id)
    if parent is None:
        ensure_configured()
    else:
        _make_subflow_run(run, parent)
    run.flow_version = flow.version
    run.parameters = parameters
    run.policy = flow.policy
    run.tags = sorted(TagsContext.get().current_tags)
    run.expected_start_micros = passing_time().now()
    inputs = collect_inputs(
        parameters,
        wait_for,
        origins_around(parent),
        own_run_ids=() if parent is None else parent.run_ids,
    )
    run.inputs = inputs.edges
    call = FlowCall(_flow_context(flow, run, parameters, parent), inputs, wait_for)
    book = _book_for(call, parent) if is_step else None
    if book is not None:
        enlist(call, book, flow.name)
    return call


def _book_for(call: FlowCall, parent: FlowRunContext | TaskRunContext | None) -> StepBook | None:
    """The book in which a subflow call has its place; None where it has none."""
    if parent is None:
        return None
    if parent.steps is None and isinstance(parent, FlowRunContext) and call.context.persist_result:
        return parent.kept_subflows
    return parent.steps


def recorded_flow_call(flow: Flow[..., Any], run: FlowRun, parameters: Mapping[str, Any]) -> FlowCall:
    """A flow run that is on record already, and that this process is to execute from the top.

    Args:
        flow: the flow.
        run: the run, in the state that it is on record with.
        parameters: all of them, by parameter name.
    """
    ensure_configured()
    run.parameters = parameters
    run.policy = flow.policy
    before, run.flow_version = run.flow_version, flow.version or run.flow_version
    context = _flow_context(flow, run, parameters, None)
    context.earlier_version = before
    begins_anew = context.has_other_code and flow.on_code_change == "restart"
    if context.steps is not None and (run.owner.attempt > 1 or run.run_count) and not begins_anew:
        context.steps.expect_past()
    return FlowCall(context, collect_inputs(parameters))


def recorded_task_call(
    task: Task[..., Any], run: TaskRun, parameters: Mapping[str, Any], wait_for: Any = None
) -> TaskCall:
    """A task run that is on record already, and that this process is to execute. Its result is kept.

    Args:
        task: the task.
        run: the run, in the state that it is on record with.
        parameters: all of them, by parameter name.
        wait_for: futures and states that must complete first, in any collection.
    """
    ensure_configured()
    run.parameters = parameters
    run.policy = task.policy
    persists = _task_persists(task.persist_result, None)
    context = TaskRunContext(
        task,
        run,
        parameters,
        parent=None,
        flow_context=None,
        log_prints=_log_prints(task.log_prints, None),
        persist_result=True if persists is None else persists,
    )
    run.persist_result = context.persist_result
    context.assets = asset_context(task, None)
    return TaskCall(context, collect_inputs(parameters, wait_for, own_run_ids=(run.id,)), wait_for)


def _flow_context(
    flow: Flow[..., Any],
    run: FlowRun,
    parameters: Mapping[str, Any],
    parent: FlowRunContext | TaskRunContext | None,
) -> FlowRunContext:
    context = FlowRunContext(
        flow,
        run,
        parameters,
        parent=parent,
        log_prints=_log_prints(flow.log_prints, parent),
        persist_result=_persists(flow.persist_result, parent),
    )
    run.persist_result = context.persist_result
    context.steps = _steps(flow, run, context.steps)
    if context.steps is None and flow.retries:
        context.kept_subflows = _book(run, only_completed=True)
        context.kept_subflows.takes_notes = True
    return context


def _book(run: FlowRun, *, only_completed: bool = False) -> StepBook:
    # Loaded by the first flow that has use for it.
    from headrace.execution.steps import ServerSteps

    return StepBook(ServerSteps(run.owner.run_id), only_completed=only_completed)


def _steps(flow: Flow[..., Any], run: FlowRun, around: StepBook | None) -> StepBook | None:
    """The book of the steps of a flow run; None where it is not durable."""
    durable = flow.durable
    if durable is None:
        durable = around is not None if run.parent_run_id else get_current_settings().flows_default_durable
    if not durable:
        return None
    book = around or _book(run)
    if flow.retries:
        book.takes_notes = True
    return book


def _make_subflow_run(run: FlowRun, parent: FlowRunContext | TaskRunContext) -> None:
    caller = parent.run
    run.parent_run_id = caller.id
    run.root_run_id = caller.root_run_id
    run.owner = caller.owner
    flow = _flow_around(parent)
    if flow is not None:
        run.parent_flow_run_id = flow.flow_run.id
        run.root_flow_run_id = flow.flow_run.root_flow_run_id
    if isinstance(caller, TaskRun):
        run.parent_task_run_id = caller.id


def _flow_around(parent: FlowRunContext | TaskRunContext | None) -> FlowRunContext | None:
    """The innermost flow run of `parent`, itself included."""
    return parent.flow_context if isinstance(parent, TaskRunContext) else parent


def origins_around(parent: FlowRunContext | TaskRunContext | None) -> ResultOrigins | None:
    """What is known about where values came from, in the innermost flow run of `parent`."""
    flow = _flow_around(parent)
    return None if flow is None else flow.origins


def _log_prints(own: bool | None, parent: FlowRunContext | TaskRunContext | None) -> bool:
    if own is None:
        own = get_current_settings().logging_log_prints if parent is None else parent.log_prints
    if own:
        watch_prints()
    return own


def _task_persists(own: bool | None, parent: FlowRunContext | TaskRunContext | None) -> bool | None:
    if own is None:
        own = get_current_settings().tasks_default_persist_result
    return _persists(own, parent)


def _persists(own: bool | None, parent: FlowRunContext | TaskRunContext | None) -> bool | None:
    """The run's own word, else that of the calling run, else that of the settings."""
    if own is not None:
        return own
    if parent is not None:
        return parent.persist_result
    return True if get_current_settings().results_persist_by_default else None
