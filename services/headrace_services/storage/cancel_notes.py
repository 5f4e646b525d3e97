"""What a cancelling state brings with it: the instant at which the server ends the run itself."""

from __future__ import annotations

from typing import Final

from headrace.v1.state_pb2 import State
from headrace_services.storage.instants import duration_micros
from headrace_services.storage.rows import RunRow
from headrace_services.storage.work import TimerKind, Work

__all__ = ["DEFAULT_GRACE_SECONDS", "note_cancelling"]

DEFAULT_GRACE_SECONDS: Final = 30.0
"""How long a process may take to end a run that is being cancelled, when nobody says."""
_ALLOWANCE: Final = 2_000_000
"""For the report of a process that has used all of its time, microseconds."""


def note_cancelling(work: Work, run: RunRow, state: State) -> None:
    """Set the timer of a run that has just entered `state`, which is CANCELLING.

    The state in the run's row is itself the request: whoever executes the run is told for as long as it is
    there, over the record stream or by whatever else has handed the run out.
    """
    grace = int(DEFAULT_GRACE_SECONDS * 1_000_000)
    if state.cancel.HasField("grace"):
        grace = duration_micros(state.cancel.grace)
    work.writes.timers[TimerKind.CANCEL, run.id] = (state.id.lower(), work.now + grace + _ALLOWANCE)
