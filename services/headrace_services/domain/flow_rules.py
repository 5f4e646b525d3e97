"""The rules for flow runs, in order. Their numbers are those of the documentation's table.

Rule 1 (the slot stays with the run) needs no code: a slot's holder is kept by run and fence, so no
proposer can lose it. Number 9 was never given out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import ceil
from typing import Final

from headrace.core.states import StateType
from headrace.core.verdicts import Abort, Wait
from headrace_services.domain.effects import (
    AddPauseKey,
    Announce,
    ClearPauseKeys,
    DropPauseKey,
    ExtendSlot,
    ReleaseSlot,
    RetryType,
    SetResuming,
    SetRetryType,
    TakeSlot,
)
from headrace_services.domain.facts import Context
from headrace_services.domain.pipeline import Amend, Keep, Outcome, Plan, Policy, Repeat, Replace, Rule
from headrace_services.domain.states import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    CRASHED,
    FAILED,
    FINAL_TYPES,
    PAUSED,
    PENDING,
    RUNNING,
    SCHEDULED,
    StateValue,
)

__all__ = ["ANY", "FLOW_RULES", "LATE_MARKER_RULES", "MINIMAL_FLOW_RULES", "NON_FINAL"]

ANY: Final = frozenset[StateType | None]({None, *StateType})
TYPES: Final = frozenset(StateType)
FINAL: Final = frozenset[StateType](FINAL_TYPES)
NON_FINAL: Final = TYPES - FINAL
_MICROSECONDS: Final = 1_000_000


def duplicate(context: Context) -> Outcome:
    """2: the same state again gets the same answer again."""
    if context.current is not None and context.current.id == context.proposed.id:
        return Repeat(context.current)
    return None if context.earlier is None else Repeat(context.earlier)


def keep_result(context: Context) -> Outcome:
    """3, even under force: a kept result is not overwritten by a completion without one."""
    current = _current(context)
    if current.has_result and context.proposed.type is COMPLETED and not context.proposed.has_result:
        return Keep("The run completed with a result, which a completion without one cannot replace.")
    return None


def leave_final(context: Context) -> Outcome:
    """3: a run that has ended is run again, or stays as it is."""
    current, target = _current(context), context.proposed.type
    if target in (CANCELLING, PAUSED, CRASHED):
        return Abort(f"The run has ended: it is {current.name}.")
    if target in FINAL_TYPES:
        return keep_result(context)
    if current.has_result:
        return Keep("The run has completed and its result is kept.")
    if target is SCHEDULED and not context.run.has_deployment:
        return Abort("The run has no deployment: nobody would run it again.")
    retry_type = RetryType.RESCHEDULE if target is SCHEDULED else RetryType.NONE
    return Plan((ClearPauseKeys(), SetResuming(False), SetRetryType(retry_type)))


def end_cancelled(context: Context) -> Outcome:
    """4: what is being cancelled ends cancelled."""
    return Keep("The run is being cancelled.")


def cancel_unheld(context: Context) -> Outcome:
    """5: with no process to tell, cancelling is done at once."""
    current = _current(context)
    if context.run.is_held and not (current.is_resumption or current.is_suspended):
        return None
    reason = "No process holds the run, so there is nothing to wait for."
    cancelled = StateValue(
        CANCELLED,
        context.fresh_id,
        context.now,
        message=context.proposed.message or reason,
        details=context.proposed.details,
    )
    return Replace(cancelled, reason)


def refuse_double_submission(context: Context) -> Outcome:
    """6: a run is submitted once; only the name of its PENDING may change."""
    current, proposed = _current(context), context.proposed
    if current.type is not PENDING or proposed.name in (current.name, "Pending"):
        return Abort(f"The run is {current.name}: it has been submitted already.")
    return Amend(_carry_time(current, proposed))


def check_slot_at_start(context: Context) -> Outcome:
    """7: a slot that was lost while the run was starting is taken again, if it is free."""
    for limit in context.limits:
        if not limit.is_enabled:
            continue
        if limit.holds:
            return Plan((ExtendSlot(limit.name),))
        if limit.is_full:
            reason = f"The slot of the limit '{limit.name}' was lost while the run was starting."
            return Replace(_cancelled(context, reason), reason)
        return Plan((TakeSlot(limit.name),))
    return None


def take_slot(context: Context) -> Outcome:
    """8: a run of a deployment with a limit needs a slot before it is submitted."""
    if context.run.is_deployment_deleted:
        return Abort("The deployment of the run was deleted.")
    for limit in context.limits:
        if not limit.is_enabled or limit.holds:
            continue
        if limit.slots == 0:
            return Abort(f"The limit '{limit.name}' has no slot at all.")
        if not limit.is_full:
            return Plan((TakeSlot(limit.name),))
        reason = f"The limit '{limit.name}' is full."
        if limit.cancels_new:
            return Replace(_cancelled(context, reason), reason)
        waiting = StateValue(
            SCHEDULED,
            context.fresh_id,
            context.now,
            name="AwaitingConcurrencySlot",
            scheduled_time=context.now + int(limit.wait_seconds * _MICROSECONDS),
        )
        return Replace(waiting, reason)
    return None


def mark_late(context: Context) -> Outcome:
    """10: only a run that just waits for its time is marked late, once."""
    if not context.proposed.is_late:
        return None
    current = context.current
    if current is None or current.type is not SCHEDULED:
        return Keep("Only a scheduled run can be late.")
    if current.is_late:
        return Keep("The run is marked late already.")
    if current.is_retry or current.is_resumption or current.name == "AwaitingConcurrencySlot":
        return Keep(f"A run that is {current.name} is never late.")
    for limit in context.limits:
        if limit.is_enabled and limit.cancels_new and limit.is_full and not limit.holds:
            reason = f"The limit '{limit.name}' is full."
            return Replace(_cancelled(context, reason), reason)
    return None


def enter_pause(context: Context) -> Outcome:
    """11: only a running body pauses, and each key once. It lasts as long as asked, from now."""
    current, proposed, run = context.current, context.proposed, context.run
    if current is None:
        return Abort("A run that has no state yet cannot pause.")
    if current.type is not RUNNING:
        return Keep(f"Only a running run can pause; this one is {current.name}.")
    if proposed.pause_key and proposed.pause_key in run.pause_keys:
        return Keep("This pause has fired already.")
    if proposed.pause_reschedule and (run.has_parent or not run.has_deployment):
        return Abort("Only a run of a deployment that is no subflow run can be suspended and run again.")
    key = proposed.pause_key or context.fresh_id
    timeout = proposed.pause_timeout
    if timeout is not None:
        timeout += context.now - proposed.timestamp
    return Amend(replace(proposed, pause_key=key, pause_timeout=timeout), (AddPauseKey(key),))


def leave_pause(context: Context) -> Outcome:
    """12: a pause ends in time, by resuming or ending the run."""
    current, target = _current(context), context.proposed.type
    if target is PENDING:
        return Keep("A paused run is resumed, not submitted.")
    if target in NON_FINAL and current.is_suspended and not context.run.has_deployment:
        return Keep("The run is suspended, and has no deployment that could run it.")
    if current.pause_timeout is not None and current.pause_timeout <= context.now:
        reason = "The run was paused and never resumed."
        failed = StateValue(FAILED, context.fresh_id, context.now, message=reason)
        return Replace(failed, reason)
    return Plan((SetResuming(True),))


def copy_time(context: Context) -> Outcome:
    """13: PENDING remembers what it was scheduled for."""
    return Amend(_carry_time(_current(context), context.proposed))


def not_before_time(context: Context) -> Outcome:
    """14: nothing starts before its time, on the server's clock. A retry's executor waits on its own."""
    current = _current(context)
    scheduled_time = current.scheduled_time
    if scheduled_time is None or scheduled_time <= context.now:
        return None
    if current.is_retry and context.by_executor:
        return None
    seconds = ceil((scheduled_time - context.now) / _MICROSECONDS)
    return Wait(float(seconds), "The run is scheduled for later.")


def retry(context: Context) -> Outcome:
    """15: a failure is tried again. An executor has applied the rule itself."""
    run, proposed = context.run, context.proposed
    if proposed.type is RUNNING:
        # With no delay before it, a try follows the one before it at once.
        is_own_retry = proposed.is_another_try and context.by_executor
        return Plan((ClearPauseKeys(),)) if is_own_retry else None
    if proposed.type is SCHEDULED:
        is_own_retry = proposed.is_retry and context.by_executor
        return Plan((SetRetryType(RetryType.IN_PROCESS), ClearPauseKeys())) if is_own_retry else None
    at = context.now + run.retry_delay
    is_over = run.retry_deadline is not None and at >= run.retry_deadline
    if context.by_executor or is_over or run.books.run_count > run.max_retries:
        return Plan((SetRetryType(RetryType.NONE),))
    awaiting = awaiting_retry(context, at)
    reason = f"Try {run.books.run_count} of {run.max_retries + 1} failed."
    return Replace(awaiting, reason, (SetRetryType(RetryType.IN_PROCESS), ClearPauseKeys()))


def hand_over(context: Context) -> Outcome:
    """18: a process that has to end leaves the run to the next attempt, or to another process of this one."""
    proposed = context.proposed
    if proposed.is_given_back and not context.run.is_dispatched:
        return Keep("The run has no deployment and no work pool: nobody would run it again.")
    if not proposed.is_given_back and not proposed.is_relinquished:
        return None
    retry_type = RetryType.RESCHEDULE if proposed.is_given_back else RetryType.IN_PROCESS
    # At once, by the clock that decides when.
    now = replace(proposed, scheduled_time=min(proposed.scheduled_time or context.now, context.now))
    # What it waits for in a pause it waits for again; pauses that have ended are over.
    return Amend(
        now, (SetRetryType(retry_type), DropPauseKey(_current(context).pause_key), SetResuming(False))
    )


def announce(context: Context) -> Outcome:
    """16: one event per accepted state."""
    return Plan((Announce(f"headrace.flow-run.{context.proposed.name}"),))


def release_slot(context: Context) -> Outcome:
    """17: a run that leaves its process leaves its slot; one that pauses in it keeps it."""
    if _keeps_slot(context):
        return None
    return Plan(tuple(ReleaseSlot(limit.name) for limit in context.limits if limit.holds))


def _keeps_slot(context: Context) -> bool:
    state = context.proposed
    if state.type in (PENDING, RUNNING, CANCELLING):
        return True
    if state.type is PAUSED:
        return not state.pause_reschedule
    is_own = state.is_retry or state.is_relinquished
    return is_own and SetRetryType(RetryType.IN_PROCESS) in context.planned


def awaiting_retry(context: Context, at: int) -> StateValue:
    """The failure of `context`, to be tried again at the instant `at`."""
    failure = context.proposed
    return StateValue(
        SCHEDULED,
        context.fresh_id,
        context.now,
        name="AwaitingRetry",
        message=failure.message,
        data=failure.data,
        scheduled_time=at,
        is_retry=True,
        is_deferred=context.run.is_background,
    )


def _current(context: Context) -> StateValue:
    assert context.current is not None  # the rule's sources leave None out
    return context.current


def _cancelled(context: Context, reason: str) -> StateValue:
    return StateValue(CANCELLED, context.fresh_id, context.now, message=reason)


def _carry_time(current: StateValue, proposed: StateValue) -> StateValue:
    if proposed.scheduled_time is not None:
        return proposed
    return replace(proposed, scheduled_time=current.scheduled_time)


def _types(*types: StateType | None) -> frozenset[StateType | None]:
    return frozenset(types)


def _to(types: Iterable[StateType]) -> frozenset[StateType]:
    return frozenset(types)


_FINAL: Final = _types(*FINAL)
_KEEP_RESULT: Final = Rule(3, "keep the result", _FINAL, _to([COMPLETED]), keep_result)
_DUPLICATE: Final = Rule(2, "duplicate", ANY, TYPES, duplicate)
_CANCEL_UNHELD: Final = Rule(
    5, "no process to tell", _types(*NON_FINAL - {CANCELLING}), _to([CANCELLING]), cancel_unheld
)
_LATENESS: Final = Rule(10, "lateness", ANY, _to([SCHEDULED]), mark_late)
_ANNOUNCE: Final = Rule(16, "announce", ANY, TYPES, announce, is_universal=True)
_RELEASE: Final = Rule(17, "release the slot", ANY, TYPES, release_slot, is_universal=True)

_SUBMITTED: Final = _types(PENDING, RUNNING, CANCELLING, CANCELLED)

FLOW_RULES: Final[Policy] = (
    _DUPLICATE,
    Rule(3, "leaving a final state", _FINAL, TYPES, leave_final),
    Rule(4, "cancelling ends in cancelled", _types(CANCELLING), TYPES - {CANCELLED}, end_cancelled),
    _CANCEL_UNHELD,
    Rule(6, "double submission", _SUBMITTED, _to([PENDING]), refuse_double_submission),
    Rule(7, "slot at start", _types(PENDING), _to([RUNNING]), check_slot_at_start),
    Rule(8, "take a slot", ANY - {PENDING, RUNNING, CANCELLING}, _to([PENDING]), take_slot),
    _LATENESS,
    Rule(11, "entering a pause", ANY, _to([PAUSED]), enter_pause),
    Rule(12, "leaving a pause", _types(PAUSED), TYPES - {PAUSED, CANCELLING, CRASHED}, leave_pause),
    Rule(13, "copy the time", _types(SCHEDULED), _to([PENDING]), copy_time),
    Rule(14, "not before its time", _types(SCHEDULED, PENDING), _to([RUNNING]), not_before_time),
    Rule(15, "retry", _types(RUNNING), _to([FAILED, SCHEDULED, RUNNING]), retry),
    Rule(18, "handing over", _types(*NON_FINAL - {CANCELLING}), _to([SCHEDULED]), hand_over),
    _ANNOUNCE,
    _RELEASE,
)
"""Every rule."""

# A repeated request is repeated under force as well.
MINIMAL_FLOW_RULES: Final[Policy] = (_DUPLICATE, _KEEP_RESULT, _CANCEL_UNHELD, _ANNOUNCE, _RELEASE)
"""What force cannot skip."""

LATE_MARKER_RULES: Final[Policy] = (_DUPLICATE, _LATENESS, _ANNOUNCE)
"""For marking a run late: it must not set off anything else."""
