"""Steps: the runs that a body has called, recognised when the body is run again.

A step is known by its caller, its code, a fingerprint of its inputs, and how many calls with the same inputs
came before it. The order in which different steps begin does not count, so branches that run side by side may
overtake each other. Nothing is said about what the body does between its steps: a step that is new or changed
runs, one that is gone is not asked for.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headrace.core.errors import HashError
from headrace.core.ids import new_id
from headrace.engine.endings import LOST

if TYPE_CHECKING:
    from headrace.context import FlowRunContext, TaskRunContext
    from headrace.engine.flows import FlowCall
    from headrace.engine.tasks import TaskCall
    from headrace.runs import FlowRun, TaskRun
    from headrace.states import State

__all__ = [
    "KnownStep",
    "Step",
    "StepBook",
    "StepRecords",
    "commit",
    "enlist",
    "forget",
    "note",
    "renew",
    "settle",
]

_log = logging.getLogger("headrace.flow_runs")


@dataclass(slots=True)
class KnownStep:
    """A step as an earlier pass through its caller's body has left it.

    Attributes:
        run_id: the run that it was.
        name: the run's name.
        caller: the run in whose body it was called.
        code_key: the task key, or the name of the flow.
        is_completed: whether its result may be used; else it is run again, as the same run.
        run_count: entries into RUNNING.
        start_micros: first entry into RUNNING; 0 before it.
        end_micros: entry into its final state; 0 before it.
        state: its newest state, serialised.
        is_elsewhere: its data must be fetched: from the server, or from storage.
        is_committed: whether the transaction that it waited in was committed.
        is_lost: its body was entered, and nobody knows what came of it.
    """

    run_id: str
    name: str
    caller: str
    code_key: str
    is_completed: bool
    run_count: int
    start_micros: int
    end_micros: int
    state: bytes
    is_elsewhere: bool = False
    is_committed: bool = False
    is_lost: bool = False


class StepRecords(Protocol):
    """Where steps come from, and how their states are kept."""

    def load(self) -> Iterable[tuple[str, KnownStep]]:
        """The step keys and steps that earlier attempts have left on record, oldest first. It blocks.

        One that still waited for its inputs has no key.
        """
        ...

    def kept(self, run: FlowRun | TaskRun, state: State[Any]) -> tuple[bytes, bool]:
        """A state, serialised, and whether its data is elsewhere."""
        ...

    def read(self, known: KnownStep) -> State[Any]:
        """The state of a completed step, with its value for data; it may block when that is elsewhere.

        Raises:
            MissingResult: the value was not recorded, or is gone.
            SerializationError: it cannot be read here.
            Exception: what a serializer or storage of the author raises.
        """
        ...


@dataclass(slots=True)
class Step:
    """The place of one call among the steps of its caller.

    Attributes:
        book: knows the other passes.
        code_key: the task key, or the name of the flow.
        known: what an earlier pass has left of it; None: it is new.
        is_settled: whether it is known which step it is; it is not before its inputs are.
        is_deferred: the run is not recorded before, because it may be one that is on record.
    """

    book: StepBook
    code_key: str
    known: KnownStep | None = None
    is_settled: bool = False
    is_deferred: bool = False

    @property
    def has_committed(self) -> bool:
        """Whether the transaction that it waited in was committed in an earlier pass."""
        return self.known is not None and self.known.is_committed

    @property
    def is_lost(self) -> bool:
        """Whether its body was entered in an earlier pass, and nobody knows what came of it."""
        return self.known is not None and self.known.is_lost

    @property
    def is_completed(self) -> bool:
        """Whether an earlier pass has completed it."""
        return self.known is not None and self.known.is_completed


class StepBook:
    """The steps below one run that was started on its own, in this pass and in earlier ones. Thread-safe.

    Args:
        records: where they come from.
        only_completed: a step that did not complete is a new run when it is called again.

    Attributes:
        takes_notes: whether there may be another pass in this process.
    """

    def __init__(self, records: StepRecords, *, only_completed: bool = False) -> None:
        self.takes_notes = False
        self._records = records
        self._only_completed = only_completed
        self._has_past = False
        self._lock = threading.Lock()
        self._known: dict[bytes, KnownStep] = {}
        self._unstarted: dict[tuple[str, str], deque[KnownStep]] = {}
        self._counts: dict[str, dict[tuple[str, str], int]] = {}
        self._recallable: Counter[tuple[str, str]] = Counter()
        self._unsettled: set[str] = set()
        self._ids: dict[str, str] = {}
        self._complained: set[str] = set()

    # Passes

    def expect_past(self) -> None:
        """Earlier attempts may have left steps on record, which `load` is to read."""
        self._has_past = True

    def load(self) -> None:
        """Read what earlier attempts have left on record, once, if that is expected; it blocks.

        Raises:
            ServiceError: the server cannot be asked.
        """
        if not self._has_past:
            return
        self._has_past = False
        for key, step in self._records.load():
            if not key:
                if not step.is_completed:
                    self._unstarted.setdefault((step.caller, step.code_key), deque()).append(step)
                continue
            place = _place(step.caller, step.code_key, key)
            other = self._known.get(place)
            if other is None or step.is_completed or not other.is_completed:
                self._known[place] = step
        completed = sum(step.is_completed for step in self._known.values())
        _log.info("The run is taken up again: %d steps have completed, and do not run again.", completed)

    def begin_pass(self, run_id: str) -> None:
        """The body of a flow run begins, or begins again."""
        with self._lock:
            self._counts.pop(run_id, None)
            self._recallable = Counter((step.caller, step.code_key) for step in self._known.values())
            self._recallable.update({place: len(steps) for place, steps in self._unstarted.items()})

    # Recognising

    def key(self, caller: str, code_key: str, inputs: Mapping[str, Any]) -> str:
        """The step key of the next call with these inputs; empty where they have no fingerprint."""
        # Loaded by the first step of a durable flow: others have no use for it.
        from headrace.core.fingerprint import fingerprint

        try:
            found = fingerprint(dict(inputs), name="inputs")
        except HashError as error:
            self._complain(code_key, error)
            return ""
        with self._lock:
            counts = self._counts.setdefault(caller, {})
            number = counts.get((code_key, found), 0) + 1
            counts[code_key, found] = number
        return f"{found}:{number}"

    def _complain(self, code_key: str, error: HashError) -> None:
        if code_key not in self._complained:
            self._complained.add(code_key)
            _log.warning(
                "Calls of %s cannot be recognised when the flow is run again, and then run again, too: %s. "
                "Give the object a __headrace_key__.",
                code_key,
                error,
            )

    def take(self, caller: str, code_key: str, key: str) -> KnownStep | None:
        """The step with that key, as an earlier pass has left it.

        A new one may go on as a run that never got as far as to know its inputs.
        """
        if not key or not (self._known or self._unstarted):
            return None
        place = _place(caller, code_key, key)
        with self._lock:
            known = self._known.get(place) if self.takes_notes else self._known.pop(place, None)
            if known is None and self._unstarted.get((caller, code_key)):
                known = self._unstarted[caller, code_key].popleft()
            if known is not None:
                self._recallable[caller, code_key] -= 1
                if not known.is_completed:
                    self._counts.pop(known.run_id, None)  # its own body begins anew
            return known

    def may_recall(self, caller: str, code_key: str) -> bool:
        """Whether there are steps of that code that nobody has asked for in this pass."""
        return self._recallable[caller, code_key] > 0

    def read(self, known: KnownStep) -> State[Any]:
        """See `StepRecords.read`."""
        return self._records.read(known)

    # Noting

    def note(self, run: FlowRun | TaskRun, code_key: str, state: State[Any]) -> None:
        """A step has ended; the next pass in this process may ask for it."""
        caller = run.parent_run_id
        if not self.takes_notes or caller is None or not run.step_key:
            return
        if self._only_completed and not is_usable(state.type.value, state.name):
            return
        body, is_elsewhere = self._records.kept(run, state)
        step = KnownStep(
            run_id=run.id,
            name=run.name,
            caller=caller,
            code_key=code_key,
            is_completed=is_usable(state.type.value, state.name),
            run_count=run.run_count,
            start_micros=run.start_micros,
            end_micros=run.end_micros,
            state=body,
            is_elsewhere=is_elsewhere,
            is_committed=run.step_committed,
            is_lost=is_lost(state.type.value, state.name, run.run_count),
        )
        with self._lock:
            self._known[_place(caller, code_key, run.step_key)] = step

    def forget(self, run: FlowRun | TaskRun, code_key: str) -> None:
        """A step was undone: it counts for nothing."""
        if run.parent_run_id is not None:
            with self._lock:
                self._known.pop(_place(run.parent_run_id, code_key, run.step_key), None)

    def commit(self, run: FlowRun | TaskRun, code_key: str) -> None:
        """The transaction was committed that a step has waited in."""
        if run.parent_run_id is not None:
            known = self._known.get(_place(run.parent_run_id, code_key, run.step_key))
            if known is not None:
                known.is_committed = True

    # Runs that are not recorded before it is known which they are.

    def defer(self, run_id: str) -> None:
        """The run with this preliminary id is not recorded yet."""
        with self._lock:
            self._unsettled.add(run_id)

    def is_deferred(self, run_id: str) -> bool:
        """Whether that is so still."""
        return run_id in self._unsettled

    def settled(self, preliminary_id: str, run_id: str) -> None:
        """The run has got its id."""
        with self._lock:
            self._unsettled.discard(preliminary_id)
            if preliminary_id != run_id:
                self._ids[preliminary_id] = run_id

    def edges(self, edges: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Input edges with the ids that the runs have got meanwhile."""
        return {name: [self._ids.get(id, id) for id in ids] for name, ids in edges.items()}


