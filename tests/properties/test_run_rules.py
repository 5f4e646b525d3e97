"""Whatever is proposed, in whatever order: what must hold of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.core.states import FINAL, StateType
from headrace.core.verdicts import Abort, Accept, Reject, Wait
from headrace_services.domain.attempts import fold_attempts
from headrace_services.domain.books import Books, keep_books
from headrace_services.domain.effects import ReleaseSlot, TakeSlot
from headrace_services.domain.facts import Context, FlowFacts, LimitFacts, RunFacts
from headrace_services.domain.flow_rules import FLOW_RULES, MINIMAL_FLOW_RULES
from headrace_services.domain.pipeline import Decision, decide
from headrace_services.domain.states import StateValue
from headrace_services.domain.task_rules import MINIMAL_TASK_RULES, TASK_RULES

SECOND = 1_000_000
TYPES = st.sampled_from(list(StateType))
INSTANTS = st.integers(0, 10**6)


@st.composite
def states(draw: st.DrawFn, id: str) -> StateValue:
    """A state somebody might propose."""
    type = draw(TYPES)
    return StateValue(
        type,
        id,
        draw(INSTANTS),
        name=draw(st.sampled_from(["", "", "Late", "Retrying", "Mine"])),
        data=draw(st.sampled_from([None, b"data"])),
        scheduled_time=draw(st.none() | INSTANTS) if type is StateType.SCHEDULED else None,
        is_retry=draw(st.booleans()) if type is StateType.SCHEDULED else False,
        is_resumption=draw(st.booleans()) if type is StateType.SCHEDULED else False,
        pause_timeout=draw(st.none() | INSTANTS),
        pause_reschedule=draw(st.booleans()),
        pause_key=draw(st.sampled_from(["", "a", "b"])),
        retriable=draw(st.sampled_from([None, True, False])),
        cache_key=draw(st.sampled_from(["", "key", "k" * 2001])),
    )


class RunMachine(RuleBasedStateMachine):
    """One run, one limit with one slot, and proposers who ask for anything."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.current: StateValue | None = None
        self.history: list[StateValue] = []
        self.holds = False
        self.entries = 0
        self.reset_at = 0
        self.ids = 0

    @initialize(
        kind=st.sampled_from(["flow", "task"]),
        retries=st.integers(0, 3),
        has_deployment=st.booleans(),
        has_parent=st.booleans(),
    )
    def begin(self, kind: Any, retries: int, has_deployment: bool, has_parent: bool) -> None:
        self.run = RunFacts(
            kind=kind,
            max_retries=retries,
            has_deployment=has_deployment,
            has_parent=has_parent,
            retry_delay=5,
        )

    @rule(seconds=st.integers(0, 10**5))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(
        data=st.data(),
        by_executor=st.booleans(),
        force=st.booleans(),
        repeat=st.booleans(),
        is_held=st.booleans(),
        taken=st.integers(0, 1),
        cancels_new=st.booleans(),
        flow_type=TYPES,
    )
    def propose(
        self,
        data: st.DataObject,
        by_executor: bool,
        force: bool,
        repeat: bool,
        is_held: bool,
        taken: int,
        cancels_new: bool,
        flow_type: StateType,
    ) -> None:
        self.ids += 1
        earlier = None
        if repeat and self.history:
            earlier = data.draw(st.sampled_from(self.history))
            proposed = replace(earlier, timestamp=self.now)
        else:
            proposed = data.draw(states(f"proposed-{self.ids}"))
        limit = LimitFacts(
            "limit", 1, taken=0 if self.holds else taken, holds=self.holds, cancels_new=cancels_new
        )
        context = Context(
            replace(self.run, is_held=is_held),
            self.current,
            proposed,
            self.now,
            f"fresh-{self.ids}",
            by_executor=by_executor,
            earlier=earlier,
            limits=(limit,),
            flow=FlowFacts(StateValue(flow_type, "flow", 0)) if self.run.kind == "task" else None,
        )
        flow, task = (MINIMAL_FLOW_RULES, MINIMAL_TASK_RULES) if force else (FLOW_RULES, TASK_RULES)
        decision = decide(flow if self.run.kind == "flow" else task, context)
        self._check(decision, context, earlier, force)
        self._write(decision)

    def _check(self, decision: Decision, context: Context, earlier: StateValue | None, force: bool) -> None:
        assert decision.error is None, decision.error
        assert decide(FLOW_RULES, context) == decide(FLOW_RULES, context)
        state = decision.state
        if earlier is not None:
            assert decision.verdict == Accept(earlier)
        match decision.verdict:
            case Wait() | Abort():
                assert state is None
            case Accept(answer) | Reject(answer):
                assert answer == (state or (earlier if earlier is not None else self.current))
        if state is None:
            assert decision.effects == ()
            assert decision.run.books == self.run.books
            return
        current = self.current
        if isinstance(decision.verdict, Accept) and self.run.kind == "flow" and not force:
            assert state.type is context.proposed.type
        if current is not None and current.has_result and not force:
            assert state.type in FINAL, "a kept result is not left"
        if current is not None and current.has_result and state.type is StateType.COMPLETED:
            assert state.has_result, "a kept result is not lost"
        if (
            current is not None
            and current.type is StateType.CANCELLING
            and self.run.kind == "flow"
            and not force
        ):
            assert state.type is StateType.CANCELLED

    def _write(self, decision: Decision) -> None:
        if decision.state is None:
            return
        for effect in decision.effects:
            match effect:
                case TakeSlot():
                    assert not self.holds, "taken twice"
                    self.holds = True
                case ReleaseSlot():
                    assert self.holds, "given back twice"
                    self.holds = False
                case _:
                    pass
        self.run = replace(decision.run, is_held=False)
        self.current = decision.state
        self.history.append(decision.state)

    @invariant()
    def the_books_add_up(self) -> None:
        if self.current is None:
            return
        books = self.run.books
        assert books.type is self.current.type
        assert books.timestamp == self.current.timestamp
        assert (books.end_time is not None) is self.current.is_final
        assert (books.next_scheduled_start_time is not None) is (self.current.type is StateType.SCHEDULED)
        assert books.total_run_time >= 0
        assert books.expected_start_time is not None
        entered = [state for state in self.history if state.type is StateType.RUNNING]
        assert 0 <= books.run_count <= len(entered)
        if entered:
            assert books.start_time is not None
        if self.run.kind == "flow":
            assert (books.run_count == 0) is (not entered)

    @invariant()
    def no_state_is_entered_twice(self) -> None:
        ids = [state.id for state in self.history]
        assert len(ids) == len(set(ids))
        assert all(a.timestamp != b.timestamp for a, b in zip(self.history, self.history[1:], strict=False))

    @invariant()
    def a_run_that_has_ended_holds_no_slot(self) -> None:
        if self.current is not None and self.current.is_final:
            assert not self.holds


RunMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestRunMachine = RunMachine.TestCase


@settings(deadline=None)
@given(st.lists(st.tuples(TYPES, INSTANTS), max_size=30))
def test_books_of_any_history(steps: list[tuple[StateType, int]]) -> None:
    books = Books()
    start: int | None = None
    for type, at in steps:
        before = books
        books = keep_books(books, type, at)
        assert books.total_run_time >= before.total_run_time
        assert books.run_count - before.run_count == (type is StateType.RUNNING and before.type is not type)
        assert books.timestamp in (at, at + 1)
        assert books.timestamp != before.timestamp or before.type is None
        assert start is None or books.start_time == start
        start = books.start_time
        if type in FINAL and before.type in FINAL:
            assert books.end_time == before.end_time


@settings(deadline=None)
@given(st.lists(TYPES, max_size=30))
def test_tries_are_counted_like_runs(types: list[StateType]) -> None:
    """Without pauses, the tries in a history are as many as the books count."""
    plain = [type for type in types if type not in (StateType.PAUSED, StateType.CANCELLING)]
    books = Books()
    for place, type in enumerate(plain):
        books = keep_books(books, type, 10 * place)
    tries = fold_attempts([(type, "", 10 * place) for place, type in enumerate(plain)])
    assert len(tries) == books.run_count
    assert [span.number for span in tries] == list(range(1, len(tries) + 1))
    done = sum(span.end_time - span.start_time for span in tries if span.end_time is not None)
    open_since = tries[-1].start_time if tries and tries[-1].end_time is None else None
    assert done + (0 if open_since is None else books.timestamp - open_since) == books.total_run_time
