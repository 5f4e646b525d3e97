"""Functions that talk with a server, for plain code and for coroutines alike."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from headrace.client.background import run_in_background
from headrace.context import FlowRunContext, current_run
from headrace.states.value import in_running_loop

__all__ = ["dispatched"]

T = TypeVar("T")


def dispatched(coro: Coroutine[Any, Any, T]) -> T:
    """What a function gives that plain code calls and coroutines await.

    Returns:
        The coroutine itself where an event loop runs, unless the innermost run is a plain function; else
        its result.
    """
    return cast("T", coro) if _is_async_here() else run_in_background(coro)


def _is_async_here() -> bool:
    if not in_running_loop():
        return False
    context = current_run()
    if context is None:
        return True
    return context.flow.isasync if isinstance(context, FlowRunContext) else context.task.isasync
