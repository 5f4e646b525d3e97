"""Steps that have completed in an earlier pass: their results are given without running them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from headrace.core.states import StateType
from headrace.engine.keeping import open_transaction, stage_result
from headrace.engine.steps import commit, forget, renew, settle
from headrace.engine.transactions import CommitMode
from headrace.exceptions import MissingResult
from headrace.upstreams import resolve_inputs

if TYPE_CHECKING:
    from headrace.context import TaskRunContext
    from headrace.engine.api import Ops
    from headrace.engine.flows import FlowCall
    from headrace.engine.journal import Journal
    from headrace.engine.tasks import TaskCall
    from headrace.engine.transactions import TransactionNode
    from headrace.states import State

__all__ = ["recalled", "replay_transaction", "settle_deferred", "watch_transaction"]


async def settle_deferred(ops: Ops, call: TaskCall | FlowCall) -> None:
    """Wait for the inputs of a run that is not recorded yet, and see which step it is.

    Inputs that cannot be resolved are left as they are, for the ordinary course of the run to tell of.
    """
    context, inputs = call.context, call.inputs
    if inputs.waits_for:
        await ops.wait(inputs.waits_for)
    try:
        context.parameters = resolve_inputs(context.parameters, call.wait_for)
    except Exception:
        assert call.step is not None
        call.step.book.settled(context.run.id, context.run.id)
        call.step.is_deferred, call.step.is_settled = False, True
        return
    inputs.waits_for, inputs.as_they_are, call.wait_for = [], True, None
    settle(call)


async def recalled(ops: Ops, call: TaskCall | FlowCall, log: logging.Logger) -> State[Any] | None:
    """The state of a step that has completed in an earlier pass, with its value; None: it is to run.

    Called inside the run's context, so that what is logged belongs to the run.
    """
    step = call.step
    assert step is not None
    known = step.known
    if known is None or not known.is_completed:
        return None
    context, run = call.context, call.context.run
    try:
        if known.is_elsewhere:
            state: State[Any] = await ops.offload(step.book.read, known)
        else:
            state = step.book.read(known)
    except Exception as error:  # also what a serializer or storage of the author raises
        reason = str(error) if isinstance(error, MissingResult) else f"{type(error).__name__}: {error}"
        log.warning("%r has completed before, and runs again: %s", run.name, reason)
        renew(call)
        return None
    run.state = state
    run.start_micros, run.end_micros = known.start_micros, known.end_micros
    log.debug("Replayed: the run has completed before, with this result.")
    flow = context.parent if context.parent is None else context.parent.enclosing_flow
    if flow is not None:
        flow.origins.remember(state.data, run.id)
    return state


async def replay_transaction(ops: Ops, context: TaskRunContext, state: State[Any]) -> bool:
    """Put a recalled task run where it was in the transaction around it.

    With its own commit it was done for good. One that waited for a commit which never came waits again: its
    commit hooks are called with the commit, its rollback hooks if it is undone.

    Returns:
        Whether it may be undone.
    """
    if not context.is_in_transaction():
        return False
    txn = context.own_transaction()
    if txn.parent is None or txn.commit_mode is CommitMode.EAGER:
        return False
    if context.persist_result:
        await open_transaction(ops, context, txn)
        if txn.is_committed():
            return False
        stage_result(ops, context, txn, state.with_data(state.data))
    task = context.task
    txn.stage(state.data, task.on_rollback_hooks, task.on_commit_hooks)
    await txn.end(ops, None)
    return True


def watch_transaction(ops: Ops, context: TaskRunContext, journal: Journal, txn: TransactionNode) -> None:
    """Have it recorded what becomes of the transaction of a run that has completed."""
    txn.call_when_rolled_back(lambda: _record_rollback(ops, context, journal))
    if context.task_run.step_key and txn.is_staged():
        txn.call_when_committed(lambda: _record_commit(ops, context))


def _record_commit(ops: Ops, context: TaskRunContext) -> None:
    """The commit hooks of a step have been called: they are not when the body around it is run again."""
    context.task_run.step_committed = True
    ops.update_run(context.task_run)
    commit(context)


def _record_rollback(ops: Ops, context: TaskRunContext, journal: Journal) -> None:
    """One more state of a run that completed, and was undone with the transaction that it belonged to."""
    if context.task_run.step_key:
        forget(context)
    message = "The run was rolled back with its transaction."
    ops.record(journal.run, journal.make(StateType.COMPLETED, "RolledBack", message))
