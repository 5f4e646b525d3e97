"""`Ops` for plain functions: they block."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from headrace.core.passing import passing_time
from headrace.core.verdicts import Verdict
from headrace.engine.api import Upstream
from headrace.execution.encoding import state_entry
from headrace.execution.interruption import ThreadScope
from headrace.execution.obeying import attended
from headrace.execution.recording import Recording, decoded
from headrace.execution.timeouts import AlarmLimit, ThreadLimit, blocking_limit
from headrace.futures import current_helper
from headrace.recorder import get_recorder
from headrace.runs import FlowRun, TaskRun
from headrace.states.value import State, in_running_loop

if TYPE_CHECKING:
    from headrace.context import RunContext
    from headrace.results import ResultStore
    from headrace.task_runners import TaskRunner

__all__ = ["BLOCKING", "BlockingOps", "run_coroutine"]


class BlockingOps(Recording):
    """Blocks the calling thread wherever something has to be waited for."""

    __slots__ = ()

    async def propose(self, run: FlowRun | TaskRun, state: State[Any]) -> Verdict[State[Any]]:
        return decoded(get_recorder().propose(state_entry(run, state)).result(), run, state)

    async def settle(self, run: FlowRun | TaskRun) -> None:
        recorder = get_recorder()
        recorder.durable(recorder.last_seq).result()

    async def sleep(self, seconds: float) -> None:
        seconds = passing_time().to_wait(seconds)
        helper = current_helper()
        if helper is not None:
            helper.sleep(seconds)
        else:
            time.sleep(seconds)  # noqa: ASYNC251 - blocking is what these ops are for

    async def wait(self, upstreams: Iterable[Upstream]) -> None:
        for upstream in upstreams:
            upstream.join()

    async def leave(self, runner: TaskRunner[Any], error: BaseException | None) -> None:
        runner.__exit__(None if error is None else type(error), error, None)

    async def call(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = fn(*args, **kwargs)
        return await self.finish(result) if inspect.isawaitable(result) else result

    async def offload(self, fn: Callable[..., Any], *args: Any) -> Any:
        return fn(*args)

    async def lock(self, store: ResultStore, key: str, holder: str) -> None:
        store.acquire_lock(key, holder)

    async def finish(self, awaitable: Any) -> Any:
        return run_coroutine(_awaited(awaitable))

    async def drain(self, generator: Any) -> list[Any]:
        if hasattr(generator, "__aiter__"):
            return list(run_coroutine(_collected(generator)))
        return list(generator)

    def interruptible(self, context: RunContext) -> AbstractAsyncContextManager[None]:
        return attended(context, ThreadScope(context))

    def limit(
        self, seconds: float, error: TimeoutError, passed: Callable[[], object] | None = None
    ) -> AlarmLimit | ThreadLimit:
        return blocking_limit(seconds, error, passed)


BLOCKING = BlockingOps()
"""They hold nothing, so one is enough."""


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


async def _collected(generator: Any) -> list[Any]:
    return [item async for item in generator]


def run_coroutine(coro: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end from a plain function, on a loop of its own.

    Where a loop runs in this thread already, it is run in another thread, in a copy of this context.
    """
    if not in_running_loop():
        return asyncio.run(coro)
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(asyncio.run(coro))
        except BaseException as error:
            done.set_exception(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="headrace-coroutine")
    thread.start()
    try:
        return done.result()
    finally:
        thread.join()
