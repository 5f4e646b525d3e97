"""Generator tasks and flows that are called directly: iterators whose run lasts as long as they do.

The engine is the same. Its `drain` suspends with each value, up to the driver in here, which hands the value
to the consumer and goes on when the next one is wanted. Every step is taken in the run's own copy of the
context, so that the consumer does not find itself in the run between two values.
"""

from __future__ import annotations

import contextvars
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import coroutine
from typing import Any, Final

from headrace.context import RunContext, current_run
from headrace.engine.outcome import Outcome
from headrace.exceptions import Cancel
from headrace.execution.blocking import BlockingOps
from headrace.execution.interruption import PassiveScope
from headrace.execution.loop import LoopOps
from headrace.execution.obeying import attended

__all__ = ["EMITTING", "EMITTING_LOOP", "aiterate", "iterate"]


class _Emitted:
    """A value on its way to the consumer."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _ConsumerLeft(BaseException):
    """The consumer wants no more values: the run ends well."""


@coroutine
def _emit(value: Any) -> Generator[_Emitted, Any, Any]:
    return (yield _Emitted(value))


@coroutine
def _pass_on(waits_on: Any) -> Generator[Any, Any, Any]:
    """Suspend as the engine does, on whatever it waits for."""
    return (yield waits_on)


class _EmittingOps(BlockingOps):
    """Hands on the values of a generator, one by one, instead of collecting them."""

    __slots__ = ()

    @property
    def streams(self) -> bool:
        return True

    def interruptible(self, context: RunContext) -> AbstractAsyncContextManager[None]:
        # Between two values, other code runs on this thread.
        return attended(context, PassiveScope())

    async def drain(self, generator: Any) -> Any:
        try:
            value = next(generator)
            while True:
                try:
                    sent = await _emit(value)
                except _ConsumerLeft:
                    generator.close()
                    return None
                except Exception as error:
                    value = generator.throw(error)
                else:
                    reason = _cancel_reason()
                    value = generator.send(sent) if reason is None else generator.throw(Cancel(reason))
        except StopIteration as end:
            return end.value


class _EmittingLoopOps(LoopOps):
    """The same for async generators."""

    __slots__ = ()

    @property
    def streams(self) -> bool:
        return True

    def interruptible(self, context: RunContext) -> AbstractAsyncContextManager[None]:
        # Between two values, other code runs on this thread.
        return attended(context, PassiveScope())

    async def drain(self, generator: Any) -> Any:
        try:
            value = await anext(generator)
            while True:
                try:
                    sent = await _emit(value)
                except _ConsumerLeft:
                    await generator.aclose()
                    return None
                except Exception as error:
                    value = await generator.athrow(error)
                else:
                    reason = _cancel_reason()
                    if reason is not None:
                        value = await generator.athrow(Cancel(reason))
                    else:
                        value = await generator.asend(sent)
        except StopAsyncIteration:
            return None


def _cancel_reason() -> str | None:
    """Why the generator is to end instead of making its next value; None: it is not."""
    context = current_run()
    if context is None or not context.outermost.is_cancelling:
        return None
    return context.cancel_reason()


EMITTING: Final = _EmittingOps()
EMITTING_LOOP: Final = _EmittingLoopOps()


def iterate(run: Coroutine[Any, Any, Outcome], made: Callable[[Any], None]) -> Generator[Any, Any, Any]:
    """The values of a generator body, with the engine around it.

    Args:
        run: the engine over `EMITTING`.
        made: told of each value before the consumer has it.

    Returns:
        What the body returned.

    Raises:
        BaseException: what the body raised.
    """
    context = contextvars.copy_context()
    step = _sender(run, None)
    while True:
        try:
            emitted = context.run(step)
        except StopIteration as end:
            return _value_of(end.value)
        made(emitted.value)
        try:
            sent = yield emitted.value
        except GeneratorExit:
            step = _thrower(run, _ConsumerLeft())
        except Exception as error:
            step = _thrower(run, error)
        else:
            step = _sender(run, sent)


async def aiterate(
    run: Coroutine[Any, Any, Outcome], made: Callable[[Any], None]
) -> AsyncGenerator[Any, Any]:
    """The async twin of `iterate`, over `EMITTING_LOOP`."""
    context = contextvars.copy_context()
    step = _sender(run, None)
    while True:
        try:
            emitted = context.run(step)
        except StopIteration as end:
            _value_of(end.value)
            return
        try:
            if isinstance(emitted, _Emitted):
                made(emitted.value)
                sent = yield emitted.value
            else:
                sent = await _pass_on(emitted)
        except BaseException as error:
            has_left = isinstance(error, GeneratorExit) and isinstance(emitted, _Emitted)
            step = _thrower(run, _ConsumerLeft() if has_left else error)
        else:
            step = _sender(run, sent)


def _thrower(run: Coroutine[Any, Any, Outcome], error: BaseException) -> Callable[[], Any]:
    return lambda: run.throw(error)


def _sender(run: Coroutine[Any, Any, Outcome], value: Any) -> Callable[[], Any]:
    return lambda: run.send(value)


def _value_of(outcome: Outcome) -> Any:
    if outcome.error is not None:
        raise outcome.error
    return outcome.value
