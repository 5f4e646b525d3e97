"""Results in storage: looked up before a body runs, written before the state that tells of them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from headrace.core.clock import from_micros
from headrace.core.errors import ServiceError
from headrace.exceptions import SerializationError
from headrace.locking.protocol import IsolationLevel
from headrace.results import InlineResult
from headrace.results.payloads import Producer
from headrace.serializers import TooLarge

if TYPE_CHECKING:
    from headrace.context import FlowRunContext, TaskRunContext
    from headrace.engine.api import Ops
    from headrace.engine.transactions import TransactionNode
    from headrace.results import ResultRecord
    from headrace.states import State

__all__ = ["keep", "keep_for_replay", "open_transaction", "stage_result"]

_log = logging.getLogger("headrace.task_runs")
_NOT_KEPT: Final = "The result of run %r is not kept in storage: %s"


async def open_transaction(ops: Ops, context: TaskRunContext, txn: TransactionNode) -> None:
    """Begin the transaction of an attempt whose result is kept, under the key of the result.

    It has committed afterwards if a result lies there that may be used.

    Raises:
        ConfigurationError: SERIALIZABLE is asked for, and nothing locks keys.
    """
    task = context.task
    txn.key = _key(context)
    if txn.key is None:
        return
    txn.store = context.result_store
    policy = task.cache_policy
    if policy is not None and policy.isolation_level is not None:
        txn.isolation_level = IsolationLevel(policy.isolation_level)
    txn.overwrite = not task.looks_up_results
    await txn.begin(ops)


def _key(context: TaskRunContext) -> str | None:
    try:
        key: Any = context.task.result_key(context)
        if key is None or isinstance(key, str):
            return key
        raise TypeError(f"a cache key must be a string or None, not {type(key).__name__}")
    except Exception:  # a policy, key function or template of the author's
        _log.exception("The cache key could not be made: the task runs, and its result is not cached.")
        return None


def stage_result(ops: Ops, context: TaskRunContext, txn: TransactionNode, state: State[Any]) -> None:
    """Have the data of a COMPLETED state written when the transaction commits, under its key if it has one.

    What cannot be written is logged: the run ends as it would have.
    """
    key, name = txn.key, context.run.name
    lifetime = context.task.cache_expiration
    expires = None if lifetime is None or key is None else from_micros(ops.now()) + lifetime
    store = context.result_store
    try:
        record = store.create_result_record(state.data, key, expires)
        state.kept, write = store.prepare_record(record, txn.holder)
    except Exception as error:  # also what a serializer of the author raises
        _log.warning(_NOT_KEPT, name, error)
        txn.write_on_commit = False
        return
    if key is not None:
        state.state_details = replace(state.state_details, cache_key=key, cache_expiration=expires)

    def write_or_warn() -> None:
        try:
            write()
            if key is not None and store.cache_index is not None:
                _share(context, record, txn.holder)
        except Exception as error:  # also what a storage of the author raises
            state.kept = None
            _log.warning(_NOT_KEPT, name, error)

    txn.prepare_write(write_or_warn)


def _share(context: TaskRunContext, record: ResultRecord[Any], holder: str) -> None:
    """Have other runs find a result that has just been written; if they cannot, the run is as good."""
    run, task = context.task_run, context.task
    producer = Producer(run.id, task.name, run.flow_name, run.tags, task.cache_expiration)
    try:
        context.result_store.share(record, producer, holder)
    except ServiceError as error:
        _log.warning("The result of run %r is kept, but not shared: %s", run.name, error)


async def keep(
    ops: Ops,
    context: FlowRunContext | TaskRunContext,
    state: State[Any],
) -> None:
    """Write the data of a final state to storage, under a random key.

    What cannot be written is logged: the run ends as it would have.

    Args:
        ops: writes.
        context: the run.
        state: the state, not entered yet; its `kept` says where the data is afterwards.
    """
    if not state.has_data:
        return
    try:
        store = context.result_store
        record = store.create_result_record(state.data)
        state.kept = await ops.offload(store.persist_result_record, record)
    except Exception as error:  # also what a serializer or storage of the author raises
        _log.warning(_NOT_KEPT, context.run.name, error)


async def keep_for_replay(ops: Ops, context: FlowRunContext | TaskRunContext, state: State[Any]) -> None:
    """See that the result of a step is on record when the body that has called it is run again.

    A small one travels in the record. A larger one is written to storage, also where results are not kept
    otherwise, unless the author wants them nowhere.
    """
    if not state.has_data or state.kept is not None or context.persist_result is False:
        return
    try:
        state.kept = InlineResult.of(state.data)
    except TooLarge:
        await keep(ops, context, state)
    except SerializationError as error:
        _log.warning(
            "The result of run %r cannot be recorded: if the flow is run again, the step runs again. %s",
            context.run.name,
            error,
        )
