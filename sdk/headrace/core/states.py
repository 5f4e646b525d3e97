"""The words of the state machine: types, the names the system gives, what is final.

The legal transitions and the rules over them live with the server (`headrace_services.domain`); the
words are shared, and a test compares the numbers with `headrace.v1.StateType`.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import Final

__all__ = ["FINAL", "NAMES", "StateType", "default_name"]


class StateType(str, Enum):
    """What kind of state a run is in. Orchestration branches on this, never on a state's name."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"

    number: int
    """The value of `headrace.v1.StateType` on the wire."""

    @property
    def is_final(self) -> bool:
        """Whether a run in this state has ended."""
        return self in FINAL

    @classmethod
    def from_number(cls, number: int) -> StateType:
        """The type with that number on the wire.

        Raises:
            ValueError: no type has the number (0, or one from a newer peer).
        """
        try:
            return _BY_NUMBER[number]
        except KeyError:
            raise ValueError(f"{number} is not the number of a state type") from None


for _number, _type in enumerate(StateType, start=1):
    _type.number = _number
_BY_NUMBER: Final = MappingProxyType({t.number: t for t in StateType})

FINAL: Final = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED})
"""The types from which a run does not move by itself. PAUSED and CANCELLING are not among them."""

NAMES: Final = MappingProxyType(
    {
        StateType.SCHEDULED: (
            "Scheduled",
            "Late",
            "AwaitingRetry",
            "AwaitingConcurrencySlot",
            "Resuming",
            "Queued",
        ),
        StateType.PENDING: ("Pending", "NotReady", "Submitting", "InfrastructurePending"),
        StateType.RUNNING: ("Running", "Retrying", "Rerunning"),
        StateType.PAUSED: ("Paused", "Suspended"),
        StateType.CANCELLING: ("Cancelling",),
        StateType.COMPLETED: ("Completed", "Cached", "RolledBack"),
        StateType.FAILED: ("Failed", "TimedOut"),
        StateType.CANCELLED: ("Cancelled", "Skipped"),
        StateType.CRASHED: ("Crashed",),
    }
)
"""The names the system gives, per type; the first is the default. Users may give any other name."""


def default_name(type: StateType) -> str:
    """The name of a state whose author gave none, e.g. `Completed`."""
    return NAMES[type][0]
