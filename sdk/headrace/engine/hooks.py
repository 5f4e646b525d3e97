"""Hooks: functions of the author that are called when a run has entered a state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.engine.api import Ops
    from headrace.states import State

__all__ = ["callable_name", "run_hooks"]


async def run_hooks(
    ops: Ops,
    log: logging.Logger,
    hooks: Sequence[Callable[..., Any]],
    subject: Any,
    run: Any,
    state: State[Any],
) -> None:
    """Call each hook with the flow or task, its run and the state, one after the other.

    One that raises is logged; the others are called all the same, and the state stays.
    """
    for hook in hooks:
        name = callable_name(hook)
        try:
            log.debug("Running hook %r in response to entering state %r", name, state.name)
            await ops.call(hook, subject, run, state)
        except Exception:
            log.error("An error was encountered while running hook %r", name, exc_info=True)


def callable_name(fn: Any) -> str:
    """A name for people; also for partials and callable objects."""
    inner = fn
    while hasattr(inner, "func"):
        inner = inner.func
    return str(getattr(inner, "__name__", None) or type(inner).__name__)
