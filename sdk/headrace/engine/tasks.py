"""What a task run goes through, from its arguments to its final state."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headrace.core.states import StateType
from headrace.engine.api import LimitPassed
from headrace.engine.bodies import run_body
from headrace.engine.cancelling import is_cancellation
from headrace.engine.endings import Ending, ending_of_error, lost_ending
from headrace.engine.gate import until_flow_runs
from headrace.engine.hooks import run_hooks
from headrace.engine.journal import Journal
from headrace.engine.keeping import keep, keep_for_replay, open_transaction, stage_result
from headrace.engine.names import run_name
from headrace.engine.outcome import Outcome, outcome_of
from headrace.engine.recall import recalled, replay_transaction, settle_deferred, watch_transaction
from headrace.engine.retries import given_up, may_try, unless_retried
from headrace.engine.steps import Step, note, settle
from headrace.exceptions import Abort, CancelledRun, LostInFlight, Pause, UpstreamTaskError
from headrace.states import State, StateDetails
from headrace.upstreams import Inputs, has_identity, resolve_inputs

if TYPE_CHECKING:
    from headrace.context import TaskRunContext
    from headrace.engine.api import Ops
    from headrace.engine.transactions import TransactionNode
    from headrace.results import StoredResult
    from headrace.runs import TaskRun

__all__ = [
    "Outcome",
    "TaskCall",
    "announce",
    "cancel_unstarted",
    "crash_elsewhere",
    "fail_elsewhere",
    "prepare_elsewhere",
    "run_task",
]

_log = logging.getLogger("headrace.task_runs")


@dataclass(slots=True)
class TaskCall:
    """One call of a task: everything that is known before it starts.

    Attributes:
        context: the run, the task and the arguments as they were given.
        inputs: what the arguments depend on.
        wait_for: futures and states that must complete first, in any collection.
        step: its place among the steps of its caller; None: these are not told apart.
    """

    context: TaskRunContext
    inputs: Inputs
    wait_for: Any = None
    step: Step | None = None

    @property
    def run(self) -> TaskRun:
        """The task run."""
        return self.context.task_run

    @property
    def is_ready(self) -> bool:
        """Whether the body can be given the arguments as they are."""
        return self.inputs.as_they_are and self.wait_for is None


async def run_task(ops: Ops, call: TaskCall) -> Outcome:
    """Take a task run from its arguments to its final state, and have every step recorded.

    Raises:
        BaseException: execution was ended from outside (`SystemExit`, `KeyboardInterrupt`, SIGTERM,
            cancellation); the run is CRASHED.
    """
    context = call.context
    run = context.task_run
    journal = _journal(ops, context)
    with context:
        try:
            if call.step is not None:
                if (outcome := await _recall(ops, call)) is not None:
                    return outcome
                journal = _journal(ops, context)  # the run may have got another id
                if call.step.is_lost and not context.task.idempotent:
                    return await _fail_lost(ops, context, journal)
            if run.state is None:
                journal.begin(journal.make(StateType.PENDING, "Pending"))
            if call.is_ready and context.task.task_run_name is None:
                return await _attempts(ops, context, journal)
            outcome = await _prepare(ops, call, journal)
            return outcome or await _attempts(ops, context, journal)
        except (Abort, Pause) as error:
            await _undo(ops, context, error)
            raise
        except BaseException as error:
            await _undo(ops, context, error)
            if is_cancellation(ops, context, error):
                return _cancel(context, journal, error)
            _crash(ops, context, journal, error)
            raise


async def _recall(ops: Ops, call: TaskCall) -> Outcome | None:
    """The outcome of a step that has completed in an earlier pass through its caller's body."""
    step = call.step
    if step is None:
        return None
    if step.is_deferred:
        await settle_deferred(ops, call)
    if not step.is_completed:
        return None
    state = await recalled(ops, call, _log)
    if state is None:
        return None
    if call.context.assets is not None:
        call.context.assets.begin(call.run)
    if not step.has_committed and await replay_transaction(ops, call.context, state):
        watch_transaction(ops, call.context, _journal(ops, call.context), call.context.own_transaction())
    return Outcome(state, state if state.state_details.returned_state else state.data)


