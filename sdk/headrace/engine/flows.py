"""What a flow run goes through, from its arguments to its final state."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from itertools import count
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from headrace.core.states import StateType
from headrace.engine.api import LimitPassed
from headrace.engine.cancelling import is_cancellation
from headrace.engine.deadlines import AttemptLimit, attempt_limit, no_more_tries, retries_text, seconds_left
from headrace.engine.endings import Ending, ending_of_error, ending_of_value
from headrace.engine.hooks import run_hooks
from headrace.engine.journal import Journal
from headrace.engine.keeping import keep, keep_for_replay
from headrace.engine.leaving import hand_over
from headrace.engine.names import run_name
from headrace.engine.outcome import Outcome, outcome_of
from headrace.engine.recall import recalled, settle_deferred
from headrace.engine.steps import Step, note, settle
from headrace.exceptions import (
    Abort,
    Cancel,
    CancelledRun,
    CodeChanged,
    FailedRun,
    FlowRunTimeoutError,
    ParameterTypeError,
    Pause,
    UpstreamTaskError,
)
from headrace.futures import resolve_futures_to_states
from headrace.states import State, StateDetails, get_state_exception
from headrace.upstreams import Inputs, futures_in, resolve_inputs

if TYPE_CHECKING:
    from headrace.context import FlowRunContext
    from headrace.engine.api import Ops
    from headrace.flows import Flow

__all__ = ["FlowCall", "run_flow"]

_log = logging.getLogger("headrace.flow_runs")


@dataclass(slots=True)
class FlowCall:
    """One call of a flow: everything that is known before it starts.

    Attributes:
        context: the run, the flow and the arguments as they were given.
        inputs: what the arguments depend on.
        wait_for: futures and states that must complete first, in any collection.
        step: its place among the steps of its caller; None: these are not told apart.
    """

    context: FlowRunContext
    inputs: Inputs
    wait_for: Any = None
    step: Step | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the body can be given the arguments as they are."""
        return self.inputs.as_they_are and self.wait_for is None


async def run_flow(ops: Ops, call: FlowCall) -> Outcome:
    """Take a flow run from its arguments to its final state, and have every step recorded.

    Raises:
        BaseException: execution was ended from outside (`SystemExit`, `KeyboardInterrupt`, SIGTERM,
            cancellation); the run is CRASHED.
        Abort: the run is not this process's any longer.
    """
    context = call.context
    run = context.flow_run
    journal = Journal(ops, context, StateDetails(flow_run_id=run.id))
    with context:
        try:
            async with ops.interruptible(context):
                if call.step is not None:
                    if (outcome := await _recall(ops, call)) is not None:
                        return outcome
                    # The run may have got another id.
                    journal = Journal(ops, context, StateDetails(flow_run_id=run.id))
                outcome = await _claim(ops, context, journal) or await _prepare(ops, call, journal)
                return outcome or await _attempts(ops, context, journal)
        except Abort:
            raise
        except Pause as signal:
            await _leave_runner(ops, context, signal)
            raise
        except BaseException as error:
            if is_cancellation(ops, context, error):
                return await _cancel(ops, context, journal, error)
            if context.on_termination != "crash" and ops.is_termination(error):
                outcome = await _leave(ops, context, journal, error)
                if outcome is not None:
                    return outcome
            await _crash(ops, context, journal, error)
            raise


async def _recall(ops: Ops, call: FlowCall) -> Outcome | None:
    """The outcome of a subflow run that has completed in an earlier pass through its caller's body."""
    step = call.step
    if step is None:
        return None
    if step.is_deferred:
        await settle_deferred(ops, call)
    if not step.is_completed:
        return None
    state = await recalled(ops, call, _log)
    return None if state is None else outcome_of(state)


async def _claim(ops: Ops, context: FlowRunContext, journal: Journal) -> Outcome | None:
    """Make the run PENDING, in this process; gives an outcome when the body must not run.

    Raises:
        Abort: the run, which was on record already, has ended.
    """
    state = journal.run.state
    if state is None:
        await _until_flows_run(ops, context)
        journal.begin(journal.make(StateType.PENDING, "Pending"))
        journal.announce()
        return None
    if state.is_final():
        raise Abort(f"The run has ended: it is {state.name}.")
    if not state.is_pending():
        state = await journal.propose(journal.make(StateType.PENDING, "Pending"))
    return None if state.is_pending() else _refused(state)


