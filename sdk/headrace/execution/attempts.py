"""Runs that a server has on record already, executed by this process."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from headrace.client import get_client
from headrace.client.background import run_in_background
from headrace.context import tags
from headrace.core.budget import idle_time
from headrace.core.passing import passing_time
from headrace.core.states import StateType
from headrace.engine.drive import run_now
from headrace.engine.outcome import Outcome
from headrace.exceptions import SerializationError
from headrace.execution.blocking import BLOCKING
from headrace.execution.calls import recorded_flow_call
from headrace.execution.encoding import state_from_proto
from headrace.execution.loop import LOOP
from headrace.execution.ownership import owning, terminating, terminating_loop
from headrace.execution.server import recorded_everything
from headrace.execution.traced import flow_engine
from headrace.runs import FlowRun, Owner
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run

if TYPE_CHECKING:
    from headrace.engine.flows import FlowCall
    from headrace.flows import Flow
    from headrace.states import State

__all__ = [
    "attempt_call",
    "recorded_flow_run",
    "recorded_parameters_of",
    "run_attempt_call",
    "run_flow_attempt",
]


def run_flow_attempt(
    flow: Flow[..., Any],
    run_id: str,
    attempt: int,
    fence: int,
    parameters: Mapping[str, Any] | None = None,
    *,
    recorded: Run | None = None,
) -> State[Any]:
    """Execute a flow run that the server has on record, as the attempt that was given to this process.

    It is what a process does that was started for a run: the run goes from SCHEDULED or PENDING to RUNNING,
    if the server lets it (a run that is scheduled for later is waited for), its body is run, and its final
    state is on the server when the call returns. Everything is recorded under the run's id with `attempt` and
    `fence`; once the server has given the run to a later attempt, nothing more is taken from this one.

    Call it in the main thread of the process: there SIGTERM ends the run as it should. A coroutine function
    runs on an event loop of its own.

    Args:
        flow: the flow, loaded; it should be the one that the run names.
        run_id: the run.
        attempt: which ownership of the run this is, from 1.
        fence: what guards it; both as `Run.attempt` and `Run.fence` say when the run is handed out.
        parameters: the arguments by name; None: those on record. Missing ones take their defaults.
        recorded: the run as the server had it when it handed the attempt out; None: the server is asked.

    Returns:
        The final state of the run, whatever it is. Nothing is raised for a run that failed.

    Raises:
        Abort: the run is not this attempt's (any longer), or has ended: leave, there is nothing to report.
        Pause: the run is suspended: leave with success, it is scheduled again when it is resumed.
        ParameterBindError: the parameters do not fit the function's signature; nothing was recorded.
        ValueError: the run is no flow run.
        SerializationError: what is on record of the parameters cannot be read here.
        ObjectNotFound: there is no such run.
        ServerUnavailable: no server answers.
        BaseException: execution was ended from outside (`SystemExit`, `KeyboardInterrupt`, SIGTERM); the run
            is CRASHED.
    """
    return run_attempt_call(attempt_call(flow, run_id, attempt, fence, parameters, recorded=recorded))


def attempt_call(
    flow: Flow[..., Any],
    run_id: str,
    attempt: int,
    fence: int,
    parameters: Mapping[str, Any] | None = None,
    *,
    recorded: Run | None = None,
) -> FlowCall:
    """What `run_flow_attempt` does before the run is entered; the errors are that one's."""
    if recorded is None:
        recorded = run_in_background(_recorded_run(run_id))
    run_in_background(recorded_everything())
    given = recorded_parameters_of(recorded) if parameters is None else parameters
    call = recorded_flow_call(flow, recorded_flow_run(recorded, attempt, fence), _bound(flow, given))
    run = call.context.flow_run
    if flow.retry_deadline_seconds is not None and run.start_micros:
        call.context.idle_micros = run_in_background(_idle_time(run))
    return call


