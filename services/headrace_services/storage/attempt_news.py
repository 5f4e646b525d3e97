"""What workers say of their attempts, applied in bulk: one command for everything that was heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from headrace.core.ids import new_id
from headrace.v1.state_pb2 import STATE_TYPE_FAILED, CrashedDetails, State
from headrace_services.domain.attempt_rules import Fate, LossCause, Phase
from headrace_services.domain.states import PAUSED, SCHEDULED
from headrace_services.storage.command import Command
from headrace_services.storage.dispatch_rows import AttemptRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.losing import GIVEN_UP, Loss, end_run, enter, lose, was_given_up
from headrace_services.storage.ops import Wanted
from headrace_services.storage.rows import RunRow
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["ApplyNews", "News", "NewsKind", "NewsOutcome", "Standing"]


class NewsKind(Enum):
    """What was heard."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    NOT_HELD = "not held"
    HELD = "held"
    """A worker names it, and its stream's replica does not know of it."""
    RELEASED = "released"
    STARTED = "started"
    EXITED = "exited"
    TOO_LARGE = "too large"
    """The offer cannot travel."""


@dataclass(frozen=True, slots=True)
class News:
    """One thing that was heard, or not heard, of one attempt.

    Attributes:
        kind: what.
        session_id: of the worker's process.
        worker_id: the worker.
        run_id: the run.
        attempt: its number.
        fence: of the attempt.
        message: the worker's own words.
        infrastructure_id: of STARTED.
        exit_code: of EXITED.
        never_started: of EXITED: no user code ran.
        retry_seconds: of REFUSED.
        not_this_worker: of REFUSED.
    """

    kind: NewsKind
    session_id: str
    worker_id: str
    run_id: str
    attempt: int
    fence: int
    message: str = ""
    infrastructure_id: str = ""
    exit_code: int | None = None
    never_started: bool = False
    retry_seconds: float = 0.0
    not_this_worker: bool = False


class Standing(Enum):
    """How an attempt stands once the news of it is durable."""

    HELD = "held"
    """The worker answers for it."""
    OVER = "over"
    """It ended, and nothing is wrong: a process that is still about may leave in peace."""
    LOST = "lost"
    """It is not the worker's any more: it has to stop it."""


class NewsOutcome(NamedTuple):
    """What became of one piece of news.

    Attributes:
        news: the piece.
        standing: of the attempt now.
        reason: in words, for LOST.
    """

    news: News
    standing: Standing
    reason: str = ""


_GOOD = frozenset({NewsKind.ACCEPTED, NewsKind.HELD, NewsKind.STARTED})
"""The worker has the run: nothing but the attempt's own row changes."""
_LOSSES = {
    NewsKind.REFUSED: LossCause.REFUSED,
    NewsKind.UNANSWERED: LossCause.NO_REPLY,
    NewsKind.NOT_HELD: LossCause.NOT_HELD,
    NewsKind.RELEASED: LossCause.RELEASED,
    NewsKind.EXITED: LossCause.EXITED,
}
_NEVER_STARTED_WORDS = "The worker could not start the run."


class ApplyNews(Command[list[NewsOutcome]]):
    """Attempts were accepted, refused, given back, started, missed, or have ended."""

    def __init__(self, news: Sequence[News]) -> None:
        super().__init__()
        self._news = news
        self.weight = 2 * len(news)
        self.is_optimistic = all(item.kind in _GOOD for item in news)
        self.needs_lease_clock = any(item.kind is NewsKind.NOT_HELD for item in news)

    def wanted(self, wanted: Wanted) -> None:
        # Runs before their attempts, like whoever ends a run: nobody waits for each other in a ring.
        wanted.runs.update(item.run_id for item in self._news)

    def apply(self, work: Work) -> Steps[list[NewsOutcome]]:
        ids = sorted({item.run_id for item in self._news})
        lock = Lock.NONE if work.is_optimistic else Lock.CHANGE
        found = yield from work.rows.find(AttemptRow, [("run_id", "in", ids)], lock=lock)
        rows = {row.run_id: row for row in found}
        outcomes: list[NewsOutcome] = []
        for item in self._news:
            outcomes.append((yield from _apply(work, rows, item)))
        return outcomes


