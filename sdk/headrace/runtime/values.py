"""Values that are others each time, but for the body of a durable flow that is run again.

There, each call is a step like the call of a task, and is on record as one; elsewhere it is just the value.
"""

from __future__ import annotations

import random as _random
import uuid as _uuid
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from headrace.context import current_run
from headrace.core.clock import from_micros
from headrace.core.passing import passing_time

__all__ = ["now", "random", "uuid"]

T = TypeVar("T")


def now() -> datetime:
    """The time, aware and in UTC. In a durable flow, and its tasks: the time of the first try."""
    return _recorded(_now)


def uuid() -> _uuid.UUID:
    """A random UUID. In a durable flow, and its tasks: the one of the first try."""
    return _recorded(_uuid4)


def random() -> float:
    """A random number from 0 to below 1. In a durable flow, and its tasks: the one of the first try."""
    return _recorded(_number)


def _recorded(value: Callable[[], T]) -> T:
    context = current_run()
    if context is None or context.steps is None:
        return value()
    found: T = _step(value)()
    return found


@cache
def _step(value: Callable[[], Any]) -> Any:
    """The task that gives the value. Two calls are never the same call: that would be one value for both."""
    from headrace.cache_policies import NO_CACHE
    from headrace.tasks import task

    return task(name=f"runtime.{value.__name__.strip('_')}", cache_policy=NO_CACHE, retries=0)(value)


def _now() -> datetime:
    return from_micros(passing_time().now())


def _uuid4() -> _uuid.UUID:
    return _uuid.uuid4()


def _number() -> float:
    return _random.random()
