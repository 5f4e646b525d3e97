"""Stepping the engine from plain functions."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_now"]

R = TypeVar("R")


def run_now(coro: Coroutine[Any, Any, R]) -> R:
    """Step a coroutine that never suspends, in the caller's own thread and context.

    Raises:
        RuntimeError: the coroutine suspends, which means that its ops do not block.
    """
    try:
        coro.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    waits_on = getattr(coro, "cr_await", None)
    coro.close()
    raise RuntimeError(f"blocking ops must not suspend, yet the engine waits on {waits_on!r}")
