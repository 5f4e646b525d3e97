"""What becomes of attempts: offered, held, given back, lost. Pure decisions over what was loaded before.

An attempt is one worker's hold on one run. It lives from the claim that offers it until the run ends, is
queued again, or is given up; its fence is what every write of its process must name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, NamedTuple

from headrace.core.states import StateType
from headrace_services.domain.states import CANCELLING, FINAL_TYPES, PENDING

__all__ = [
    "MAX_LOST",
    "MAX_REFUSALS",
    "Fate",
    "HeldSet",
    "LossCause",
    "LostPolicy",
    "Mirrored",
    "Outcome",
    "Phase",
    "lost_delay",
    "outcome",
    "reconcile",
]

MAX_LOST: Final = 3
"""How often a run is queued again after it was lost, unless it says otherwise."""
MAX_REFUSALS: Final = 5
"""How many workers may refuse a run before it is given up."""
_LONGEST_DELAY_SECONDS: Final = 60


class Phase(IntEnum):
    """How far an attempt has come."""

    OFFERED = 1
    """Claimed; the worker has not answered yet."""
    ACCEPTED = 2
    """The worker answers for it."""


class LostPolicy(IntEnum):
    """What is done with a run whose process is gone. The numbers are the wire's."""

    UNSPECIFIED = 0
    CRASH = 1
    RESCHEDULE = 2


class LossCause(Enum):
    """Why an attempt is over while its run is not."""

    NO_REPLY = "no reply"
    """The worker did not answer the offer in time."""
    REFUSED = "refused"
    RELEASED = "released"
    """The worker has given it back."""
    NOT_HELD = "not held"
    """The worker does not know it any more."""
    SILENT = "silent"
    """Whoever held it has been silent for longer than its lease."""
    EXITED = "exited"
    """Its process has ended."""


class Fate(Enum):
    """What is to be done with the run."""

    NOTHING = "nothing"
    REQUEUE = "requeue"
    CRASH = "crash"
    CANCEL = "cancel"


class Outcome(NamedTuple):
    """A decision about an attempt that is over.

    Attributes:
        fate: of the run.
        counts_lost: the next attempt has another number, and this one counts against the most there may be.
        delay_seconds: before the run is offered again.
    """

    fate: Fate
    counts_lost: bool = False
    delay_seconds: float = 0.0


def lost_delay(lost_before: int) -> float:
    """How long a run waits after it was lost once more, seconds: nothing at first, then twice as long."""
    return 0.0 if lost_before < 1 else float(min(2**lost_before, _LONGEST_DELAY_SECONDS))


def outcome(
    cause: LossCause,
    state: StateType | None,
    phase: Phase,
    policy: LostPolicy,
    *,
    lost_before: int,
    max_lost: int,
    refusals: int = 0,
    exit_code: int | None = None,
) -> Outcome:
    """What becomes of a run whose attempt is over.

    Args:
        cause: why it is over.
        state: the run's.
        phase: the attempt's.
        policy: the run's, for user code that may have begun.
        lost_before: how many attempts of the run were lost before this one.
        max_lost: how many may be; 0: `MAX_LOST`.
        refusals: how many workers have refused the run, this one included.
        exit_code: of its process, where it is known.
    """
    if state is None or state in FINAL_TYPES:
        return Outcome(Fate.NOTHING)
    if state is CANCELLING:
        return Outcome(Fate.CANCEL)
    if cause is LossCause.REFUSED:
        return Outcome(Fate.CRASH if refusals >= MAX_REFUSALS else Fate.REQUEUE)
    if phase is Phase.OFFERED and cause is not LossCause.EXITED:
        return Outcome(Fate.REQUEUE)
    if cause is LossCause.RELEASED and state is PENDING:
        return Outcome(Fate.REQUEUE, counts_lost=True)
    has_begun = state is not PENDING
    if policy is not LostPolicy.RESCHEDULE and (has_begun or cause is LossCause.EXITED):
        return Outcome(Fate.CRASH)
    if cause is LossCause.EXITED and exit_code == 0:
        return Outcome(Fate.CRASH)  # it ended by itself and said nothing: doing it again helps nobody
    if lost_before >= (max_lost or MAX_LOST):
        return Outcome(Fate.CRASH)
    return Outcome(Fate.REQUEUE, counts_lost=True, delay_seconds=lost_delay(lost_before))


@dataclass(slots=True)
class Mirrored:
    """An attempt as the server believes a worker holds it.

    Attributes:
        attempt: its number.
        fence: the run's.
        phase: how far it has come.
        since: when it was sent, or first believed, monotonic seconds.
        missing: in how many heartbeats in a row it was not named; of an offer, those count that came when it
            should have been answered.
    """

    attempt: int
    fence: int
    phase: Phase
    since: float
    missing: int = 0


class HeldSet(NamedTuple):
    """What a heartbeat's complete held set says that the server did not know.

    Attributes:
        accepted: offers that the worker turns out to hold; run ids.
        unknown: (run id, fence) that it holds and the server does not know of.
        unanswered: offers that it neither holds nor has answered in time; run ids.
        missing: what it held and holds no more, for the second time; run ids.
    """

    accepted: list[str]
    unknown: list[tuple[str, int]]
    unanswered: list[str]
    missing: list[str]


_MISSING_HEARTBEATS: Final = 2
"""Once may be a heartbeat that had been on its way, or the first one of a worker that was busy for long: what
came to it meanwhile is read, and answered, right after."""


def reconcile(
    mirror: Mapping[str, Mirrored],
    held: Iterable[tuple[str, int]],
    now: float,
    reply_timeout_seconds: float,
) -> HeldSet:
    """Compare what the server believes a worker holds with all that the worker says it holds.

    Only what a worker says takes an offer from it. One that says nothing loses its offers with all that it
    holds, at the end of its session's lease: it may have begun with them.

    Counts, in `mirror`, how often an attempt was missing.

    Args:
        mirror: by run id.
        held: (run id, fence), complete.
        now: monotonic seconds.
        reply_timeout_seconds: how long an offer may be unanswered until heartbeats without it count.
    """
    named = dict(held)
    found = HeldSet([], [], [], [])
    for run_id, fence in named.items():
        believed = mirror.get(run_id)
        if believed is None or believed.fence != fence:
            found.unknown.append((run_id, fence))
            continue
        believed.missing = 0
        if believed.phase is Phase.OFFERED:
            found.accepted.append(run_id)
    for run_id, believed in mirror.items():
        if named.get(run_id) == believed.fence:
            continue
        is_offer = believed.phase is Phase.OFFERED
        if is_offer and now - believed.since <= reply_timeout_seconds:
            continue
        believed.missing += 1
        if believed.missing >= _MISSING_HEARTBEATS:
            (found.unanswered if is_offer else found.missing).append(run_id)
    return found