def is_usable(type: str, name: str) -> bool:
    """Whether the result of a step in such a state may be used; one that was undone has none."""
    return type == "COMPLETED" and name != "RolledBack"


def is_lost(type: str, name: str, run_count: int) -> bool:
    """Whether nobody knows what came of the body of a step that was left in such a state."""
    return name == LOST or (run_count > 0 and type in {"RUNNING", "CRASHED", "CANCELLING", "CANCELLED"})


def _place(caller: str, code_key: str, key: str) -> bytes:
    return hashlib.blake2b(f"{caller}\0{code_key}\0{key}".encode("utf-8", "replace"), digest_size=16).digest()


def enlist(call: TaskCall | FlowCall, book: StepBook, code_key: str) -> None:
    """Give a call its place among the steps of its caller, as far as it is known before its inputs are."""
    step = call.step = Step(book, code_key)
    call.context.book = book
    if call.is_ready:
        settle(call)
        return
    run = call.context.run
    assert run.parent_run_id is not None
    step.is_deferred = book.may_recall(run.parent_run_id, code_key) or any(
        book.is_deferred(upstream.task_run_id) for upstream in call.inputs.waits_for
    )
    if step.is_deferred:
        book.defer(run.id)


def settle(call: TaskCall | FlowCall) -> None:
    """The inputs are known: see which step it is. One that is on record goes on under its own id."""
    step, context = call.step, call.context
    assert step is not None and context.parent is not None
    book, run = step.book, context.run
    preliminary_id, caller = run.id, context.parent.run.id
    run.step_key = book.key(caller, step.code_key, context.parameters)
    is_recorded = not step.is_deferred and run.state is not None
    step.known = None if is_recorded else book.take(caller, step.code_key, run.step_key)
    step.is_settled = True
    if step.known is not None:
        _adopt(context, step.known)
    if step.is_deferred:
        step.is_deferred = False
        book.settled(preliminary_id, run.id)
        run.inputs = book.edges({name: list(ids) for name, ids in run.inputs.items()})