async def _until_flows_run(ops: Ops, context: FlowRunContext) -> None:
    """Wait until no flow run around is paused."""
    around = context.parent
    while around is not None:
        while (gate := getattr(around, "gate", None)) is not None:
            await ops.wait([gate])
        around = around.parent


async def _prepare(ops: Ops, call: FlowCall, journal: Journal) -> Outcome | None:
    """Resolve and validate the arguments, and the name; gives an outcome when the body must not run."""
    context = call.context
    flow, run = context.flow, context.flow_run
    try:
        if call.inputs.waits_for:
            await ops.wait(call.inputs.waits_for)
        if not call.is_ready:
            context.parameters = resolve_inputs(context.parameters, call.wait_for)
        if call.step is not None and not call.step.is_settled:
            settle(call)
            ops.update_run(run)
        if context.earlier_version != run.flow_version and context.earlier_version is not None:
            _take_code(ops, context)
        if flow.should_validate_parameters:
            context.parameters = flow.validate_parameters(context.parameters)
        if flow.flow_run_name is not None:
            run.name = await run_name(ops, "flow_run_name", flow.flow_run_name, context.parameters)
            ops.update_run(run)
    except UpstreamTaskError as error:
        state = journal.enter(journal.make(StateType.PENDING, "NotReady", str(error)))
        return Outcome(state, error=error)
    except ParameterTypeError as error:
        message = f"Validation of flow parameters failed with error: {error}"
        ending = Ending(StateType.FAILED, "Failed", message, error, error=error)
        return await _finish(ops, context, journal, ending)
    except Exception as error:
        return await _finish(ops, context, journal, ending_of_error(error, "Flow", None))
    return None


def _take_code(ops: Ops, context: FlowRunContext) -> None:
    """Go on with another version of the flow than is on record.

    Raises:
        CodeChanged: the flow does not want that.
    """
    flow, run = context.flow, context.flow_run
    if context.has_other_code:
        change = f"The code has changed since the run was executed last: from {context.earlier_version} to"
        if flow.on_code_change == "fail":
            raise CodeChanged(f"{change} {run.flow_version}.")
        what = (
            "all steps run again" if flow.on_code_change == "restart" else "steps that have changed run again"
        )
        _log.warning("%s %s; %s.", change, run.flow_version, what)
    ops.update_run(run)


async def _attempts(ops: Ops, context: FlowRunContext, journal: Journal) -> Outcome:
    flow, run = context.flow, context.flow_run
    args, kwargs = flow.binder.arguments(context.parameters)
    _log.info("Beginning flow run %r for flow %r", run.name, flow.name)
    steps = context.steps
    if steps is not None:
        await ops.offload(steps.load)
    tries, ending = 0, None
    while True:
        for book in (steps, context.kept_subflows):
            if book is not None:
                book.begin_pass(run.id)
        if flow.retry_deadline_seconds is not None and not _may_try(ops, context, 0):
            return await _finish(ops, context, journal, _given_up(flow, tries, ending))
        tries += 1
        context.pauses = count(1)
        name = "Running" if tries == 1 else "Retrying"
        running = await journal.propose(journal.make(StateType.RUNNING, name))
        if not running.is_running():
            return _refused(running)
        await run_hooks(ops, _log, flow.on_running_hooks, flow, run, running)
        ending = await _attempt(ops, context, args, kwargs)
        context.check_cancelled()
        if ending.type is StateType.FAILED and tries <= flow.retry_limit and not ending.is_cut:
            if _may_try(ops, context, flow.retry_delay_seconds):
                await _await_retry(ops, context, journal, ending, tries)
                continue
            ending = _given_up(flow, tries, ending)
        outcome = await _finish(ops, context, journal, ending)
        if not outcome.state.is_scheduled():
            return outcome
        # The server had the run retried, by a policy that this process does not know.
        await ops.sleep(_seconds_until(ops, outcome.state))


def _may_try(ops: Ops, context: FlowRunContext, delay_seconds: float) -> bool:
    """Whether an attempt that begins after the delay begins before the deadline, if there is one."""
    left = seconds_left(ops, context, context.flow_run, context.flow.retry_deadline_seconds)
    return left is None or delay_seconds < left


def _given_up(flow: Flow[..., Any], tries: int, last: Ending | None) -> Ending:
    """How a run ends whose deadline leaves no time for another attempt."""
    deadline = flow.retry_deadline_seconds
    assert deadline is not None
    message = no_more_tries("Flow", tries, deadline, None if last is None else last.message or "Failed")
    if last is not None:
        return replace(last, name="Failed", message=message, by_hand=None)
    error = FailedRun(message)
    return Ending(StateType.FAILED, "Failed", message, error, error=error)


