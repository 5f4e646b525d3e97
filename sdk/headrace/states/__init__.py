"""States of runs, as values: what authors build, return and inspect.

    return Completed(message="nothing to do", data=0)

A state's *type* decides what happens; its *name* is a label, and any text will do.
"""

from headrace.core.states import StateType
from headrace.states.constructors import (
    AwaitingConcurrencySlot,
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    InfrastructurePending,
    Late,
    Paused,
    Pending,
    Retrying,
    Running,
    Scheduled,
    Submitting,
    Suspended,
)
from headrace.states.groups import StateGroup
from headrace.states.value import (
    State,
    StateDetails,
    aget_state_exception,
    araise_state_exception,
    get_state_exception,
    is_state,
    is_state_iterable,
    raise_state_exception,
)

__all__ = [
    "AwaitingConcurrencySlot",
    "AwaitingRetry",
    "Cancelled",
    "Cancelling",
    "Completed",
    "Crashed",
    "Failed",
    "InfrastructurePending",
    "Late",
    "Paused",
    "Pending",
    "Retrying",
    "Running",
    "Scheduled",
    "State",
    "StateDetails",
    "StateGroup",
    "StateType",
    "Submitting",
    "Suspended",
    "aget_state_exception",
    "araise_state_exception",
    "get_state_exception",
    "is_state",
    "is_state_iterable",
    "raise_state_exception",
]

# Recorded pickles name the public module, not the file in which the class happens to stand.
State.__module__ = StateDetails.__module__ = __name__
