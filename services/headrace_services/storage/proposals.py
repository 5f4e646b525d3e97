"""Proposed states: load the facts, let the rules decide, write what they decided."""

from __future__ import annotations

import json
import logging
import random
from dataclasses import replace
from typing import Final

from headrace.core.budget import idle_time
from headrace.core.ids import new_id
from headrace.core.retry import delay_before_retry
from headrace.core.states import StateType
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import State
from headrace_services.domain.effects import Announce, Enqueue, InsertCache, RetryType
from headrace_services.domain.facts import Context, FlowFacts, RunFacts
from headrace_services.domain.flow_rules import FLOW_RULES, MINIMAL_FLOW_RULES
from headrace_services.domain.pipeline import Decision, Policy, decide
from headrace_services.domain.states import (
    CANCELLING,
    FAILED,
    PAUSED,
    PENDING,
    RUNNING,
    SCHEDULED,
    StateValue,
)
from headrace_services.domain.task_rules import MINIMAL_TASK_RULES, TASK_RULES
from headrace_services.storage import steps
from headrace_services.storage.cancel_notes import note_cancelling
from headrace_services.storage.dispatch_rows import AttemptRow
from headrace_services.storage.instants import duration_micros, micros
from headrace_services.storage.pause_notes import note_pause
from headrace_services.storage.rows import Requeue, RunRow
from headrace_services.storage.state_codec import decode_state, encode_state, verdict_message
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Facts, Work

__all__ = ["is_held", "propose"]

_log = logging.getLogger(__name__)
_random: Final = random.Random()


def propose(
    work: Work, run: RunRow, state: State, *, by_executor: bool = False, force: bool = False, actor: str = ""
) -> Steps[ProposeStateResponse]:
    """Let the rules decide on `state`; write what they decide.

    Args:
        work: the rows at hand.
        run: the run.
        state: what is proposed; not changed.
        by_executor: asked by the process that owns the run.
        force: only the minimal rules.
        actor: who asks, kept in a forced state.
    """
    pair = (run.id, state.id.lower())
    if work.needs_facts(run):
        yield from work.load_facts([pair])
    facts = work.facts.get(pair)
    proposed = decode_state(state)
    if not by_executor:
        proposed = replace(proposed, is_given_back=False, is_relinquished=False)
    context = Context(
        run=_run_facts(work, run, facts, (yield from _idle_time(work, run, proposed))),
        current=_current(work, run, facts),
        proposed=proposed,
        now=work.now,
        fresh_id=new_id(),
        by_executor=by_executor,
        earlier=_earlier(run, proposed.id, facts),
        flow=(yield from _flow_facts(work, run)),
        spread=_random.random(),
    )
    decision = decide(_policy(run, force), context)
    if decision.error is not None and decision.broken_rule is not None:
        _log.error("the rule %r raised", decision.broken_rule.name, exc_info=decision.error)
    if decision.state is not None and decision.state.is_given_back:
        yield from _give_back(work, run)
    written = _write(work, run, decision, forced_by=(actor or "unknown") if force else "")
    return verdict_message(decision.verdict, written)


def _policy(run: RunRow, force: bool) -> Policy:
    if run.kind == RUN_KIND_FLOW:
        return MINIMAL_FLOW_RULES if force else FLOW_RULES
    return MINIMAL_TASK_RULES if force else TASK_RULES


# Facts


def _current(work: Work, run: RunRow, facts: Facts | None) -> StateValue | None:
    state = work.current_state(run, facts)
    return None if state is None else decode_state(state)


def _earlier(run: RunRow, state_id: str, facts: Facts | None) -> StateValue | None:
    """The state of the run's history that has the proposed id."""
    if facts is not None and facts[1] is not None:
        return decode_state(State.FromString(facts[1]))
    for id, body in run.entered:
        if id == state_id:
            return decode_state(State.FromString(body))
    return None


def _idle_time(work: Work, run: RunRow, proposed: StateValue) -> Steps[int]:
    """How long the run was paused, or waited for a place; asked for only where a deadline hangs on it."""
    if proposed.type is not FAILED or run.books.start_time is None:
        return 0
    if not Run.FromString(run.spec).retry_policy.HasField("deadline"):
        return 0
    history: list[tuple[StateType, str, int]] = []
    if run.stored_version is not None:
        for number, name, entered in (yield from steps.load_history(run.id)):
            history.append((StateType.from_number(number), name, entered))
    for _, body in run.entered:
        state = State.FromString(body)
        history.append((StateType.from_number(state.type), state.name, micros(state.event_time)))
    return idle_time(history, run.books.start_time, work.now)


