"""Infrastructure that outlived the worker that had started it: who sees it through, and what is over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from headrace_services.domain.attempt_rules import Phase
from headrace_services.storage.claiming import Claimed, versions_of
from headrace_services.storage.command import Command
from headrace_services.storage.dispatch_rows import AttemptRow, SessionRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.rows import RunRow
from headrace_services.storage.run_commands import shown
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["AdoptFound", "Found", "FoundAnswer"]

_PEACE_SECONDS: Final = 60
"""How long a process may be about when its run has ended: it may have something left to record."""


@dataclass(frozen=True, slots=True)
class Found:
    """Infrastructure that a worker has found and does not hold.

    Attributes:
        run_id: the run that it was made for.
        attempt: which attempt of it.
        fence: of the attempt.
        infrastructure_id: the worker's own name for it.
    """

    run_id: str
    attempt: int
    fence: int
    infrastructure_id: str


class FoundAnswer(NamedTuple):
    """What becomes of it.

    Attributes:
        found: what.
        claimed: the run as it is handed over, for the worker to see through; None: the attempt is over, and
            nothing is to be left of it.
    """

    found: Found
    claimed: Claimed | None


class AdoptFound(Command[list[FoundAnswer]]):
    """A worker has found infrastructure of its pool that it does not hold.

    No answer is given for what another worker answers for, for runs that are not of the pool or not known
    (another server may use the same engine), and for what has only just ended.
    """

    def __init__(self, session_id: str, worker_id: str, work_pool: str, found: Sequence[Found]) -> None:
        super().__init__()
        self._session_id = session_id
        self._worker_id = worker_id
        self._work_pool = work_pool
        self._found = found
        self.weight = max(1, len(found))

    def apply(self, work: Work) -> Steps[list[FoundAnswer]]:
        ids = sorted({item.run_id for item in self._found})
        yield from work.load_runs(ids)
        rows = {row.run_id: row for row in (yield from work.rows.find(AttemptRow, [("run_id", "in", ids)]))}
        if (yield from _living(work, [self._session_id])) != {self._session_id}:
            return []  # its stream is being ended
        others = yield from _living(work, {row.session_id for row in rows.values() if row.session_id})
        others.discard(self._session_id)
        answers: list[FoundAnswer] = []
        for item in self._found:
            run = work.runs.get(item.run_id)
            if run is None or run.work_pool != self._work_pool:
                continue
            row = rows.get(run.id)
            if row is not None and row.fence == item.fence == run.fence:
                if row.session_id not in others:
                    answers.append(FoundAnswer(item, (yield from self._adopt(work, run, row, item))))
            elif _is_over(work, run, item):
                answers.append(FoundAnswer(item, None))
        return answers

    def _adopt(self, work: Work, run: RunRow, row: AttemptRow, item: Found) -> Steps[Claimed]:
        row.session_id, row.worker_id = self._session_id, self._worker_id
        row.phase = int(Phase.ACCEPTED)
        row.infrastructure_id = item.infrastructure_id
        work.rows.put(row)
        versions = yield from versions_of(work, [run])
        message = yield from shown(work, run)
        return Claimed(
            session_id=self._session_id,
            assignment_id=row.assignment_id,
            run=message,
            deployment=versions.get(run.id),
            start_time=work.now,
            on_lost=row.on_lost,
            infrastructure_id=item.infrastructure_id,
        )


def _is_over(work: Work, run: RunRow, item: Found) -> bool:
    """Whether nothing of the attempt is wanted any more."""
    if run.fence != item.fence:
        return run.fence > item.fence
    return run.books.timestamp < work.now - _PEACE_SECONDS * 1_000_000


def _living(work: Work, ids: Iterable[str]) -> Steps[set[str]]:
    """Those of the sessions that are not over."""
    wanted = sorted(ids)
    if not wanted:
        return set()
    rows = yield from work.rows.find(SessionRow, [("id", "in", wanted)], lock=Lock.NONE)
    return {row.id for row in rows if row.expires_at is not None}
