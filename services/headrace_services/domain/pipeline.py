"""How rules make a decision.

The rules that concern a proposal are chosen once, by its pair of types, and run in order. A rule that
annuls the proposal, or replaces it by a state of another type, ends the run of the ordinary rules:
those of the new pair are not started, because a rejection must not set off a second decision, and the
effects that earlier rules planned are dropped. The universal rules then see the state that will hold,
and the books are kept for it. Nothing is ever written and then taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from headrace.core.states import StateType
from headrace.core.verdicts import Abort, Accept, Reject, Verdict, Wait
from headrace_services.domain.books import keep_books
from headrace_services.domain.effects import (
    AddPauseKey,
    ClearPauseKeys,
    DropPauseKey,
    Effect,
    NoteFlowRunCount,
    ResetRunCount,
    SetResuming,
    SetRetryType,
)
from headrace_services.domain.facts import Context, RunFacts
from headrace_services.domain.states import StateValue, scheduled_after

__all__ = ["Amend", "Decision", "Keep", "Outcome", "Plan", "Policy", "Repeat", "Replace", "Rule", "decide"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Nothing against it; write `effects` with the state."""

    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Amend:
    """The proposal stands, as `state`, which has its type."""

    state: StateValue
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Replace:
    """`state` holds instead. The proposer is told."""

    state: StateValue
    reason: str
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Keep:
    """The current state holds; nothing is written."""

    reason: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """`state` was accepted before: say so again, and write nothing."""

    state: StateValue


Outcome: TypeAlias = Plan | Amend | Replace | Keep | Repeat | Wait | Abort | None
"""What a rule says; None: it has nothing to say."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the ordered list.

    Attributes:
        number: its place in the specification.
        name: as it is told to whoever it stops.
        sources: current types it concerns; None among them is "no state yet".
        targets: proposed types it concerns.
        check: the rule.
        is_universal: it looks at the state that will hold, whatever became of the proposal.
    """

    number: int
    name: str
    sources: frozenset[StateType | None]
    targets: frozenset[StateType]
    check: Callable[[Context], Outcome]
    is_universal: bool = False

    def concerns(self, context: Context) -> bool:
        """Whether the rule is for this pair of types."""
        current = None if context.current is None else context.current.type
        return current in self.sources and context.proposed.type in self.targets


Policy: TypeAlias = tuple[Rule, ...]
"""Rules in their order."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be said and written.

    Attributes:
        verdict: what the proposer is told.
        state: the state to write; None: nothing is written at all.
        run: the run's facts afterwards, books kept.
        effects: what to write besides, and is not in `run`.
        broken_rule: the rule that raised.
        error: what it raised.
    """

    verdict: Verdict[StateValue]
    state: StateValue | None
    run: RunFacts
    effects: tuple[Effect, ...] = ()
    broken_rule: Rule | None = None
    error: Exception | None = None


@dataclass(slots=True)
class _Course:
    """Where a decision stands while the rules run."""

    context: Context
    reason: str | None = None
    stopped: Keep | Repeat | Wait | Abort | None = None
    is_over: bool = False

    def follow(self, outcome: Outcome) -> None:
        match outcome:
            case None:
                pass
            case Plan(effects):
                self._plan(effects)
            case Amend(state, effects):
                self.context = replace(self.context, proposed=state)
                self._plan(effects)
            case Replace(state, reason, effects):
                self.reason = reason
                if state.type is not self.context.proposed.type:
                    self.is_over = True
                    self.context = replace(self.context, planned=())
                self.context = replace(self.context, proposed=state)
                self._plan(effects)
            case _:
                self.stopped = outcome
                self.is_over = True

    def _plan(self, effects: tuple[Effect, ...]) -> None:
        if effects:
            self.context = replace(self.context, planned=(*self.context.planned, *effects))


def decide(policy: Policy, context: Context) -> Decision:
    """Run `policy` over a proposal."""
    proposed = scheduled_after(context.proposed, context.now)
    start = context if proposed is context.proposed else replace(context, proposed=proposed)
    course = _Course(start)
    broken = _run(course, (rule for rule in policy if not rule.is_universal and rule.concerns(start)))
    if broken is None and course.stopped is None:
        broken = _run(
            course, (rule for rule in policy if rule.is_universal and rule.concerns(course.context))
        )
    if broken is not None:
        rule, error = broken
        verdict = Abort(f"The rule '{rule.name}' met an error of its own.")
        return Decision(verdict, None, context.run, broken_rule=rule, error=error)
    if course.stopped is not None:
        return Decision(_refusal(course.stopped, context.current), None, context.run)
    return _settle(course)


def _run(course: _Course, rules: Iterable[Rule]) -> tuple[Rule, Exception] | None:
    """Let the rules speak in turn; the one that raised, and what, if one does."""
    for rule in rules:
        try:
            course.follow(rule.check(course.context))
        except Exception as error:
            return rule, error
        if course.is_over and not rule.is_universal:
            break
    return None


def _refusal(stopped: Keep | Repeat | Wait | Abort, current: StateValue | None) -> Verdict[StateValue]:
    match stopped:
        case Keep(reason):
            return Abort(reason) if current is None else Reject(current, reason)
        case Repeat(state):
            return Accept(state)
        case _:
            return stopped


def _settle(course: _Course) -> Decision:
    """Keep the books over the state that holds."""
    state, planned = course.context.proposed, course.context.planned
    run = _applied(course.context.run, planned)
    books = keep_books(
        run.books, state.type, state.timestamp, state.scheduled_time, is_retry=state.is_another_try
    )
    if state.timestamp != books.timestamp:
        state = replace(state, timestamp=books.timestamp)
    verdict = Accept(state) if course.reason is None else Reject(state, course.reason)
    rest = tuple(effect for effect in planned if not isinstance(effect, _ON_THE_RUN))
    return Decision(verdict, state, replace(run, books=books), rest)


_ON_THE_RUN = (
    *(AddPauseKey, DropPauseKey, ClearPauseKeys),
    *(SetResuming, SetRetryType, ResetRunCount, NoteFlowRunCount),
)


def _applied(run: RunFacts, effects: tuple[Effect, ...]) -> RunFacts:
    """The run's facts with those effects that are about its own row."""
    for effect in effects:
        match effect:
            case AddPauseKey(key):
                run = replace(run, pause_keys=run.pause_keys | {key})
            case DropPauseKey(key):
                run = replace(run, pause_keys=run.pause_keys - {key})
            case ClearPauseKeys():
                run = replace(run, pause_keys=frozenset())
            case SetResuming(is_resuming):
                run = replace(run, books=run.books._replace(is_resuming=is_resuming))
            case SetRetryType(retry_type):
                run = replace(run, retry_type=retry_type)
            case ResetRunCount():
                run = replace(run, books=run.books._replace(run_count=0))
            case NoteFlowRunCount(run_count):
                run = replace(run, seen_in_flow_run_count=run_count)
            case _:
                pass
    return run
