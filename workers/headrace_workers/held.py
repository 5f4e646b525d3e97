"""The attempts a worker answers for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from headrace.v1.worker_pb2 import (
    ATTEMPT_PHASE_ACCEPTED,
    ATTEMPT_PHASE_ENDING,
    ATTEMPT_PHASE_EXECUTING,
    ATTEMPT_PHASE_SUBMITTING,
    AttemptPhase,
    HeldAttempt,
)
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.actions import Attempt

__all__ = ["Held", "HeldSet"]

_REMEMBERED: Final = 10_000


@dataclass(slots=True)
class Held:
    """One attempt, from its assignment until nobody wants to know of it any more.

    Attributes:
        attempt: which.
        assignment: what the server sent.
        begin_at: when its infrastructure is to be started, on the session's clock.
        phase: how far it is.
        cancel_seq: of the newest cancellation that was acted upon; 0: none.
        is_lost: the server says that it is not ours: nothing is reported of it.
        is_given_back: it is being ended so that another worker can have it.
        is_torn_down: the server waits for its end.
        stop_reason: why this worker ends it; empty: it does not.
    """

    attempt: Attempt
    assignment: Assignment
    begin_at: float
    phase: AttemptPhase.ValueType = ATTEMPT_PHASE_ACCEPTED
    cancel_seq: int = 0
    is_lost: bool = False
    is_given_back: bool = False
    is_torn_down: bool = False
    stop_reason: str = ""

    @property
    def waits(self) -> bool:
        """Whether its infrastructure has not been asked for yet."""
        return self.phase == ATTEMPT_PHASE_ACCEPTED

    @property
    def is_starting(self) -> bool:
        return self.phase == ATTEMPT_PHASE_SUBMITTING

    @property
    def takes_slot(self) -> bool:
        """Whether it has infrastructure, or is to have some."""
        return self.phase != ATTEMPT_PHASE_ENDING

    @property
    def has_infrastructure(self) -> bool:
        return self.phase in (ATTEMPT_PHASE_SUBMITTING, ATTEMPT_PHASE_EXECUTING)


class HeldSet:
    """Attempts by run and fence, and the memory of those that came before."""

    def __init__(self) -> None:
        self._held: dict[Attempt, Held] = {}
        self._newest: OrderedDict[str, int] = OrderedDict()

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    def get(self, attempt: Attempt) -> Held | None:
        return self._held.get(attempt)

    def add(self, held: Held) -> None:
        self._held[held.attempt] = held
        self._newest[held.attempt.run_id] = held.attempt.fence
        self._newest.move_to_end(held.attempt.run_id)
        while len(self._newest) > _REMEMBERED:
            self._newest.popitem(last=False)

    def remove(self, held: Held) -> None:
        self._held.pop(held.attempt, None)

    def is_new(self, attempt: Attempt) -> bool:
        """Whether neither the attempt nor a later one of the run has been here."""
        return attempt.fence > self._newest.get(attempt.run_id, 0)

    def others(self, held: Held) -> list[Held]:
        """Earlier attempts of the same run."""
        return [h for h in self._held.values() if h.attempt.run_id == held.attempt.run_id and h is not held]

    def taken_slots(self) -> int:
        return sum(held.takes_slot for held in self._held.values())

    def starting(self) -> int:
        return sum(held.is_starting for held in self._held.values())

    def messages(self) -> list[HeldAttempt]:
        """The complete set, for the server: what is lost is not ours."""
        return [
            HeldAttempt(attempt=held.attempt.to_message(), phase=held.phase)
            for held in self._held.values()
            if not held.is_lost
        ]
