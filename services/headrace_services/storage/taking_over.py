"""Flow runs that somebody executes anew by hand."""

from __future__ import annotations

from typing import Final

from headrace.core.errors import ObjectNotFound, RunActive, TransitionNotAllowed
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run
from headrace.v1.state_pb2 import STATE_TYPE_PENDING, State
from headrace_services.domain.books import keep_books
from headrace_services.domain.states import CANCELLING, COMPLETED, FINAL_TYPES, PAUSED, PENDING
from headrace_services.storage.command import Command
from headrace_services.storage.instants import set_micros
from headrace_services.storage.ops import Wanted
from headrace_services.storage.proposals import is_held
from headrace_services.storage.rows import RunRow
from headrace_services.storage.run_commands import shown
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Facts, Work

__all__ = ["TakeOverRun"]

_REFUSED: Final = {
    COMPLETED: "The run has completed: there is nothing left to run.",
    PAUSED: "The run is paused: resume it.",
    CANCELLING: "The run is being cancelled: wait for its end.",
}


class TakeOverRun(Command[Run]):
    """Whoever asks becomes the next attempt of a flow run."""

    def __init__(self, run_id: str, state_id: str, force: bool) -> None:
        super().__init__()
        self._run_id = run_id.lower()
        self._state_id = state_id.lower()
        self._force = force

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._run_id)
        wanted.facts.append((self._run_id, self._state_id))

    def apply(self, work: Work) -> Steps[Run]:
        run = work.runs.get(self._run_id)
        if run is None:
            raise ObjectNotFound.of("run", self._run_id)
        facts = work.facts.get((self._run_id, self._state_id))
        is_repeated = run.state_id == self._state_id or (facts is not None and facts[1] is not None)
        if not is_repeated:
            self._check(work, run, facts)
            self._take(work, run)
        return (yield from shown(work, run))

    def _check(self, work: Work, run: RunRow, facts: Facts | None) -> None:
        about = {"run_id": run.id, "state_name": run.state_name}
        if run.kind != RUN_KIND_FLOW or run.owner_id != run.id:
            text = "Only a flow run that was started on its own can be taken over."
            raise TransitionNotAllowed(text, facts=about)
        type = run.books.type
        if type is not None and type in _REFUSED:
            raise TransitionNotAllowed(_REFUSED[type], facts=about)
        if type in FINAL_TYPES or self._force:
            return
        if run.deployment_id is not None or is_held(work, run, facts):
            raise RunActive(
                f"The run is {run.state_name}, and a process may be executing it. Wait for its end, or take "
                "it over with force: whatever that process writes from then on is refused.",
                facts={"run_id": run.id},
            )

    def _take(self, work: Work, run: RunRow) -> None:
        run.attempt += 1
        run.fence += 1
        run.recorder_id = None
        run.is_presumed = False
        message = f"The run was taken over by attempt {run.attempt}."
        state = State(id=self._state_id, type=STATE_TYPE_PENDING, name="Pending", message=message)
        books = keep_books(run.books, PENDING, work.now)
        set_micros(state.event_time, books.timestamp)
        set_micros(state.record_time, work.now)
        work.enter(run, state.id, state.name, books, state.SerializeToString())
