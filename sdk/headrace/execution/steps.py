"""Steps of earlier passes: read from the server, and kept in memory for the next pass of this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, cast

from headrace.client import get_client
from headrace.client.background import run_in_background
from headrace.core.states import StateType
from headrace.engine.steps import KnownStep, is_lost, is_usable
from headrace.exceptions import MissingResult
from headrace.execution.encoding import state_entry, state_from_proto
from headrace.results import StoredResult
from headrace.runs import FlowRun, TaskRun
from headrace.v1 import state_pb2

if TYPE_CHECKING:
    from headrace.states import State
    from headrace.v1.run_service_pb2 import RunStep

__all__ = ["ServerSteps"]

_DATA_BYTES: Final = 4096
"""Larger results stay on the server until they are asked for."""
_MEMORY_BYTES: Final = 64 * 1024 * 1024
"""So much of results is held; what is beyond is asked for one by one."""
_NOTHING: Final = "its result was not recorded (persist_result=False, or a value that cannot be serialised)"


class ServerSteps:
    """The steps of one run that was started on its own.

    Args:
        run_id: the run.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._held_bytes = 0

    def load(self) -> Iterable[tuple[str, KnownStep]]:
        return run_in_background(self._all())

    async def _all(self) -> list[tuple[str, KnownStep]]:
        found: list[tuple[str, KnownStep]] = []
        callers: dict[str, str] = {}  # one text for all the steps of a caller, and of a task
        async with get_client() as client, aclosing(self._steps(client)) as steps:
            async for step in steps:
                found.append((step.step_key, self._known(step, callers)))
        return found

    async def _steps(self, client: Any) -> AsyncGenerator[RunStep]:
        async for step in client.iter_run_steps(self._run_id, max_data_bytes=_DATA_BYTES):
            yield cast("RunStep", step)

    def _known(self, step: RunStep, texts: dict[str, str]) -> KnownStep:
        state = step.state
        type = StateType.from_number(state.type).value if state.type else ""
        is_completed = is_usable(type, state.name)
        is_elsewhere = step.data_left_out or state.data.WhichOneof("body") == "blob"
        if self._held_bytes > _MEMORY_BYTES and state.data.inline:
            state.ClearField("data")
            is_elsewhere = True
        body = state.SerializeToString() if is_completed else b""
        self._held_bytes += len(body)
        return KnownStep(
            run_id=step.run_id,
            name=step.name,
            caller=texts.setdefault(step.parent_run_id, step.parent_run_id),
            code_key=texts.setdefault(step.code_key, step.code_key),
            is_completed=is_completed,
            run_count=step.run_count,
            start_micros=step.start_time.ToMicroseconds(),
            end_micros=step.end_time.ToMicroseconds(),
            state=body,
            is_elsewhere=is_elsewhere,
            is_committed=step.committed,
            is_lost=is_lost(type, state.name, step.run_count),
        )

    def kept(self, run: FlowRun | TaskRun, state: State[Any]) -> tuple[bytes, bool]:
        message = state_entry(run, state).state.state
        return message.SerializeToString(), message.data.WhichOneof("body") == "blob"

    def read(self, known: KnownStep) -> State[Any]:
        message = state_pb2.State.FromString(known.state)
        if known.is_elsewhere and not message.HasField("data"):
            message = run_in_background(_state_of(known.run_id))
        state: State[Any] = state_from_proto(message, task_run_id=known.run_id)
        if not message.HasField("data"):
            raise MissingResult(_NOTHING)
        return state.with_data(StoredResult(message.data).load())


async def _state_of(run_id: str) -> state_pb2.State:
    async with get_client() as client:
        return (await client.get_run(run_id)).state