def _run_facts(work: Work, run: RunRow, facts: Facts | None, idle: int) -> RunFacts:
    spec = Run.FromString(run.spec)
    policy = spec.retry_policy
    deadline = None
    if policy.HasField("deadline") and run.books.start_time is not None:
        deadline = run.books.start_time + idle + duration_micros(policy.deadline)
    return RunFacts(
        kind="flow" if run.kind == RUN_KIND_FLOW else "task",
        books=run.books,
        max_retries=policy.max_retries,
        retry_delay=_retry_delay(spec, run.books.run_count),
        retry_deadline=deadline,
        retry_type=run.retry_type,
        pause_keys=frozenset(json.loads(run.pause_keys)) if run.pause_keys else frozenset(),
        has_deployment=run.deployment_id is not None,
        is_dispatched=run.deployment_id is not None or run.work_pool is not None,
        has_parent=run.parent_id is not None,
        is_held=is_held(work, run, facts),
        seen_in_flow_run_count=run.flow_run_count,
    )


def _retry_delay(spec: Run, run_count: int) -> int:
    """Of the next try, microseconds."""
    policy = spec.retry_policy
    delays = [duration_micros(delay) / 1_000_000 for delay in policy.delays]
    seconds = delay_before_retry(max(run_count, 1), delays, policy.jitter_factor, _random)
    return int(seconds * 1_000_000)


def is_held(work: Work, run: RunRow, facts: Facts | None) -> bool:
    """Whether somebody who has a lease executes the run: somebody who can be told to end it."""
    if run.fence > 1 and run.owner_id == run.id and _is_with_worker(run):
        return True
    if run.recorder_id is None:
        return False
    recorder = work.recorders.get(run.recorder_id)
    if recorder is not None:
        return not recorder.is_sealed
    return facts is not None and facts[2] is not None


def _is_with_worker(run: RunRow) -> bool:
    """Whether a run that a worker was given is still its worker's, as its state alone says."""
    if run.kind == RUN_KIND_FLOW and run.work_pool is None and run.deployment_id is None:
        return False  # it was taken over by hand
    type = run.books.type
    if type is SCHEDULED:
        return run.retry_type is RetryType.IN_PROCESS
    return type in (PENDING, RUNNING, CANCELLING) or (type is PAUSED and run.recorder_id is not None)


def _flow_facts(work: Work, run: RunRow) -> Steps[FlowFacts | None]:
    """The flow run in which a task run was called."""
    if run.kind == RUN_KIND_FLOW:
        return None
    flow_run_id = run.parent_id or run.root_id
    yield from work.load_runs([flow_run_id])
    flow = work.runs.get(flow_run_id)
    if flow is not None and flow.kind != RUN_KIND_FLOW and flow.root_id != flow.id:
        yield from work.load_runs([flow.root_id])
        flow = work.runs.get(flow.root_id)
    if flow is None or flow.kind != RUN_KIND_FLOW:
        return None
    pair = (flow.id, flow.state_id or flow.id)
    if flow.body is None:
        yield from work.load_facts([pair])
    return FlowFacts(_current(work, flow, work.facts.get(pair)), flow.books.run_count)


# Writing


def _give_back(work: Work, run: RunRow) -> Steps[None]:
    """The run is another attempt's from now on. It is not lost: that does not count against it."""
    for row in (yield from work.rows.find(AttemptRow, [("run_id", "=", run.id)])):
        run.requeue = Requeue(work.now, row.lost_count, row.refusals, row.excluded)
    run.attempt += 1
    run.fence += 1
    run.recorder_id = None


def _write(work: Work, run: RunRow, decision: Decision, forced_by: str) -> State | None:
    """Write the decision's state, if there is one."""
    value = decision.state
    if value is None:
        return None
    after = decision.run
    run.retry_type = after.retry_type
    run.flow_run_count = after.seen_in_flow_run_count
    run.pause_keys = json.dumps(sorted(after.pause_keys)) if after.pause_keys else ""
    run.is_presumed = False
    if value.is_suspended or value.is_relinquished:
        run.recorder_id = None  # no process stays with it
    state = encode_state(value, run_count=after.books.run_count, record_time=work.now, forced_by=forced_by)
    if value.type is PAUSED:
        note_pause(work, run, state)
    work.enter(run, value.id, value.name, after.books, state.SerializeToString())
    if value.type is CANCELLING:
        note_cancelling(work, run, state)
    for effect in decision.effects:
        # The outbox announces every written run. Without limits, caches and queues among the facts no
        # rule plans anything for them.
        if not isinstance(effect, (Announce, InsertCache, Enqueue)):
            raise AssertionError(f"nothing was loaded for {effect}")
    return state