def run_attempt_call(call: FlowCall) -> State[Any]:
    """Execute the run; result and errors are those of `run_flow_attempt`.

    When its end is on record, SIGTERM does nothing any more.
    """
    run = call.context.flow_run
    with tags(*run.tags):
        if call.context.flow.isasync:
            return asyncio.run(_run_async(call)).state
        with owning(run, call.context), terminating(partial(_has_ended, run)):
            return run_now(flow_engine(BLOCKING, call)).state


def _has_ended(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


async def _run_async(call: FlowCall) -> Outcome:
    with (
        owning(call.context.flow_run, call.context),
        terminating_loop(partial(_has_ended, call.context.flow_run)),
    ):
        engine: Coroutine[Any, Any, Outcome] = flow_engine(LOOP, call)
        return await engine


async def _recorded_run(run_id: str) -> Run:
    async with get_client() as client:
        return await client.get_run(run_id)


async def _idle_time(run: FlowRun) -> int:
    """How long the run has been paused, or has waited for a place, in earlier attempts; microseconds."""
    history: list[tuple[StateType, str, int]] = []
    async with get_client() as client:
        async for state in client.iter_states(run.id):
            entered = state.event_time.ToMicroseconds()
            history.append((StateType.from_number(state.type), state.name, entered))
    return idle_time(history, run.start_micros, passing_time().now())


def recorded_parameters_of(run: Run) -> dict[str, Any]:
    """The arguments of a run as they are on record, by parameter name.

    Raises:
        SerializationError: they are not recorded as JSON.
    """
    if not run.HasField("parameters"):
        return {}
    if run.parameters.encoding != "json":
        raise SerializationError(
            f"The parameters of run {run.id} are recorded as '{run.parameters.encoding}', which is not JSON."
        )
    given: dict[str, Any] = json.loads(run.parameters.inline)
    return given


def _bound(flow: Flow[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by parameter name; those of `*args` and `**kwargs` stand under these names, too."""
    parameters = flow.binder.signature.parameters
    known = {name: value for name, value in given.items() if name in parameters}
    others = {name: value for name, value in given.items() if name not in parameters}
    taker = next((name for name, one in parameters.items() if one.kind is _VAR_KEYWORD), None)
    if not all(name in known or _is_optional(one) for name, one in parameters.items()) or (
        others and taker is None
    ):
        return flow.binder.bind((), dict(given))  # it says what is wrong
    if others and taker is not None:
        known[taker] = {**known.get(taker, {}), **others}
    return flow.binder.complete(known)


_VAR_KEYWORD: Final = inspect.Parameter.VAR_KEYWORD


def _is_optional(parameter: inspect.Parameter) -> bool:
    variadic = (inspect.Parameter.VAR_POSITIONAL, _VAR_KEYWORD)
    return parameter.default is not inspect.Parameter.empty or parameter.kind in variadic


def recorded_flow_run(recorded: Run, attempt: int, fence: int) -> FlowRun:
    """A run that a server has, as this attempt of it knows it.

    Raises:
        ValueError: it is no flow run.
    """
    if recorded.kind != RUN_KIND_FLOW:
        raise ValueError(f"Run {recorded.id} is no flow run.")
    return FlowRun(
        recorded.id,
        recorded.name,
        recorded.root_run_id,
        Owner(recorded.id, attempt, fence),
        parent_run_id=recorded.parent_run_id or None,
        state=state_from_proto(recorded.state, flow_run_id=recorded.id),
        run_count=recorded.run_count,
        tags=list(recorded.tags),
        start_micros=recorded.start_time.ToMicroseconds() if recorded.HasField("start_time") else 0,
        traceparent=recorded.traceparent,
        flow_name=recorded.flow_name,
        flow_version=recorded.flow_version or None,
        root_flow_run_id=recorded.root_run_id,
        deployment_id=recorded.deployment_id or None,
        expected_start_micros=recorded.expected_start_time.ToMicroseconds(),
    )
