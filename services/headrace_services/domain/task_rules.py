"""The rules for task runs, in order. Executors apply them themselves; here they answer proposals."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from headrace.core.verdicts import Abort, Wait
from headrace_services.domain.effects import (
    Enqueue,
    InsertCache,
    NoteFlowRunCount,
    ReleaseSlot,
    ResetRunCount,
    TakeSlot,
)
from headrace_services.domain.facts import Context
from headrace_services.domain.flow_rules import (
    ANY,
    FINAL,
    NON_FINAL,
    TYPES,
    awaiting_retry,
    copy_time,
    duplicate,
    keep_result,
    not_before_time,
    refuse_double_submission,
)
from headrace_services.domain.pipeline import Amend, Keep, Outcome, Plan, Policy, Replace, Rule
from headrace_services.domain.states import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    CRASHED,
    FAILED,
    PAUSED,
    PENDING,
    RUNNING,
    SCHEDULED,
    StateValue,
)

__all__ = ["CACHE_KEY_CHARACTERS", "MINIMAL_TASK_RULES", "TAG_SLOT_WAIT_SECONDS", "TASK_RULES"]

CACHE_KEY_CHARACTERS: Final = 2000
TAG_SLOT_WAIT_SECONDS: Final = 10.0


def take_from_cache(context: Context) -> Outcome:
    """1: a result that is known is not computed again; before slots, because it needs none."""
    hit = context.cache.hit
    if hit is None or context.cache.refresh:
        return None
    cached = StateValue(
        COMPLETED,
        context.fresh_id,
        context.now,
        name="Cached",
        message="The result was found in the cache.",
        data=hit.data,
        cache_key=hit.cache_key,
        cache_expire_time=hit.cache_expire_time,
    )
    return Replace(cached, cached.message)


def leave_final(context: Context) -> Outcome:
    """2: a task run that has ended begins anew, unless its result is kept."""
    current, proposed = context.current, context.proposed
    assert current is not None
    if proposed.type in (CANCELLING, PAUSED, CRASHED):
        return Abort(f"The run has ended: it is {current.name}.")
    if current.has_result:
        return Keep("The run has completed and its result is kept.")
    if proposed.type not in NON_FINAL:
        return None
    grew = context.flow is not None and context.flow.run_count > context.run.seen_in_flow_run_count
    if proposed.type is RUNNING and grew:
        return Amend(replace(proposed, name="Retrying"), (ResetRunCount(),))
    return Plan((ResetRunCount(),))


def flow_must_run(context: Context) -> Outcome:
    """3: a task runs while its flow does."""
    if context.flow is None:
        return None
    flow = context.flow.state
    if flow is None:
        return Abort("The flow run has no state yet.")
    if flow.type is PAUSED:
        not_ready = StateValue(
            PAUSED,
            context.fresh_id,
            context.now,
            name="NotReady",
            message="The flow run is paused.",
            pause_timeout=flow.pause_timeout,
            pause_reschedule=flow.pause_reschedule,
        )
        return Replace(not_ready, not_ready.message)
    if flow.type is not RUNNING:
        return Abort(f"The flow run is {flow.name}.")
    return None


def take_tag_slots(context: Context) -> Outcome:
    """4: one slot on every limit of the run's tags, or none of them."""
    wanted = [limit for limit in context.limits if limit.is_enabled and not limit.holds]
    for limit in wanted:
        if limit.slots == 0:
            return Abort(f"The limit '{limit.name}' has no slot at all.")
    full = [limit for limit in wanted if limit.is_full]
    if not full:
        return Plan(tuple(TakeSlot(limit.name) for limit in wanted)) if wanted else None
    fullest = max(full, key=lambda limit: limit.taken / limit.slots)
    seconds = min(TAG_SLOT_WAIT_SECONDS, fullest.mean_occupancy_seconds * (0.5 + context.spread))
    return Wait(seconds, f"The limit '{fullest.name}' is full.")


