"""Telling the end that somebody has asked for from all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.exceptions import Cancel

if TYPE_CHECKING:
    from headrace.context import RunContext
    from headrace.engine.api import Ops

__all__ = ["is_cancellation"]


def is_cancellation(ops: Ops, context: RunContext, error: BaseException) -> bool:
    """Whether `error` ends the run of `context` because that, or a run around it, is being cancelled."""
    if isinstance(error, Cancel):
        return True
    # A signal, too: whoever executes the process tells it what is wanted, then asks it to end.
    return context.cancel_reason() is not None and ops.is_interruption(error)
