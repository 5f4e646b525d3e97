"""One engine: stepped in place by plain functions and awaited by coroutines, it records the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace import flow, task
from headrace.cache_policies import NO_CACHE
from headrace.execution import blocking, loop
from headrace.recorder import process
from headrace.states import Cancelled, Completed, Crashed, Failed, Paused, Pending, Running
from tests.support.recorders import MemoryRecorder


class Stop(BaseException):
    pass


@dataclass(frozen=True)
class Attempt:
    """What one call of a body does.

    Attributes:
        outcome: what it returns or raises.
        subtasks: outcomes of tasks that it calls first, their failures swallowed.
    """

    outcome: str
    subtasks: tuple[str, ...] = ()


OUTCOMES: dict[str, Callable[[], Any]] = {
    "value": lambda: 5,
    "none": lambda: None,
    "completed": lambda: Completed(name="Skipped", data=1),
    "failed": lambda: Failed(message="by hand"),
    "cancelled": lambda: Cancelled(),
    "crashed": lambda: Crashed(),
    "paused": lambda: Paused(),
    "running": lambda: Running(),
    "states": lambda: [Completed(), Failed(), Pending()],
    "all completed": lambda: (Completed(), Completed()),
    "error": lambda: throw(ValueError("no")),
    "timeout": lambda: throw(TimeoutError("slow")),
    "stop": lambda: throw(Stop()),
}


def throw(error: BaseException) -> None:
    raise error


SURVIVABLE = sorted(set(OUTCOMES) - {"stop"})
attempts = st.builds(
    Attempt,
    st.sampled_from(sorted(OUTCOMES)),
    st.lists(st.sampled_from(SURVIVABLE), max_size=2).map(tuple),
)
options = st.fixed_dictionaries(
    {"retries": st.integers(0, 3)},
    optional={"retry_delay_seconds": st.sampled_from([0, 3]), "persist_result": st.booleans()},
)


class Bodies:
    """Plays the attempts one after the other; the last one repeats."""

    def __init__(self, played: list[Attempt]) -> None:
        self.played = played
        self.calls = 0
        self.hooks: list[str] = []

    def next(self) -> Attempt:
        self.calls += 1
        return self.played[min(self.calls, len(self.played)) - 1]

    def hook(self, _: Any, run: Any, state: Any) -> None:
        self.hooks.append(f"{state.name} {run.run_count}")


def sync_subject(decorate: Any, bodies: Bodies, given_options: dict[str, Any]) -> Callable[[], Any]:
    def body() -> Any:
        attempt = bodies.next()
        for outcome in attempt.subtasks:
            task(OUTCOMES[outcome], name="sub", cache_policy=NO_CACHE)(return_state=True)
        return OUTCOMES[attempt.outcome]()

    return lambda: decorate(body, name="it", **given_options)(return_state=True)


def async_subject(decorate: Any, bodies: Bodies, given_options: dict[str, Any]) -> Callable[[], Any]:
    def suspending(outcome: str) -> Callable[[], Any]:
        async def body() -> Any:
            await asyncio.sleep(0)
            return OUTCOMES[outcome]()

        return body

    async def body() -> Any:
        attempt = bodies.next()
        for outcome in attempt.subtasks:
            await task(suspending(outcome), name="sub", cache_policy=NO_CACHE)(return_state=True)
        return OUTCOMES[attempt.outcome]()

    return lambda: asyncio.run(decorate(body, name="it", **given_options)(return_state=True))


def history(
    make: Any, decorate: Any, played: list[Attempt], given_options: dict[str, Any]
) -> tuple[Any, ...]:
    """Everything that an observer can tell of one execution."""
    recorder, bodies = MemoryRecorder(), Bodies(played)
    hooks = {f"on_{word}": [bodies.hook] for word in ("running", "completion", "failure")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "current", lambda: recorder)

        async def sleep(_: Any, seconds: float) -> None:
            bodies.hooks.append(f"slept {seconds}")

        patch.setattr(blocking.BlockingOps, "sleep", sleep)
        patch.setattr(loop.LoopOps, "sleep", sleep)
        try:
            end = str(make(decorate, bodies, given_options | hooks)())
        except Stop:
            end = "stopped"
    transitions = [
        (run.run.task_name or run.run.flow_name, state.name, state.type, state.message, state.data.encoding)
        for run in recorder.runs
        for state in run.states
    ]
    order = [entry.WhichOneof("kind") for entry in recorder.entries]
    return end, transitions, order, bodies.hooks, bodies.calls


@pytest.mark.parametrize("decorate", [task, flow])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(played=st.lists(attempts, min_size=1, max_size=4), given_options=options)
def test_both_drivers_record_the_same(
    decorate: Any, played: list[Attempt], given_options: dict[str, Any]
) -> None:
    plain = history(sync_subject, decorate, played, given_options)
    suspended = history(async_subject, decorate, played, given_options)
    assert plain == suspended