async def _fail_lost(ops: Ops, context: TaskRunContext, journal: Journal) -> Outcome:
    """End a run that must not be run again, because nobody knows what its body has done."""
    ending = lost_ending(context.task.name)
    if journal.run.state is None:
        journal.begin(journal.make(StateType.PENDING, "Pending"))
    return await _finish(ops, context, journal, ending, journal.draft(ending))


async def _prepare(
    ops: Ops,
    call: TaskCall,
    journal: Journal,
    *,
    named: bool = True,
    stays: Callable[[StoredResult], bool] | None = None,
) -> Outcome | None:
    """Resolve the arguments and, if it is to be `named`, the name; an outcome when the body must not run."""
    context = call.context
    task, run = context.task, context.task_run
    try:
        if call.inputs.waits_for:
            journal.announce()
            await ops.wait(call.inputs.waits_for)
        if not call.is_ready:
            # Whether a step has been taken before is told by its arguments themselves.
            stays = stays if call.step is None else None
            context.parameters = resolve_inputs(context.parameters, call.wait_for, stays)
        if call.step is not None and not call.step.is_settled:
            settle(call)
            if not journal.is_unrecorded:
                ops.update_run(run)
        if named and task.task_run_name is not None:
            if callable(task.task_run_name):
                # It may write log lines, and nothing of a run comes before the run.
                journal.announce()
            run.name = await run_name(ops, "task_run_name", task.task_run_name, context.parameters)
            if not journal.is_unrecorded:
                ops.update_run(run)
    except UpstreamTaskError as error:
        state = journal.make(StateType.PENDING, "NotReady", str(error))
        return Outcome(journal.enter(state), error=error)
    except Exception as error:
        ending = ending_of_error(error, "Task", None)
        return await _finish(ops, context, journal, ending, journal.draft(ending))
    return None


async def _attempts(ops: Ops, context: TaskRunContext, journal: Journal) -> Outcome:
    task, run = context.task, context.task_run
    args, kwargs = task.binder.arguments(context.parameters)
    flow = context.flow_context
    if task.retry_deadline_seconds is not None and not may_try(ops, context):
        # A run that is taken up again does not get a fresh budget.
        ending = given_up(task)
        return await _finish(ops, context, journal, ending, journal.draft(ending))
    while True:
        if flow is not None and (
            flow.gate is not None or flow.outermost.suspended is not None or flow.outermost.is_cancelling
        ):
            held = await until_flow_runs(ops, flow, journal)
            if held is not None:
                return Outcome(held, error=CancelledRun(held.message))
        if context.assets is not None:
            context.assets.begin(run)
        name = "Retrying" if context.tries else "Running"
        running = journal.enter(journal.make(StateType.RUNNING, name))
        if task.on_running_hooks:
            await run_hooks(ops, _log, task.on_running_hooks, task, run, running)
        if (
            context.persist_result
            or task.on_commit_hooks
            or task.on_rollback_hooks
            or context.is_in_transaction()
        ):
            outcome = await _transacted_attempt(ops, context, journal, args, kwargs)
            if outcome is not None:
                return outcome
            continue
        ending = await run_body(ops, context, journal, args, kwargs)
        draft = journal.draft(ending)
        if context.transaction is not None:
            # The body has asked for it.
            outcome = await _settled(ops, context, journal, ending, draft)
            if outcome is not None:
                return outcome
            context.transaction = None
            continue
        if ending.type is StateType.FAILED:
            failed = await unless_retried(ops, context, journal, ending, draft)
            if failed is None:
                continue
            draft = failed
        return await _finish(ops, context, journal, ending, draft)


async def _transacted_attempt(
    ops: Ops, context: TaskRunContext, journal: Journal, args: list[Any], kwargs: dict[str, Any]
) -> Outcome | None:
    """An attempt in a transaction of its own, whose result may be there already; None: try again."""
    context.transaction = None
    txn = context.own_transaction()
    ending = await _opened(ops, context, txn) if context.persist_result and not ops.streams else None
    if ending is None and txn.is_committed():
        return await _cached(ops, context, journal, txn)
    ending = ending or await run_body(ops, context, journal, args, kwargs)
    return await _settled(ops, context, journal, ending, journal.draft(ending))


