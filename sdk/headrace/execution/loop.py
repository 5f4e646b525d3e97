"""`Ops` for coroutines: they suspend, on the caller's own event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from headrace.core.passing import passing_time
from headrace.core.verdicts import Verdict
from headrace.engine.api import Upstream
from headrace.execution.encoding import state_entry
from headrace.execution.interruption import LoopScope
from headrace.execution.obeying import attended
from headrace.execution.recording import Recording, decoded
from headrace.futures import current_helper
from headrace.recorder import get_recorder
from headrace.runs import FlowRun, TaskRun
from headrace.states import State

if TYPE_CHECKING:
    from headrace.context import RunContext
    from headrace.results import ResultStore
    from headrace.task_runners import TaskRunner

__all__ = ["LOOP", "LoopOps"]


class LoopOps(Recording):
    """Suspends the calling coroutine wherever something has to be waited for."""

    __slots__ = ()

    async def propose(self, run: FlowRun | TaskRun, state: State[Any]) -> Verdict[State[Any]]:
        verdict = await asyncio.wrap_future(get_recorder().propose(state_entry(run, state)))
        return decoded(verdict, run, state)

    async def settle(self, run: FlowRun | TaskRun) -> None:
        recorder = get_recorder()
        await asyncio.wrap_future(recorder.durable(recorder.last_seq))

    async def sleep(self, seconds: float) -> None:
        seconds = passing_time().to_wait(seconds)
        helper = current_helper()
        await (asyncio.sleep(seconds) if helper is None else helper.asleep(seconds))

    async def wait(self, upstreams: Iterable[Upstream]) -> None:
        loop = asyncio.get_running_loop()
        for upstream in upstreams:
            ended = loop.create_future()

            def wake(_: object, ended: asyncio.Future[None] = ended) -> None:
                loop.call_soon_threadsafe(_set, ended)

            upstream.add_done_callback(wake)
            await ended

    async def leave(self, runner: TaskRunner[Any], error: BaseException | None) -> None:
        # In a thread, because tasks of the runner may live on this very loop.
        kind = None if error is None else type(error)
        await asyncio.to_thread(runner.__exit__, kind, error, None)

    async def call(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = fn(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    async def offload(self, fn: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.to_thread(fn, *args)

    async def lock(self, store: ResultStore, key: str, holder: str) -> None:
        await store.aacquire_lock(key, holder)

    async def finish(self, awaitable: Any) -> Any:
        return await awaitable

    async def drain(self, generator: Any) -> list[Any]:
        if hasattr(generator, "__aiter__"):
            return [item async for item in generator]
        return list(generator)

    def interruptible(self, context: RunContext) -> AbstractAsyncContextManager[None]:
        return attended(context, LoopScope(context))

    def limit(
        self, seconds: float, error: TimeoutError, passed: Callable[[], object] | None = None
    ) -> LoopLimit:
        return LoopLimit(seconds, error)


LOOP = LoopOps()
"""They hold nothing, so one is enough."""


def _set(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


class LoopLimit:
    """Cancels the calling task once its time is up, and turns the cancellation into `error`."""

    def __init__(self, seconds: float, error: TimeoutError) -> None:
        self._error = error
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise self._error from None
        if error is None and self._timeout.expired():
            raise self._error
