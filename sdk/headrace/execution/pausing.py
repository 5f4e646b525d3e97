"""The pause of a flow run, from inside: asked for, waited for, left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from headrace.client.background import offloaded, start_in_background
from headrace.core.errors import ServiceError
from headrace.core.passing import passing_time
from headrace.core.states import StateType
from headrace.core.verdicts import Accept, Reject, Wait
from headrace.engine.gate import PauseGate
from headrace.exceptions import Abort, Cancel, FlowPauseTimeout, Pause
from headrace.execution.encoding import state_entry, state_from_proto
from headrace.execution.server import recorded_everything, server_for
from headrace.recorder import get_recorder, observers
from headrace.states import Paused, State, StateDetails, Suspended
from headrace.v1.run_pb2 import RUN_KIND_FLOW, RunFilter

if TYPE_CHECKING:
    from headrace.context import FlowRunContext
    from headrace.runs import FlowRun
    from headrace.v1 import state_pb2
    from headrace.v1.run_pb2 import Run

__all__ = ["Asked", "PauseRequest", "hold_from_outside"]

_log = logging.getLogger("headrace.flow_runs")
_WHAT: Final = "Pausing a flow run"
_GRACE_SECONDS: Final = 30.0
"""How long after the end of a pause the server may be silent about it."""
_CANCELS: Final = (StateType.CANCELLING, StateType.CANCELLED)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a pause asks for.

    Attributes:
        schema: JSON Schema as text.
        description: Markdown for whoever answers; may be empty.
    """

    schema: str
    description: str