def retry(context: Context) -> Outcome:
    """7: a failure is tried again, unless its author's condition says no. An executor did it itself."""
    run, at = context.run, context.now + context.run.retry_delay
    is_over = run.retry_deadline is not None and at >= run.retry_deadline
    if context.by_executor or context.proposed.retriable is False or is_over:
        return None
    if run.books.run_count > run.max_retries:
        return None
    return Replace(awaiting_retry(context, at), f"Try {run.books.run_count} of {run.max_retries + 1} failed.")


def name_the_try(context: Context) -> Outcome:
    """8: a later try says so in its name."""
    if context.run_count == 0 or context.proposed.name != "Running":
        return None
    is_retry = context.current is not None and context.current.is_retry
    return Amend(replace(context.proposed, name="Retrying" if is_retry else "Rerunning"))


def track_flow_try(context: Context) -> Outcome:
    """9: remember in which try of its flow run the task ran."""
    return None if context.flow is None else Plan((NoteFlowRunCount(context.flow.run_count),))


def insert_into_cache(context: Context) -> Outcome:
    """10: a result with a key can be found again."""
    state = context.proposed
    if not state.cache_key:
        return None
    if len(state.cache_key) > CACHE_KEY_CHARACTERS:
        reason = f"The cache key has more than {CACHE_KEY_CHARACTERS} characters: nothing was cached."
        return Replace(state, reason)
    return Plan((InsertCache(state.cache_key, state.cache_expire_time),))


def release_tag_slots(context: Context) -> Outcome:
    """11: a task run that does not run holds no slot."""
    if context.proposed.type in (RUNNING, CANCELLING):
        return None
    return Plan(tuple(ReleaseSlot(limit.name) for limit in context.limits if limit.holds))


def enqueue(context: Context) -> Outcome:
    """12: a background task run goes to its queue, a retry to the lane that is served first."""
    state = context.proposed
    if state.type is not SCHEDULED or not (state.is_deferred or context.run.is_background):
        return None
    return Plan((Enqueue(is_retry=state.is_retry),))


def refuse_double_submission_in_background(context: Context) -> Outcome:
    """6 of the flow rules, so that two processes cannot start one background task."""
    return refuse_double_submission(context) if context.run.is_background else None


_FINAL: Final = frozenset(FINAL)
_WAITING: Final = frozenset({SCHEDULED, PENDING})
_RUNNING: Final = frozenset({RUNNING})
_DUPLICATE: Final = Rule(2, "duplicate", ANY, TYPES, duplicate)
_RELEASE: Final = Rule(11, "release the slots", ANY, TYPES, release_tag_slots, is_universal=True)
_SUBMITTED: Final = frozenset({PENDING, RUNNING, CANCELLING, CANCELLED})

TASK_RULES: Final[Policy] = (
    _DUPLICATE,
    Rule(6, "double submission", _SUBMITTED, frozenset({PENDING}), refuse_double_submission_in_background),
    Rule(1, "cache hit", ANY, _RUNNING, take_from_cache),
    Rule(2, "leaving a final state", _FINAL, TYPES, leave_final),
    Rule(3, "the flow must run", ANY, _RUNNING, flow_must_run),
    Rule(4, "tag slots", ANY, _RUNNING, take_tag_slots),
    Rule(5, "copy the time", _WAITING, frozenset({PENDING, RUNNING}), copy_time),
    Rule(6, "not before its time", _WAITING, _RUNNING, not_before_time),
    Rule(7, "retry", _RUNNING, frozenset({FAILED}), retry),
    Rule(8, "name the try", ANY, _RUNNING, name_the_try),
    Rule(9, "track the flow's try", ANY, _RUNNING, track_flow_try),
    Rule(10, "cache insert", ANY, frozenset({COMPLETED}), insert_into_cache),
    _RELEASE,
    Rule(12, "enqueue", ANY, TYPES, enqueue, is_universal=True),
)
"""Every rule. The first two are the flow rules' 2 and 6, which hold for tasks as well."""

MINIMAL_TASK_RULES: Final[Policy] = (
    _DUPLICATE,
    Rule(2, "keep the result", _FINAL, frozenset({COMPLETED}), keep_result),
    _RELEASE,
)
"""What force cannot skip."""
