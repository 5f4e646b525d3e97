"""Cancelling runs from outside, and ending what is left of runs that were cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headrace.core.errors import ObjectNotFound, TransitionNotAllowed
from headrace.core.ids import new_id
from headrace.core.states import default_name
from headrace.v1.run_pb2 import RUN_KIND_FLOW
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLED, STATE_TYPE_CANCELLING, State
from headrace_services.domain.books import keep_books
from headrace_services.domain.states import CANCELLED, CANCELLING, FINAL_TYPES
from headrace_services.storage import steps
from headrace_services.storage.cancel_notes import DEFAULT_GRACE_SECONDS
from headrace_services.storage.command import Command
from headrace_services.storage.dispatch_rows import AttemptRow
from headrace_services.storage.instants import duration_micros, set_micros
from headrace_services.storage.ops import Wanted
from headrace_services.storage.proposals import is_held, propose
from headrace_services.storage.rows import RunRow
from headrace_services.storage.steps import Row, Steps
from headrace_services.storage.teardowns import order_teardown
from headrace_services.storage.work import TimerKind, Work

__all__ = ["CancelRun", "SettleCancellation"]

_PARENT: Final = "The run above it was cancelled."


class CancelRun(Command[ProposeStateResponse]):
    """A run is to end before its body does."""

    def __init__(self, run_id: str, state: State) -> None:
        super().__init__()
        self._run_id = run_id.lower()
        self._state = state

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._run_id)
        wanted.facts.append((self._run_id, self._state.id.lower()))

    def apply(self, work: Work) -> Steps[ProposeStateResponse]:
        run = work.runs.get(self._run_id)
        if run is None:
            raise ObjectNotFound.of("run", self._run_id)
        if run.kind != RUN_KIND_FLOW and run.owner_id != run.id:
            raise TransitionNotAllowed(
                "A task run ends with the run that has called it: cancel that one.",
                facts={"run_id": run.id, "owner_run_id": run.owner_id},
            )
        asked = State()
        asked.CopyFrom(self._state)
        set_micros(asked.event_time, work.now)
        if run.kind != RUN_KIND_FLOW and run.books.type not in FINAL_TYPES:
            facts = work.facts.get((run.id, asked.id.lower()))
            if not is_held(work, run, facts):  # for flow runs, the rules see to it
                asked.type = STATE_TYPE_CANCELLED
        return (yield from propose(work, run, asked))


class SettleCancellation(Command[bool]):
    """The server ends a run that was to end by now, and everything below a run that was cancelled.

    Nothing happens to a run that is in another state than the given one.
    """

    is_solo = True

    def __init__(self, run_id: str, state_id: str) -> None:
        super().__init__()
        self._run_id = run_id.lower()
        self._state_id = state_id.lower()

    def wanted(self, wanted: Wanted) -> None:
        wanted.runs.add(self._run_id)

    def apply(self, work: Work) -> Steps[bool]:
        run = work.runs.get(self._run_id)
        is_meant = run is not None and run.state_id == self._state_id
        work.writes.timers[TimerKind.CANCEL, self._run_id] = None
        if run is None or not is_meant or run.books.type not in (CANCELLING, CANCELLED):
            return False
        if run.books.type is CANCELLING:
            yield from self._end_itself(work, run)
        yield from _end_below(work, run)
        return True

    def _end_itself(self, work: Work, run: RunRow) -> Steps[None]:
        yield from work.load_facts([(run.id, self._state_id)])
        asked = work.current_state(run, work.facts.get((run.id, self._state_id)))
        seconds = DEFAULT_GRACE_SECONDS
        if asked is not None and asked.cancel.HasField("grace"):
            seconds = duration_micros(asked.cancel.grace) / 1_000_000
        why = f"{asked.message} " if asked is not None and asked.message else ""
        if run.owner_id == run.id:
            # Whatever its process says from now on is about a run that is not its own.
            for attempt in (yield from work.rows.find(AttemptRow, [("run_id", "=", run.id)])):
                yield from order_teardown(work, attempt)
            run.fence += 1
        _enter_cancelled(work, run, f"{why}Its process did not end it within {seconds:g} s.")


def _end_below(work: Work, run: RunRow) -> Steps[None]:
    """End what has not ended below a run, children first; what was started on its own is asked to end."""
    tree = yield from steps.load_tree([run.root_id])
    below: dict[str, list[Row]] = {}
    for row in tree:
        if row[1] is not None:
            below.setdefault(row[1], []).append(row)
    yield from work.load_runs([row[0] for row in tree if row[2] == RUN_KIND_FLOW or not _has_ended(row)])
    found: list[RunRow] = []
    _gather(work, below, run.id, found)
    for child in reversed(found):
        if child.owner_id != child.id:
            _enter_cancelled(work, child, _PARENT)
        else:
            asked = State(id=new_id(), type=STATE_TYPE_CANCELLING, message=_PARENT)
            set_micros(asked.event_time, work.now)
            yield from propose(work, child, asked)


def _gather(work: Work, below: dict[str, list[Row]], top: str, found: list[RunRow]) -> None:
    """The runs under `top` that have not ended, parents first; not those under one started on its own."""
    waiting = [top]
    for run_id in waiting:  # grows while it is walked
        for row in below.get(run_id, ()):
            child = work.runs.get(row[0])
            is_on_its_own = child is not None and child.owner_id == child.id
            is_told = is_on_its_own and child is not None and child.books.type is CANCELLING
            if child is not None and child.books.type not in FINAL_TYPES and not is_told:
                found.append(child)
            if not is_on_its_own:
                waiting.append(row[0])


def _has_ended(row: Sequence[object]) -> bool:
    return row[3] in [type.number for type in FINAL_TYPES]


def _enter_cancelled(work: Work, run: RunRow, message: str) -> None:
    books = keep_books(run.books, CANCELLED, work.now)
    state = State(id=new_id(), type=STATE_TYPE_CANCELLED, name=default_name(CANCELLED), message=message)
    set_micros(state.event_time, books.timestamp)
    set_micros(state.record_time, work.now)
    state.cancel.SetInParent()  # the word of the server, and not of a process
    run.is_presumed = False
    work.enter(run, state.id, state.name, books, state.SerializeToString())
    work.writes.timers[TimerKind.CANCEL, run.id] = None  # what is below it is seen to right now
