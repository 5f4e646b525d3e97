"""Short words for the tables of the rule tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headrace.core.ids import new_id
from headrace.core.states import StateType
from headrace.core.verdicts import Abort, Accept, Reject, Wait
from headrace_services.domain.books import Books
from headrace_services.domain.facts import Context, RunFacts
from headrace_services.domain.flow_rules import FLOW_RULES
from headrace_services.domain.pipeline import Decision, Policy, decide
from headrace_services.domain.states import StateValue

__all__ = ["NOW", "SECOND", "ask", "context", "facts", "outcome", "value"]

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND


def value(type: str, **fields: Any) -> StateValue:
    """A state of `type`, entered a minute ago."""
    fields.setdefault("timestamp", NOW - 60 * SECOND)
    if type == "SCHEDULED":
        fields.setdefault("scheduled_time", NOW - 60 * SECOND)
    return StateValue(StateType(type), fields.pop("id", new_id()), **fields)


def facts(current: StateValue | None, **fields: Any) -> RunFacts:
    """A flow run in `current`, which a process holds, run once if it ever ran."""
    kept = Books()
    if current is not None:
        ran = current.type.value not in ("SCHEDULED", "PENDING")
        kept = Books(
            current.type,
            current.timestamp,
            start_time=NOW - 90 * SECOND if ran else None,
            end_time=current.timestamp if current.is_final else None,
            expected_start_time=NOW - 90 * SECOND,
            run_count=1 if ran else 0,
        )
    fields.setdefault("books", kept)
    fields.setdefault("kind", "flow")
    fields.setdefault("is_held", True)
    return RunFacts(**fields)


def context(current: StateValue | None, proposed: StateValue, **fields: Any) -> Context:
    """The proposal with its facts; those of the run by their own names."""
    run_fields = {name: fields.pop(name) for name in list(fields) if name in RunFacts.__slots__}
    if proposed.timestamp == NOW - 60 * SECOND:
        proposed = replace(proposed, timestamp=NOW)
    return Context(facts(current, **run_fields), current, proposed, NOW, "fresh", **fields)


def ask(
    current: StateValue | None, proposed: StateValue, policy: Policy = FLOW_RULES, **fields: Any
) -> Decision:
    """What the rules say."""
    return decide(policy, context(current, proposed, **fields))


def outcome(decision: Decision) -> str:
    """The verdict in the letters of the transition table.

    `A` accept, `R` reject and keep, `R>NAME` reject with a state of that name, `X` abort, `W` wait.
    """
    match decision.verdict:
        case Accept():
            return "A"
        case Reject(state):
            return f"R>{state.name}" if decision.state is not None else "R"
        case Wait():
            return "W"
        case Abort():
            return "X"