def _adopt(context: FlowRunContext | TaskRunContext, known: KnownStep) -> None:
    """Go on as the run that the step was."""
    run: Any = context.run
    if getattr(run, "root_flow_run_id", None) == run.id:
        run.root_flow_run_id = known.run_id
    run.id, run.name = known.run_id, known.name or run.name
    run.run_count, run.start_micros = known.run_count, known.start_micros
    context.take_id(run.id)


def renew(call: TaskCall | FlowCall) -> None:
    """Be a new run after all: the one on record has completed, and stays as it is."""
    run: Any = call.context.run
    assert call.step is not None
    if getattr(run, "root_flow_run_id", None) == run.id:
        run.root_flow_run_id = ""
    run.id = new_id()
    if getattr(run, "root_flow_run_id", None) == "":
        run.root_flow_run_id = run.id
    run.run_count = run.start_micros = run.end_micros = 0
    run.state = None
    call.context.take_id(run.id)
    call.step.known = None


def note(context: FlowRunContext | TaskRunContext, state: State[Any]) -> None:
    """A run has ended: if it is a step, the next pass may ask for it."""
    if context.book is not None:
        context.book.note(context.run, context.code_key, state)


def commit(context: FlowRunContext | TaskRunContext) -> None:
    """The transaction was committed that a run has waited in."""
    if context.book is not None:
        context.book.commit(context.run, context.code_key)


def forget(context: FlowRunContext | TaskRunContext) -> None:
    """A run was undone."""
    if context.book is not None:
        context.book.forget(context.run, context.code_key)