def _refused(state: State[Any]) -> Outcome:
    """The server has put another state in place of RUNNING: the body must not run."""
    if state.is_completed():
        return Outcome(state, state.data)
    if state.is_final():
        return Outcome(state, error=get_state_exception(state))
    if state.is_cancelling():
        raise Cancel(state.message or "The run was cancelled.")
    raise Pause(f"The flow run is to stay {state.name}.", state=state)


def _seconds_until(ops: Ops, state: State[Any]) -> float:
    time = state.state_details.scheduled_time
    return max(0.0, time.timestamp() - ops.now() / 1_000_000) if time else 0.0


async def _attempt(ops: Ops, context: FlowRunContext, args: list[Any], kwargs: dict[str, Any]) -> Ending:
    """Run the body once, up to the point where nothing that it started runs any longer."""
    flow = context.flow
    limit: AttemptLimit | None = None
    own_limit: TimeoutError | None = None
    try:
        if flow.timeout_seconds or flow.retry_deadline_seconds:
            limit = attempt_limit(ops, context, context.flow_run, "Flow", flow)
        if limit is None:
            value = await _body(ops, context, args, kwargs)
        else:
            own_limit = context.limit_error = limit.error
            async with ops.limit(limit.seconds, own_limit):
                value = await _body(ops, context, args, kwargs)
        ending = ending_of_value(value)
    except (Exception, LimitPassed) as raised:
        error = raised.error if isinstance(raised, LimitPassed) else raised
        if error is not own_limit and context.is_ended_by_outer_limit(error):
            raise
        ending = ending_of_error(error, "Flow", own_limit)
        ending.is_cut = limit is not None and limit.is_deadline and error is own_limit
    finally:
        context.limit_error = None
    await _leave_runner(ops, context, ending.error)
    return ending


