"""Assertions whose failure says what there was instead."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from headrace.core.states import StateType
from headrace.states import State

__all__ = ["assert_does_not_warn", "assert_state"]


def assert_state(
    state: State[Any],
    type: StateType | str,
    *,
    name: str | None = None,
    message: str | None = None,
    message_contains: str | None = None,
) -> None:
    """Assert what a state is.

    Args:
        state: as `return_state=True` or a future's `.state` gives it.
        type: its type: a `StateType`, or the word in any case ("failed").
        name: its name, e.g. "TimedOut".
        message: its whole message.
        message_contains: a part of its message.

    Raises:
        AssertionError: with the whole state, and with the traceback of a failure that was not expected.
        ValueError: `type` is the name of no state type.
    """
    expected = StateType(type.upper())
    differences: list[str] = []
    if state.type is not expected:
        differences.append(f"its type is {state.type.name}, not {expected.name}")
    if name is not None and state.name != name:
        differences.append(f"its name is {state.name!r}, not {name!r}")
    if message is not None and state.message != message:
        differences.append(f"its message is {state.message!r}, not {message!r}")
    if message_contains is not None and message_contains not in (state.message or ""):
        differences.append(f"its message does not contain {message_contains!r}")
    if differences:
        raise AssertionError(f"{state!r}: {', and '.join(differences)}") from _cause(state)


def _cause(state: State[Any]) -> BaseException | None:
    data = state.data
    return data if isinstance(data, BaseException) else None


@contextmanager
def assert_does_not_warn(
    ignore_warnings: list[type[Warning]] | None = None,
) -> Generator[None]:
    """Assert that nothing inside gives a warning.

    Args:
        ignore_warnings: categories that may come.

    Raises:
        AssertionError: at the first warning, which is its cause.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for category in ignore_warnings or ():
            warnings.simplefilter("ignore", category)
        try:
            yield
        except Warning as warning:
            raise AssertionError(f"A warning was given: {warning!r}") from warning
