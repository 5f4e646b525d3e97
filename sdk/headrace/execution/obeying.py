"""Doing what others want of a run while it is executed: the server says it, on the runtime thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final

from headrace.context import CANCEL_SECONDS, FlowRunContext
from headrace.execution.encoding import state_from_proto
from headrace.execution.pausing import hold_from_outside
from headrace.recorder import get_recorder

if TYPE_CHECKING:
    from headrace.context import RunContext
    from headrace.v1.record_service_pb2 import RunDirective

__all__ = ["attended", "attending"]

_LEAST_SECONDS: Final = 1.0


@contextmanager
def attending(context: RunContext) -> Generator[None]:
    """While inside, the run of `context` is cancelled and paused when others want that."""
    run_id = context.run_ids[-1]
    recorder, here = get_recorder(), copy_context()

    def told(directive: RunDirective) -> None:
        # Not on the thread that records: what is done now may have to be recorded. In the run's own context.
        obey = partial(here.copy().run, _obey, context, directive)
        threading.Thread(target=obey, name="headrace-told", daemon=True).start()

    recorder.attend(run_id, told)
    try:
        yield
    finally:
        recorder.leave(run_id)


class attended:
    """`attending`, with the scope that makes it possible to obey."""

    __slots__ = ("_attending", "_scope")

    def __init__(self, context: RunContext, scope: AbstractAsyncContextManager[None]) -> None:
        self._attending = attending(context)
        self._scope = scope

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()
        self._attending.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._attending.__exit__(None, None, None)
        await self._scope.__aexit__(kind, error, trace)


def _obey(context: RunContext, directive: RunDirective) -> None:
    if directive.HasField("cancel"):
        _cancel(context, directive)
    elif isinstance(context, FlowRunContext) and directive.HasField("pause"):
        is_known = context.gate is not None or context.own_pause == directive.state.id
        if not is_known:
            hold_from_outside(context, directive.state)


def _cancel(context: RunContext, directive: RunDirective) -> None:
    if context.cancelled is not None:
        return  # told again while it ends
    if isinstance(context, FlowRunContext):
        context.flow_run.state = state_from_proto(directive.state, flow_run_id=context.flow_run.id)
        context.cancel_seconds = _patience_seconds(directive)
    context.cancel(directive.state.message)


def _patience_seconds(directive: RunDirective) -> float:
    """Half of the time that is left: the other half is for the hooks."""
    if not directive.cancel.HasField("deadline"):
        return CANCEL_SECONDS
    left = directive.cancel.deadline.ToMicroseconds() / 1e6 - time.time()
    return max(left / 2, _LEAST_SECONDS)
