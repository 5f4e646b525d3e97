"""Spans round runs."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from headrace.engine.api import Ops
from headrace.engine.flows import FlowCall, run_flow
from headrace.engine.outcome import Outcome
from headrace.engine.tasks import TaskCall, run_task
from headrace.runs import FlowRun, TaskRun
from headrace.states import State
from headrace.tracing import RunSpan, start_run_span

__all__ = ["flow_engine", "task_engine"]


def task_engine(ops: Ops, call: TaskCall) -> Coroutine[Any, Any, Outcome]:
    """The engine of a task call, in a span of its own where spans are recorded."""
    span = None if _may_be_recalled(call) else start_run_span(call.run, "task", call.run.task_name)
    engine = run_task(ops, call)
    return engine if span is None else _traced(engine, span, call.run)


def flow_engine(ops: Ops, call: FlowCall) -> Coroutine[Any, Any, Outcome]:
    """The engine of a flow call, in a span of its own where spans are recorded."""
    run = call.context.flow_run
    span = None if _may_be_recalled(call) else start_run_span(run, "flow", run.flow_name)
    engine = run_flow(ops, call)
    return engine if span is None else _traced(engine, span, run)


def _may_be_recalled(call: TaskCall | FlowCall) -> bool:
    """Whether nothing may happen in the run, which then has had its span."""
    return call.step is not None and (call.step.is_deferred or call.step.is_completed)


async def _traced(engine: Coroutine[Any, Any, Outcome], span: RunSpan, run: FlowRun | TaskRun) -> Outcome:
    run.traceparent = span.traceparent
    with span:
        try:
            return await engine
        finally:
            _finish(span, run, run.state)


def _finish(span: RunSpan, run: FlowRun | TaskRun, state: State[Any] | None) -> None:
    if state is not None:
        span.finish(
            state.name,
            is_failed=not state.is_completed(),
            message=state.message or "",
            run_count=run.run_count,
        )
