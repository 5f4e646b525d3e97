"""From what a body did to the final state of its run: one table, for flows and tasks.

| the body                                        | final state                                  |
| ----------------------------------------------- | -------------------------------------------- |
| returns data, None, an exception object         | COMPLETED with that data                     |
| returns a state made by hand                    | that state; FAILED if a run cannot end in it |
| returns a state of a run                        | an aggregate of one                          |
| returns a list, tuple or set of states only     | an aggregate                                 |
| raises an `Exception`                           | FAILED                                       |
| raises a `TimeoutError`                         | FAILED, named TimedOut                       |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace.core.states import StateType
from headrace.exceptions import FlowRunTimeoutError, LostInFlight, TaskRunTimeoutError
from headrace.states import State, StateGroup, is_state, is_state_iterable
from headrace.states.value import NO_DATA

__all__ = ["LOST", "Ending", "ending_of_error", "ending_of_value", "lost_ending"]

LOST: Final = "LostInFlight"
"""Name of the FAILED state of a task run that is not run again, because nobody knows what it has done."""
_ENDS_NO_RUN: Final = frozenset(
    {StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED, StateType.CANCELLING}
)


@dataclass(slots=True)
class Ending:
    """How an attempt ended, before anything is recorded.

    Attributes:
        type: type of the final state.
        name: its name.
        message: its message.
        data: its data.
        value: what the body returned.
        error: what the body raised.
        by_hand: the state made by hand that the body returned.
        is_collection: the body returned a collection of states.
        is_cut: the body was ended by the deadline over all attempts: no other follows.
    """

    type: StateType
    name: str
    message: str | None = None
    data: Any = NO_DATA
    value: Any = None
    error: BaseException | None = None
    by_hand: State[Any] | None = None
    is_collection: bool = False
    is_cut: bool = False


def ending_of_value(value: Any) -> Ending:
    """How a run ends whose body returned `value`; futures in it have been replaced where that is due."""
    if is_state(value):
        return _of_state(value)
    if is_state_iterable(value):
        type, message = _aggregate(value)
        return Ending(type, type.value.title(), message, value, value, is_collection=True)
    return Ending(StateType.COMPLETED, "Completed", None, value, value)


def _of_state(state: State[Any]) -> Ending:
    details = state.state_details
    if details.flow_run_id or details.task_run_id:
        type, message = _aggregate([state])
        return Ending(type, type.value.title(), message, state, state)
    if state.type in _ENDS_NO_RUN:
        message = f"Returned state {state} is not final: a run cannot end in it."
        return Ending(StateType.FAILED, "Failed", message, value=state)
    data = state.data if state.has_data else (None if state.is_completed() else NO_DATA)
    return Ending(state.type, state.name, state.message, data, state, by_hand=state)


def _aggregate(states: Sequence[State[Any]] | Iterable[State[Any]]) -> tuple[StateType, str]:
    group = StateGroup(states)
    total = group.total_count
    if group.all_completed():
        return StateType.COMPLETED, "All states completed."
    if group.any_cancelled():
        return StateType.CANCELLED, f"{group.type_counts[StateType.CANCELLED]}/{total} states cancelled."
    if group.any_paused():
        return StateType.PAUSED, f"{group.type_counts[StateType.PAUSED]}/{total} states paused."
    if group.any_failed():
        return StateType.FAILED, f"{group.fail_count}/{total} states failed."
    return StateType.FAILED, f"{group.not_final_count}/{total} states are not final."


def ending_of_error(error: Exception, kind: str, own_limit: TimeoutError | None) -> Ending:
    """How a run ends whose body raised `error`.

    Args:
        error: what was raised.
        kind: "Flow" or "Task".
        own_limit: what the run's own time limit raises.
    """
    if isinstance(error, TimeoutError):
        message = str(error) if error is own_limit else f"{kind} run failed due to timeout: {error!r}"
        return Ending(StateType.FAILED, "TimedOut", message, error, error=error)
    message = f"{kind} run encountered an exception: {describe(error)}"
    return Ending(StateType.FAILED, "Failed", message, error, error=error)


def lost_ending(name: str) -> Ending:
    """How a task run ends that is not run again, because nobody knows what its body has done."""
    error = LostInFlight(
        f"The body of task '{name}' was running when its process was lost: what it has done is not known."
        " It is not idempotent, and not run again."
    )
    return Ending(StateType.FAILED, LOST, str(error), error, error=error)


def describe(error: BaseException) -> str:
    """`Type: text`; just the type where there is no text, or none that can be had."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # a user's __str__ must not take the place of the error itself
        text = "<no text: its __str__ raises>"
    return f"{name}: {text}" if text else name


def deadline_error(kind: str, seconds: float) -> TimeoutError:
    """What ends an attempt that still runs when the deadline over all attempts passes."""
    cls = FlowRunTimeoutError if kind == "Flow" else TaskRunTimeoutError
    return cls(f"{kind} run exceeded its retry deadline of {seconds:g} second(s) over all attempts")


def limit_error(kind: str, seconds: float) -> TimeoutError:
    """What the time limit of a run raises."""
    cls = FlowRunTimeoutError if kind == "Flow" else TaskRunTimeoutError
    return cls(f"{kind} run exceeded timeout of {seconds:g} second(s)")
