"""The same body as a plain function and as a coroutine function."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["KINDS", "call", "of_kind"]

KINDS = ["def", "async def"]


def of_kind(kind: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, a plain function, or a coroutine function that does the same."""
    if kind == "def":
        return fn

    @functools.wraps(fn)
    async def body(*args: Any, **kwargs: Any) -> Any:
        result = fn(*args, **kwargs)
        return await result if inspect.iscoroutine(result) else result

    return body


def call(subject: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a flow or task of either kind to its end, outside of any loop."""
    result = subject(*args, **kwargs)
    return asyncio.run(result) if inspect.iscoroutine(result) else result
