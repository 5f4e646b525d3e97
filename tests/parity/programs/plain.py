"""From what a program sees to JSON."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

BASES = (TypeError, ValueError, RuntimeError, TimeoutError, KeyError, AttributeError)


def plain(value: Any) -> Any:
    """`value` as JSON can hold it; states, futures and exceptions by what users know of them."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, BaseException):
        return {"exception": type(value).__name__, "text": str(value)}
    if hasattr(value, "is_completed") and hasattr(value, "state_details"):
        return {"state": [value.type.value, value.name]}
    if hasattr(value, "task_run_id") and hasattr(value, "add_done_callback"):
        return {"future": [value.state.type.value, value.state.name]}
    if hasattr(value, "unwrap"):
        return {"annotation": type(value).__name__}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return {"set": sorted((plain(item) for item in value), key=str)}
    if isinstance(value, tuple):
        return {"tuple": [plain(item) for item in value]}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {"object": type(value).__name__}


def ended(state: Any, *, message: bool = True) -> Any:
    """Type, name and message of a state, and what its result is."""
    facts = [state.type.value, state.name]
    return [*facts, state.message] if message else facts


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, or the kind of what it raises: `[class, the built-in classes it also is]`."""
    try:
        value = call()
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
    except BaseException as error:
        public = next(kind.__name__ for kind in type(error).__mro__ if not kind.__name__.startswith("_"))
        return {"raised": [public, [base.__name__ for base in BASES if isinstance(error, base)]]}
    return plain(value)
