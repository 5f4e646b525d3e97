"""Hooks: functions of the author that are called when a run has entered a state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from headrace.decorated import callable_name

if TYPE_CHECKING:
    from headrace.engine.api import Ops
    from headrace.states import State

__all__ = ["run_hooks"]


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
