"""Pausing, suspending and resuming flow runs.

    from headrace import flow, pause_flow_run
    from headrace.input import RunInput

    class Approval(RunInput):
        amount: float
        approved: bool = False

    @flow
    def pay() -> None:
        answer = pause_flow_run(wait_for_input=Approval)

In a plain flow these functions return what they say; in a coroutine they return an awaitable of it, as
their twins that begin with `a` do everywhere.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, overload
from uuid import UUID

from headrace.client.background import offloaded
from headrace.context import FlowRunContext, TaskRunContext, current_run
from headrace.core.errors import FieldsInvalid
from headrace.core.ids import new_id
from headrace.exceptions import FlowPauseTimeout, FlowRunWaitTimeout, NotPausedError, RunInputInvalid
from headrace.execution.background import dispatched
from headrace.execution.pausing import Asked, PauseRequest
from headrace.execution.server import server_for
from headrace.execution.watching import ended_run
from headrace.v1.run_service_pb2 import PauseRunRequest, ProposeStateResponse, ResumeRunRequest

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.input import RunInput
    from headrace.runs import FlowRun

__all__ = [
    "apause_flow_run",
    "aresume_flow_run",
    "asuspend_flow_run",
    "pause_flow_run",
    "resume_flow_run",
    "suspend_flow_run",
    "wait_for_flow_run",
]

T = TypeVar("T")


@overload
async def apause_flow_run(
    wait_for_input: None = None, timeout: float = 3600, poll_interval: float = 10, key: str | None = None
) -> None: ...
@overload
async def apause_flow_run(
    wait_for_input: type[T], timeout: float = 3600, poll_interval: float = 10, key: str | None = None
) -> T: ...
async def apause_flow_run(
    wait_for_input: Any = None, timeout: float = 3600, poll_interval: float = 10, key: str | None = None
) -> Any:
    """Pause the flow run until somebody resumes it. Tasks that run go on; new ones wait.

    Args:
        wait_for_input: what to ask for: a `RunInput`, another pydantic model, or a plain type.
        timeout: seconds after which the run fails.
        poll_interval: seconds between two looks while the server cannot be watched; else resuming is told
            at once.
        key: names the pause. A key fires once in an attempt of the run; default: the number of the pause.

    Returns:
        What the run was resumed with; None when nothing was asked for.

    Raises:
        FlowPauseTimeout: nobody resumed the run in time; it has failed.
        RuntimeError: not inside a flow run, or inside a task run.
        ValueError: `timeout` is negative.
        ServerUnavailable: there is no server, and none can be started.
    """
    context = _pausing_flow_run("pause")
    request = PauseRequest(
        context,
        key or str(next(context.pauses)),
        _checked(timeout),
        poll_interval=_checked(poll_interval),
    )
    return await _answered(request, wait_for_input)


@overload
def pause_flow_run(
    wait_for_input: None = None, timeout: float = 3600, poll_interval: float = 10, key: str | None = None
) -> None: ...
@overload
def pause_flow_run(
    wait_for_input: type[T], timeout: float = 3600, poll_interval: float = 10, key: str | None = None
) -> T: ...
def pause_flow_run(
    wait_for_input: Any = None, timeout: float = 3600, poll_interval: float = 10, key: str | None = None
) -> Any:
    """Pause the flow run until somebody resumes it; see `apause_flow_run`."""
    return dispatched(apause_flow_run(wait_for_input, timeout, poll_interval, key))


@overload
async def asuspend_flow_run(
    wait_for_input: None = None,
    flow_run_id: str | UUID | None = None,
    timeout: float | None = None,
    key: str | None = None,
) -> None: ...
@overload
async def asuspend_flow_run(
    wait_for_input: type[T],
    flow_run_id: str | UUID | None = None,
    timeout: float | None = None,
    key: str | None = None,
) -> T: ...
async def asuspend_flow_run(
    wait_for_input: Any = None,
    flow_run_id: str | UUID | None = None,
    timeout: float | None = None,
    key: str | None = None,
) -> Any:
    """Suspend a flow run of a deployment: its process leaves, and resuming runs it again from the top.

    The run that is suspended from outside leaves at its next task boundary; tasks that run finish first.

    Args:
        wait_for_input: what to ask for: a `RunInput`, another pydantic model, or a plain type.
        flow_run_id: another run than the one around the call.
        timeout: seconds after which the run fails; None: never.
        key: names the pause. A key fires once in an attempt of the run; default: the number of the pause.

    Returns:
        What the run was resumed with, when it comes by again after that.

    Raises:
        RuntimeError: not inside a flow run, inside a task run, a subflow run, or a run without deployment.
        ValueError: `timeout` is negative, or another run is to be asked for input.
        ServerUnavailable: there is no server, and none can be started.
        Pause: the process must leave. Let it pass.
    """
    if timeout is not None:
        _checked(timeout)
    around = FlowRunContext.get()
    if flow_run_id is not None and (around is None or str(flow_run_id) != around.flow_run.id):
        if wait_for_input is not None:
            raise ValueError("Only the flow run itself knows what to ask for: suspend it from inside.")
        return await _suspend_from_outside(str(flow_run_id), timeout, key)
    context = _pausing_flow_run("suspend")
    if context.parent is not None:
        raise RuntimeError("Cannot suspend subflows.")
    if context.flow_run.deployment_id is None:
        raise RuntimeError("Cannot suspend flows without a deployment: nobody would run them again.")
    request = PauseRequest(context, key or str(next(context.pauses)), timeout, is_suspended=True)
    return await _answered(request, wait_for_input)


@overload
def suspend_flow_run(
    wait_for_input: None = None,
    flow_run_id: str | UUID | None = None,
    timeout: float | None = None,
    key: str | None = None,
) -> None: ...
@overload
def suspend_flow_run(
    wait_for_input: type[T],
    flow_run_id: str | UUID | None = None,
    timeout: float | None = None,
    key: str | None = None,
) -> T: ...
def suspend_flow_run(
    wait_for_input: Any = None,
    flow_run_id: str | UUID | None = None,
    timeout: float | None = None,
    key: str | None = None,
) -> Any:
    """Suspend a flow run of a deployment; see `asuspend_flow_run`."""
    return dispatched(asuspend_flow_run(wait_for_input, flow_run_id, timeout, key))


async def aresume_flow_run(flow_run_id: str | UUID, run_input: Any = None) -> None:
    """Let a paused or suspended flow run go on.

    Args:
        flow_run_id: the run.
        run_input: what it asks for: a dict of fields, a model, or the value where a plain type is asked for.

    Raises:
        NotPausedError: the run is not paused.
        FlowPauseTimeout: the pause was over; the run has failed.
        RunInputInvalid: `run_input` does not fit; the run stays paused.
        ObjectNotFound: there is no such run.
        ServerUnavailable: there is no server, and none can be started.
    """
    request = ResumeRunRequest(run_id=str(flow_run_id), state_id=new_id())
    if run_input is not None:
        request.input = _as_json(run_input)
    verdict = await _resume(request)
    if verdict.HasField("abort"):
        raise NotPausedError(f"Cannot resume a run that isn't paused! {verdict.abort.reason}")
    if verdict.HasField("rejected"):
        raise FlowPauseTimeout(f"Flow run can no longer be resumed. {verdict.rejected.reason}")


def resume_flow_run(flow_run_id: str | UUID, run_input: Any = None) -> None:
    """Let a paused or suspended flow run go on; see `aresume_flow_run`."""
    return dispatched(aresume_flow_run(flow_run_id, run_input))


async def wait_for_flow_run(
    flow_run_id: str | UUID,
    timeout: float | None = 10800,
    poll_interval: float | None = None,
    client: HeadraceClient | None = None,
    log_states: bool = False,
) -> FlowRun:
    """Wait until a flow run has ended, wherever it runs.

    Args:
        flow_run_id: the run.
        timeout: seconds; None: for as long as it takes.
        poll_interval: seconds between two tries to watch the run while the server is away; default: 1. The
            end of the run is told at once.
        client: an open client; None: one of the settings in force.
        log_states: write each state that the run enters to the log.

    Returns:
        The run; its `state` is final, and gives the result where that was kept.

    Raises:
        FlowRunWaitTimeout: the run had not ended in time.
        ObjectNotFound: there is no such run, or it was deleted meanwhile.
        ValueError: it is a task run.
        ServerUnavailable: there is no server, and none can be started.
    """
    from headrace.execution.attempts import recorded_flow_run

    run_id, interval = str(flow_run_id), 1.0 if poll_interval is None else _checked(poll_interval)
    own = server_for("Waiting for a flow run") if client is None else nullcontext(client)
    try:
        async with asyncio.timeout(timeout), own as asked:
            ended = await ended_run(asked, run_id, interval, log_states=log_states)
            return recorded_flow_run(ended, ended.attempt, ended.fence)
    except TimeoutError:
        raise FlowRunWaitTimeout(
            f"Flow run with ID {run_id} exceeded watch timeout of {timeout:g} seconds"
        ) from None


def _checked(seconds: float) -> float:
    if seconds < 0:
        raise ValueError(f"a number of seconds must not be negative, got {seconds!r}")
    return seconds


def _pausing_flow_run(verb: str) -> FlowRunContext:
    context = current_run()
    if isinstance(context, TaskRunContext):
        raise RuntimeError(f"Cannot {verb} task runs.")
    if context is None:
        past = {"pause": "paused", "suspend": "suspended"}[verb]
        raise RuntimeError(f"Flow runs can only be {past} from within a flow run.")
    return context


async def _answered(request: PauseRequest, wait_for_input: Any) -> Any:
    """Pause; then what the run was resumed with."""
    input_type: type[RunInput] | None = None
    if wait_for_input is not None:
        from headrace.input.run_input import run_input_subclass_from_type, schema_text

        input_type = run_input_subclass_from_type(wait_for_input)
        request.asked = Asked(schema_text(input_type), input_type.description_for_people() or "")
    await request.run()
    if input_type is None:
        return None
    return await input_type.aload(request.keyset, request.context.flow_run.id)


@offloaded
async def _resume(request: ResumeRunRequest) -> ProposeStateResponse:
    async with server_for("Resuming a flow run") as client:
        try:
            return await client.resume_run(request)
        except FieldsInvalid as error:
            fields = {violation.field: violation.description for violation in error.violations}
            raise RunInputInvalid(f"Cannot resume this run: {error.message}", fields) from None


@offloaded
async def _suspend_from_outside(flow_run_id: str, timeout: float | None, key: str | None) -> None:
    request = PauseRunRequest(run_id=flow_run_id, state_id=new_id(), pause_key=key or new_id(), suspend=True)
    if timeout is not None:
        request.timeout.FromMicroseconds(round(timeout * 1_000_000))
    async with server_for("Suspending a flow run") as client:
        verdict = await client.pause_run(request)
    if not verdict.HasField("accepted"):
        reason = verdict.rejected.reason or verdict.abort.reason or verdict.wait.reason
        raise RuntimeError(f"Flow run cannot be suspended: {reason}")


def _as_json(run_input: Any) -> str:
    """What a run is resumed with, as JSON text: an object."""
    from pydantic import BaseModel
    from pydantic_core import to_json

    if not isinstance(run_input, (dict, BaseModel)):
        run_input = {"value": run_input}
    return to_json(run_input).decode()