def _apply(work: Work, rows: dict[str, AttemptRow], item: News) -> Steps[NewsOutcome]:
    row = rows.get(item.run_id)
    if row is None or row.fence != item.fence:
        return _without_attempt(work, item)
    if row.session_id != item.session_id:
        if item.kind in (NewsKind.UNANSWERED, NewsKind.NOT_HELD):
            return NewsOutcome(item, Standing.OVER)  # somebody else answers for it by now
        row.session_id, row.worker_id = item.session_id, item.worker_id
        work.rows.put(row)
    if item.kind in _GOOD:
        if row.phase == Phase.OFFERED or item.kind is NewsKind.STARTED:
            row.phase = int(Phase.ACCEPTED)
            row.infrastructure_id = item.infrastructure_id or row.infrastructure_id
            work.rows.put(row)
        return NewsOutcome(item, Standing.HELD)
    if item.kind is NewsKind.NOT_HELD and (yield from recorder_lives(work, row)):
        row.session_id = None
        work.rows.put(row)
        return NewsOutcome(item, Standing.OVER)
    if item.kind is NewsKind.TOO_LARGE:
        run = work.runs[item.run_id]
        assert run is not None
        enter(work, run, State(id=new_id(), type=STATE_TYPE_FAILED, name="Failed", message=item.message))
        rows.pop(item.run_id, None)
        return NewsOutcome(item, Standing.OVER)
    fate = yield from lose(work, row, _loss(item))
    if fate is not Fate.NOTHING:
        rows.pop(item.run_id, None)
    return NewsOutcome(item, Standing.OVER)


def _without_attempt(work: Work, item: News) -> NewsOutcome:
    """The attempt is not alive: it ended, or the run has another by now."""
    run = work.runs.get(item.run_id)
    if run is None:
        return NewsOutcome(item, Standing.LOST, "The run was deleted.")
    if run.fence != item.fence:
        return NewsOutcome(item, Standing.LOST, f"The run is owned by its attempt {run.attempt}.")
    # A run that is suspended, or waits to go on, has no process left: that one has ended is as it should be.
    waits = run.recorder_id is None and run.books.type in (PAUSED, SCHEDULED)
    if item.kind is NewsKind.EXITED and not waits:
        loss = _loss(item)
        end_run(work, run, loss.message, loss.crash_cause, run.is_presumed, loss.exit_code)
    elif was_given_up(run):
        return NewsOutcome(item, Standing.LOST, GIVEN_UP)
    return NewsOutcome(item, Standing.OVER)


def recorder_lives(work: Work, row: AttemptRow) -> Steps[bool]:
    """Whether the run's own process holds the attempt as well, by a lease that is not over."""
    run: RunRow | None = work.runs.get(row.run_id)
    if run is None or run.recorder_id is None or run.state_id is None:
        return False
    pair = (run.id, run.state_id)
    yield from work.load_facts([pair])
    facts = work.facts.get(pair)
    lease = None if facts is None else facts[2]
    return lease is not None and lease > work.lease_now


def _loss(item: News) -> Loss:
    if item.kind is NewsKind.EXITED:
        words = item.message or (_NEVER_STARTED_WORDS if item.never_started else _exit_words(item.exit_code))
        return Loss(LossCause.EXITED, words, _crash_cause(item), item.exit_code, is_presumed=True)
    words = {
        NewsKind.REFUSED: f"The worker refused it: {item.message}"
        if item.message
        else "The worker refused it.",
        NewsKind.UNANSWERED: "The worker did not answer the offer in time.",
        NewsKind.NOT_HELD: "The worker does not know the run any more.",
        NewsKind.RELEASED: "The worker has given it back.",
    }[item.kind]
    return Loss(
        _LOSSES[item.kind],
        words,
        CrashedDetails.CAUSE_INFRASTRUCTURE,
        is_presumed=item.kind is NewsKind.NOT_HELD,
        retry_seconds=item.retry_seconds,
        not_this_worker=item.not_this_worker,
    )


def _exit_words(exit_code: int | None) -> str:
    if exit_code is None:
        return "The process of the run has ended without finishing it."
    return f"The process of the run has ended with exit code {exit_code} without finishing it."


def _crash_cause(item: News) -> CrashedDetails.Cause.ValueType:
    if item.never_started:
        return CrashedDetails.CAUSE_INFRASTRUCTURE
    if item.exit_code is not None and (item.exit_code < 0 or item.exit_code > 128):
        return CrashedDetails.CAUSE_SIGNAL
    return CrashedDetails.CAUSE_PROCESS_EXIT
