"""Results in storage: looked up before a body runs, written before the state that tells of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headrace.core.clock import from_micros

if TYPE_CHECKING:
    from headrace.context import FlowRunContext, TaskRunContext
    from headrace.engine.api import Ops
    from headrace.results import ResultRecord, ResultStore
    from headrace.states import State

__all__ = ["Place", "claim", "keep", "keep_under_key"]

_log = logging.getLogger("headrace.task_runs")


@dataclass(slots=True)
class Place:
    """Where the result of one attempt of a task run belongs.

    Attributes:
        key: its key; None: any, since nobody will look for it.
        found: what lies there already and may be used.
        holder: who has the key locked.
        store: where the key is locked; None: it is not.
    """

    key: str | None
    found: ResultRecord[Any] | None = None
    holder: str = ""
    store: ResultStore | None = None

    def release(self) -> None:
        """Let others have the key; nothing happens the second time."""
        store, self.store = self.store, None
        if store is not None and self.key is not None:
            try:
                store.release_lock(self.key, self.holder)
            except Exception:  # it was held too long, and somebody else has it now
                _log.warning("The lock of the key %r was lost before it was given back.", self.key)


async def claim(ops: Ops, context: TaskRunContext) -> Place:
    """The place of the result of the attempt that begins, with what lies there.

    Under SERIALIZABLE the key is locked, unless something was found.

    Raises:
        ConfigurationError: SERIALIZABLE is asked for, and nothing locks keys.
    """
    task = context.task
    place = Place(_key(context), holder=context.task_run.id)
    if place.key is None:
        return place
    store, policy = context.result_store, task.cache_policy
    if policy is not None and policy.isolation_level == "SERIALIZABLE":
        await ops.lock(store, place.key, place.holder)
        place.store = store
    try:
        if task.looks_up_results:
            place.found = await ops.offload(store.find, place.key)
    except BaseException:
        place.release()
        raise
    if place.found is not None:
        place.release()
    return place


def _key(context: TaskRunContext) -> str | None:
    try:
        key: Any = context.task.result_key(context)
        if key is None or isinstance(key, str):
            return key
        raise TypeError(f"a cache key must be a string or None, not {type(key).__name__}")
    except Exception:  # a policy, key function or template of the author's
        _log.exception("The cache key could not be made: the task runs, and its result is not cached.")
        return None


async def keep_under_key(ops: Ops, context: TaskRunContext, state: State[Any], place: Place) -> None:
    """Write the data of a COMPLETED state under the key of the run, if it has one."""
    if place.key is None:
        await keep(ops, context, state)
        return
    lifetime = context.task.cache_expiration
    expires = None
    if lifetime is not None:
        expires = from_micros(ops.now()) + lifetime
    await keep(ops, context, state, place.key, expires, place.holder)
    if state.kept is not None:
        details = replace(state.state_details, cache_key=place.key, cache_expiration=expires)
        state.state_details = details


async def keep(
    ops: Ops,
    context: FlowRunContext | TaskRunContext,
    state: State[Any],
    key: str | None = None,
    expiration: Any = None,
    holder: str | None = None,
) -> None:
    """Write the data of a final state to storage.

    What cannot be written is logged: the run ends as it would have.

    Args:
        ops: writes.
        context: the run.
        state: the state, not entered yet; its `kept` says where the data is afterwards.
        key: where to keep the data; None: under a random key.
        expiration: from when on it may not be used any more.
        holder: who has the key locked.
    """
    if not state.has_data:
        return
    try:
        store = context.result_store
        record = store.create_result_record(state.data, key, expiration)
        state.kept = await ops.offload(store.persist_result_record, record, holder)
    except Exception as error:  # also what a serializer or storage of the author raises
        _log.warning("The result of run %r is not kept in storage: %s", context.run.name, error)