async def _body(ops: Ops, context: FlowRunContext, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What the body returns, its futures waited for and replaced by states."""
    flow = context.flow
    value = flow.fn(*args, **kwargs)
    if flow.isgenerator:
        value = await ops.drain(value)
    elif flow.is_coroutine or type(value) is CoroutineType:
        value = await ops.finish(value)
    if type(value) in (GeneratorType, AsyncGeneratorType):
        value = await ops.drain(value)
    futures = futures_in(value)
    if futures:
        await ops.wait(futures)
        value = resolve_futures_to_states(value)
    return value


async def _leave_runner(ops: Ops, context: FlowRunContext, error: BaseException | None) -> None:
    """End what the body has started: what runs is waited for; after a time limit, nothing new begins."""
    runner = context.take_runner()
    if runner is not None:
        if isinstance(error, FlowRunTimeoutError):
            runner.cancel_all()
        await ops.leave(runner, error)


async def _await_retry(
    ops: Ops, context: FlowRunContext, journal: Journal, ending: Ending, retry: int
) -> None:
    flow = context.flow
    delay = flow.retry_delay_seconds
    _log.warning(
        "%s - Retry %s/%s will start %s",
        ending.message or "The flow run failed",
        retry,
        retries_text(flow.retries),
        f"{delay:g} second(s) from now" if delay else "immediately",
        exc_info=ending.error,
    )
    if delay:
        journal.enter(journal.make_scheduled("AwaitingRetry", delay, ending.message))
        await ops.sleep(delay)


async def _finish(ops: Ops, context: FlowRunContext, journal: Journal, ending: Ending) -> Outcome:
    flow, run = context.flow, context.flow_run
    if ending.by_hand is not None:
        draft = journal.make_final(ending.by_hand, ending.data)
    else:
        draft = journal.make(ending.type, ending.name, ending.message, ending.data)
    if context.persist_result:
        await keep(ops, context, draft)
    if run.step_key and draft.is_completed():
        await keep_for_replay(ops, context, draft)
    state = await journal.propose(draft)
    if run.step_key:
        note(context, state)
    if state.is_scheduled():
        return Outcome(state)
    await ops.settle(run)
    _log_end(state, ending)
    if state.is_completed():
        await run_hooks(ops, _log, flow.on_completion_hooks, flow, run, state)
    elif state.is_failed():
        await run_hooks(ops, _log, flow.on_failure_hooks, flow, run, state)
    elif state.is_cancelling():
        # The body has come to its end all the same: that does not save the run.
        return await _end_cancelled(ops, context, journal, state.message or "The run was cancelled.")
    return _outcome(state, ending)


def _log_end(state: State[Any], ending: Ending) -> None:
    if state.is_completed():
        _log.info("Finished in state %s", state)
    else:
        _log.error("Finished in state %s", state, exc_info=ending.error)


def _outcome(state: State[Any], ending: Ending) -> Outcome:
    """What a caller is given that did not ask for the state."""
    if ending.error is not None:
        return Outcome(state, error=ending.error)
    if ending.is_collection:
        return Outcome(state, ending.value)
    return outcome_of(state)


async def _cancel(ops: Ops, context: FlowRunContext, journal: Journal, error: BaseException) -> Outcome:
    """The body was interrupted because the run, or one around it, is being cancelled.

    Raises:
        BaseException: `error`, when it was for a run around this one.
    """
    await _end_children(ops, context, error)
    run = context.flow_run
    if run.state is None:
        raise error
    if run.state.is_final():
        outcome = outcome_of(run.state)
    else:
        message = context.cancel_reason() or str(error)
        outcome = await _end_cancelled(ops, context, journal, message)
    if context.cancelled is None and context.cancel_reason() is not None:
        raise error
    return outcome


async def _end_cancelled(ops: Ops, context: FlowRunContext, journal: Journal, message: str) -> Outcome:
    flow, run = context.flow, context.flow_run
    if run.state is not None and not run.state.is_final() and not run.state.is_cancelling():
        # A run that ends with the one around it was never in this state for the server.
        run.state = journal.make(StateType.CANCELLING, "Cancelling", message)
    state = run.state
    assert state is not None
    try:
        await run_hooks(ops, _log, flow.on_cancellation_hooks, flow, run, state)
    except Cancel:
        _log.error("A hook of a cancelled flow run has begun a run: nothing begins below it any more")
    if not state.is_final():
        state = await journal.propose(journal.make(StateType.CANCELLED, "Cancelled", message))
    await ops.settle(run)
    _log.error("Finished in state %s", state)
    return Outcome(state, error=CancelledRun(message))


async def _end_children(ops: Ops, context: FlowRunContext, error: BaseException) -> None:
    runner = context.take_runner()
    if runner is None:
        return
    if context.cancel_reason() is not None:
        runner.interrupt_all(context.cancel_seconds)
    else:
        runner.cancel_all()
    if isinstance(error, GeneratorExit):
        return
    try:
        await ops.leave(runner, error)
    except BaseException as again:
        # A second signal: those that still run are not waited for, and the first cause stands.
        _log.warning("Interrupted again (%r) while waiting for task runs to end", again)


async def _leave(ops: Ops, context: FlowRunContext, journal: Journal, error: BaseException) -> Outcome | None:
    """The process is asked to end, and others are to go on with the run; None: they cannot, it crashes.

    Raises:
        Pause: it was queued for another attempt.
        BaseException: `error`, when another process of this attempt is to go on.
    """
    run = context.flow_run
    if run.state is None or run.state.is_final():
        return None
    await _end_children(ops, context, error)
    is_left, state = await hand_over(ops, context, journal)
    if is_left:
        _log.warning("The process was asked to end: the run goes on elsewhere")
        if context.on_termination == "reschedule":
            raise Pause("The process was asked to end, and the run is scheduled again.", state=state)
        raise error
    if state.is_cancelling():
        return await _end_cancelled(ops, context, journal, state.message or "The run was cancelled.")
    return _refused(state) if state.is_final() else None


async def _crash(ops: Ops, context: FlowRunContext, journal: Journal, error: BaseException) -> None:
    """End the children, then record that execution was ended from outside."""
    flow, run = context.flow, context.flow_run
    if run.state is not None and run.state.is_final():
        return
    await _end_children(ops, context, error)
    if context.is_ended_by_outer_limit(error.error if isinstance(error, LimitPassed) else error):
        message = "Execution was ended by the timeout of an enclosing run."
    else:
        message = f"Execution was {ops.crash_message(error)}."
    if run.state is None:
        journal.begin(journal.make(StateType.PENDING, "Pending"))
    state = journal.enter(journal.make(StateType.CRASHED, "Crashed", message, error))
    _log.error("Crash detected! %s", message)
    if not isinstance(error, GeneratorExit):
        await run_hooks(ops, _log, flow.on_crashed_hooks, flow, run, state)