async def _settled(
    ops: Ops, context: TaskRunContext, journal: Journal, ending: Ending, draft: State[Any]
) -> Outcome | None:
    """End the transaction of an attempt as the attempt has ended, then the run; None: try again."""
    txn = context.own_transaction()
    is_kept = bool(context.persist_result) and not ops.streams
    if draft.is_completed():
        await _stage(ops, context, txn, draft, is_kept)
        outcome = await _finish(ops, context, journal, ending, draft)
        watch_transaction(ops, context, journal, txn)
        return outcome
    await txn.rollback(ops, with_parent=False)
    if ending.type is StateType.FAILED:
        failed = await unless_retried(ops, context, journal, ending, draft)
        if failed is None:
            return None
        draft = failed
    if txn.parent is not None:
        await txn.parent.rollback(ops)
    if is_kept:
        await keep(ops, context, draft)
    return await _finish(ops, context, journal, ending, draft)


async def _opened(ops: Ops, context: TaskRunContext, txn: TransactionNode) -> Ending | None:
    try:
        await open_transaction(ops, context, txn)
    except Exception as error:
        return ending_of_error(error, "Task", None)
    return None


async def _stage(
    ops: Ops, context: TaskRunContext, txn: TransactionNode, draft: State[Any], is_kept: bool
) -> None:
    """End the transaction of an attempt that went well: its hooks are called now, or with those around it."""
    task = context.task
    if is_kept and draft.has_data:
        stage_result(ops, context, txn, draft)
    txn.stage(draft.data, task.on_rollback_hooks, task.on_commit_hooks)
    await txn.end(ops, None)
    if txn.is_rolled_back():
        draft.kept = None
        draft.state_details = replace(draft.state_details, cache_key=None, cache_expiration=None)


async def _undo(ops: Ops, context: TaskRunContext, error: BaseException) -> None:
    """Roll back what an attempt has done whose execution was ended from outside."""
    txn = context.transaction
    if txn is None:
        return
    if isinstance(error, GeneratorExit):
        txn.release()
    else:
        await txn.rollback(ops)


async def _cached(ops: Ops, context: TaskRunContext, journal: Journal, txn: TransactionNode) -> Outcome:
    """The end of a run whose result was there before it."""
    record = txn.read()
    assert record is not None, "a transaction that has committed as it began has a record"
    ending = Ending(StateType.COMPLETED, "Cached", None, record.result, record.result)
    draft = journal.draft(ending)
    draft.kept = record.kept
    draft.state_details = replace(
        draft.state_details,
        cache_key=record.key,
        cache_expiration=record.expiration,
        producer_run_id=record.producer_run_id,
    )
    return await _finish(ops, context, journal, ending, draft)


async def prepare_elsewhere(
    ops: Ops, call: TaskCall, stays: Callable[[StoredResult], bool] | None = None
) -> State[Any] | None:
    """Resolve the arguments of a call whose body another process is to run, once its flow run is not paused.

    Args:
        ops: the world outside.
        call: the call.
        stays: whether a result that is stored elsewhere stays there.

    Returns:
        The newest state of the run when the body must not run: an upstream did not complete, say.

    Raises:
        BaseException: execution was ended from outside; the run is CRASHED.
    """
    context, run = call.context, call.run
    flow = context.flow_context
    journal = _journal(ops, context)
    with context:
        try:
            if call.step is not None:
                if (outcome := await _recall(ops, call)) is not None:
                    return outcome.state
                journal = _journal(ops, context)
                if call.step.is_lost and not context.task.idempotent:
                    return (await _fail_lost(ops, context, journal)).state
            if run.state is None:
                journal.begin(journal.make(StateType.PENDING, "Pending"))
                journal.announce()
            outcome = None if call.is_ready else await _prepare(ops, call, journal, named=False, stays=stays)
            if outcome is not None:
                return outcome.state
            if context.assets is not None:
                context.assets.begin(run)
            return None if flow is None else await until_flow_runs(ops, flow, journal)
        except (Abort, Pause):
            raise
        except BaseException as error:
            if is_cancellation(ops, context, error):
                return _cancel(context, journal, error).state
            _crash(ops, context, journal, error)
            raise