@dataclass(slots=True)
class PauseRequest:
    """One pause.

    Attributes:
        context: the flow run that pauses.
        key: names the pause; a key fires once in an attempt of the run.
        timeout: seconds; None: for ever.
        is_suspended: the process leaves.
        asked: what the pause asks for.
        poll_interval: seconds between two looks while the server cannot be watched.
    """

    context: FlowRunContext
    key: str
    timeout: float | None
    is_suspended: bool = False
    asked: Asked | None = None
    poll_interval: float = 10

    @property
    def keyset(self) -> str:
        """What the keys of everything about the pause begin with."""
        return f"{'suspended' if self.is_suspended else 'paused'}-{self.key}"

    @offloaded
    async def run(self) -> None:
        """Enter the pause, and return when the run goes on; at once when the key has fired before.

        Raises:
            FlowPauseTimeout: nobody resumed the run in time.
            RuntimeError: the run cannot pause.
            ServerUnavailable: there is no server.
            Pause: the run is suspended, and the process must leave.
            Cancel: the run, or one around it, is being cancelled.
            Abort: the run has ended, or is not this process's any longer.
        """
        self.context.check_ownership()
        async with server_for(_WHAT):
            await recorded_everything()
        state = await self._enter()
        if state is not None:
            await self._stay(state)

    @property
    def _run(self) -> FlowRun:
        return self.context.flow_run

    async def _enter(self) -> State[Any] | None:
        """The paused state, once it is accepted; None when the key has fired before."""
        while True:
            state = self._state()
            self.context.own_pause = state.id
            entry = state_entry(self._run, state)
            self._ask(entry.state.state.paused)
            verdict = await asyncio.wrap_future(get_recorder().propose(entry))
            match verdict:
                case Accept():
                    self._run.state = state
                    return state
                case Reject(current):
                    if not await self._is_free_again(current):
                        return None
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case _:
                    raise RuntimeError(f"Flow run cannot be paused: {verdict.reason}")

    def _state(self) -> State[Any]:
        make = Suspended if self.is_suspended else Paused
        keyset = {part: f"{self.keyset}-{part}" for part in ("description", "response", "schema")}
        details = StateDetails(flow_run_id=self._run.id, run_input_keyset=keyset if self.asked else None)
        return make(timeout_seconds=self.timeout, pause_key=self.key, state_details=details)

    def _ask(self, paused: state_pb2.PausedDetails) -> None:
        if self.asked is not None:
            paused.input_keyset = self.keyset
            paused.input_schema = self.asked.schema
            paused.input_description = self.asked.description

    async def _is_free_again(self, current: state_pb2.State) -> bool:
        """The server keeps another state: whether it makes sense to ask again."""
        state = self._follow(current)
        if state.is_paused():
            # Another coroutine of the same run has paused it. Its pause first, then this one.
            state = await self._left(state.id)
            if state.is_running() or state.is_paused():
                return True
        if not state.is_running():
            self._react(state, is_over=False)
        return False

    async def _stay(self, paused: State[Any]) -> None:
        gate = self.context.gate = PauseGate(paused)
        if self.is_suspended:
            raise Pause("The flow run is suspended.", state=paused)
        _log.info("Pausing flow, execution will continue when this flow run is resumed.")
        ended: str | None = "The flow run was paused and did not go on."
        began = passing_time().now()
        try:
            await self._until_left(paused)
            ended = None
        finally:
            if self.context.gate is gate:
                self.context.gate = None
            self.context.idle_micros += passing_time().now() - began
            gate.open(ended)
        _log.info("Resuming flow run execution!")

    async def _until_left(self, paused: State[Any]) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        limit = None if self.timeout is None else self.timeout + _GRACE_SECONDS
        try:
            async with asyncio.timeout(limit):
                state = await self._left(paused.id)
        except TimeoutError:
            raise FlowPauseTimeout("Flow run was paused and never resumed.") from None
        is_over = self.timeout is not None and clock() - began >= self.timeout - 1
        if not (state.is_running() or state.is_paused()):
            self._react(state, is_over=is_over)

    def _react(self, state: State[Any], *, is_over: bool) -> None:
        """Leave the body: the run does not go on."""
        if state.type in _CANCELS:
            raise Cancel(state.message or "The flow run was cancelled.")
        if state.is_failed() and is_over:
            raise FlowPauseTimeout("Flow run was paused and never resumed.")
        if state.is_final() or state.is_scheduled():
            raise Abort(f"The flow run does not go on here: it is {state.name}.")
        raise RuntimeError(f"Flow run cannot be paused: {state.message or state.name}")

    def _follow(self, message: state_pb2.State) -> State[Any]:
        """The run is in the state that the server tells."""
        state: State[Any] = state_from_proto(message, flow_run_id=self._run.id)
        self._run.state = state
        observers.tell((state_entry(self._run, state),))
        return state

    async def _left(self, paused_id: str) -> State[Any]:
        """Wait until the run is in another state than the paused one.

        The watch tells the present state first, so a resumption before it began is not missed.
        """
        from headrace.client.calls import is_transient  # loads gRPC

        watched = RunFilter(ids=self.context.run_ids, kinds=[RUN_KIND_FLOW])
        while True:
            try:
                async with aclosing(_runs(watched)) as runs:
                    async for run in runs:
                        if run is None:
                            raise Abort("The flow run was deleted.")
                        if run.id == self._run.id and run.state.id != paused_id:
                            return self._follow(run.state)
                        if run.id != self._run.id:
                            self._check_around(run)
            except ServiceError as error:
                if not is_transient(error):
                    raise
                _log.warning("The server cannot be asked whether the run was resumed: %s", error.message)
            await asyncio.sleep(self.poll_interval)

    def _check_around(self, run: Run) -> None:
        type = StateType.from_number(run.state.type) if run.state.type else None
        if type in _CANCELS:
            raise Cancel(f"The flow run {run.name} around it was cancelled.")

    async def hold(self, paused: State[Any]) -> None:
        """Hold tasks back while the run is in a pause that somebody else has asked for."""
        gate = self.context.gate = PauseGate(paused)
        self._run.state = paused
        ended: str | None = "The flow run was paused and did not go on."
        _log.info("Paused from outside: no task begins until the flow run is resumed.")
        try:
            state = await self._left(paused.id)
            if state.is_running() or state.is_paused():
                ended = None
            elif not state.is_cancelling() and self.context.parent is None:
                self.context.lost = f"The flow run does not go on here: it is {state.name}."
        except (Abort, Cancel) as error:
            if self.context.parent is None:
                self.context.lost = str(error)
        finally:
            if self.context.gate is gate:
                self.context.gate = None
            gate.open(ended)


def hold_from_outside(context: FlowRunContext, paused: state_pb2.State) -> None:
    """Have a flow run begin no further task until it is resumed: somebody else has paused it.

    Args:
        context: the run, whose body runs in this process.
        paused: the state that it is in.
    """
    state: State[Any] = state_from_proto(paused, flow_run_id=context.flow_run.id)
    start_in_background(PauseRequest(context, "", None).hold(state))


async def _runs(watched: RunFilter) -> AsyncGenerator[Run | None]:
    """The runs as they are and as they change; None in place of one that was deleted."""
    async with server_for(_WHAT) as client, aclosing(cast("Any", client.watch_runs(watched))) as events:
        async for event in events:
            kind = event.WhichOneof("event")
            if kind == "upsert":
                yield event.upsert
            elif kind == "removed_run_id":
                yield None