async def fail_elsewhere(ops: Ops, call: TaskCall, error: Exception) -> State[Any]:
    """End a run FAILED that could not be handed to another process."""
    context = call.context
    journal = _journal(ops, context)
    with context:
        ending = (
            lost_ending(context.task.name)
            if isinstance(error, LostInFlight)
            else ending_of_error(error, "Task", None)
        )
        return (await _finish(ops, context, journal, ending, journal.draft(ending))).state


def crash_elsewhere(ops: Ops, call: TaskCall, message: str) -> State[Any]:
    """End a run CRASHED whose process is gone."""
    journal = _journal(ops, call.context)
    with call.context:
        state = journal.enter(journal.make(StateType.CRASHED, "Crashed", message))
        _log.error("Crash detected! %s", message)
    return state


async def _finish(
    ops: Ops, context: TaskRunContext, journal: Journal, ending: Ending, draft: State[Any]
) -> Outcome:
    task, run = context.task, context.task_run
    if draft.type is StateType.COMPLETED:
        if not has_identity(ending.value):
            draft.state_details = replace(draft.state_details, untrackable_result=True)
        if run.step_key and not ops.streams:
            await keep_for_replay(ops, context, draft)
    # A time limit may have been recorded while the body was still running.
    state = run.state if run.state is not None and run.state.is_final() else journal.enter(draft)
    if run.step_key:
        note(context, state)
    if state.type is StateType.COMPLETED:
        _log.debug("Finished in state %s", state)
        if context.flow_context is not None:
            context.flow_context.origins.remember(ending.value, run.id)
        if task.on_completion_hooks:
            await run_hooks(ops, _log, task.on_completion_hooks, task, run, state)
    else:
        _log.error("Finished in state %s", state, exc_info=ending.error)
        if state.type is StateType.FAILED and task.on_failure_hooks:
            await run_hooks(ops, _log, task.on_failure_hooks, task, run, state)
    if context.assets is not None:
        context.assets.ended(state)
    return Outcome(state, ending.value, ending.error)


def _crash(ops: Ops, context: TaskRunContext, journal: Journal, error: BaseException) -> None:
    """Record that execution was ended from outside, unless the run has ended already."""
    state = context.task_run.state
    if state is not None and state.is_final():
        return
    if context.is_ended_by_outer_limit(error.error if isinstance(error, LimitPassed) else error):
        message = "Execution was ended by the timeout of an enclosing run."
    else:
        message = f"Execution was {ops.crash_message(error)}."
    if state is None:
        journal.begin(journal.make(StateType.PENDING, "Pending"))
    journal.enter(journal.make(StateType.CRASHED, "Crashed", message, error))
    _log.error("Crash detected! %s", message)


def _cancel(context: TaskRunContext, journal: Journal, error: BaseException) -> Outcome:
    """End a run CANCELLED whose body was interrupted.

    Raises:
        BaseException: `error`, when it was for a run around this one.
    """
    run = context.task_run
    message = context.cancel_reason() or str(error)
    if run.state is not None and not run.state.is_final():
        state = journal.enter(journal.make(StateType.CANCELLED, "Cancelled", message))
        _log.error("Finished in state %s", state)
    if context.cancelled is None or run.state is None:
        raise error
    if run.state.is_cancelled():
        return Outcome(run.state, error=CancelledRun(message))
    return outcome_of(run.state)


def announce(ops: Ops, call: TaskCall) -> None:
    """Record the run PENDING, before anybody runs it, unless it is on record already."""
    if call.step is not None and (call.step.is_deferred or call.step.is_completed):
        return
    journal = _journal(ops, call.context)
    journal.begin(journal.make(StateType.PENDING, "Pending"))
    journal.announce()


def cancel_unstarted(ops: Ops, call: TaskCall, message: str) -> State[Any]:
    """End a run CANCELLED whose body was never entered."""
    context, run = call.context, call.run
    journal = _journal(ops, context)
    if run.state is None:
        journal.begin(journal.make(StateType.PENDING, "Pending"))
    state = journal.enter(journal.make(StateType.CANCELLED, "Cancelled", message))
    if run.step_key:
        note(context, state)
    return state


def _journal(ops: Ops, context: TaskRunContext) -> Journal:
    run = context.task_run
    return Journal(ops, context, StateDetails(flow_run_id=run.flow_run_id, task_run_id=run.id))
