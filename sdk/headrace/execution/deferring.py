"""Task runs that are left to task workers: how they are asked for, and how their results come back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from headrace.client import get_client
from headrace.client.background import run_in_background, start_in_background
from headrace.client.lasting import lasting_client
from headrace.core.errors import ServiceError
from headrace.core.ids import new_id
from headrace.core.states import StateType
from headrace.execution.calls import new_task_call
from headrace.execution.encoding import run_entry, state_from_proto
from headrace.execution.mapping import spread
from headrace.execution.server import recorded_everything, require_server, server_for
from headrace.execution.watching import ended_run
from headrace.futures import HeadraceFuture, HeadraceFutureList
from headrace.results import InlineResult, ResultStore
from headrace.results.payloads import KeptResult
from headrace.runs import Owner, TaskRun
from headrace.serializers import TooLarge
from headrace.states.value import NO_DATA, State, StateDetails
from headrace.upstreams import futures_to
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_RESCHEDULE, Run
from headrace.v1.run_service_pb2 import CreateRunRequest

if TYPE_CHECKING:
    from headrace.tasks import Task

__all__ = ["WAIT_FOR", "HeadraceDistributedFuture", "defer_mapped_task_runs", "defer_task_run"]

R = TypeVar("R", covariant=True)

WAIT_FOR = "wait_for"
"""Beside the arguments, under a name that no parameter can have: what is waited for."""


class HeadraceDistributedFuture(HeadraceFuture[R]):
    """The result of a task run that a task worker executes. It can be pickled, and made from the run's id.

    Equal to every other one of the same run.
    """

    __slots__ = ("_is_watching",)

    def __init__(self, task_run_id: str) -> None:
        super().__init__(TaskRun(task_run_id, "", task_run_id, Owner(task_run_id)))
        self._is_watching = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.task_run_id,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HeadraceDistributedFuture) and other.task_run_id == self.task_run_id

    def __hash__(self) -> int:
        return hash(self.task_run_id)

    @property
    def state(self) -> State[R]:
        """The newest state of the task run, as the server has it.

        Raises:
            ObjectNotFound: the run was deleted.
            ServerUnavailable: there is no server.
        """
        if not self._done:
            self._take(run_in_background(_recorded(self.task_run_id)))
        return cast("State[R]", self._run.state)

    async def wait_async(self, timeout: float | None = None) -> None:
        """`wait`, for code on an event loop."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def wake(_: object) -> None:
            loop.call_soon_threadsafe(ended.set)

        if self._call_later(wake):
            try:
                async with asyncio.timeout(timeout):
                    await ended.wait()
            except TimeoutError:
                return
            finally:
                self.forget(wake)
        self.wait()

    async def result_async(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """`result`, for code on an event loop; see there what is raised."""
        await self.wait_async(timeout)
        # Reading a value that is kept elsewhere blocks.
        return await asyncio.to_thread(self.result, 0, raise_on_failure)

    def _call_later(self, fn: Any) -> bool:
        is_waiting = super()._call_later(fn)
        with self._lock:
            begins, self._is_watching = is_waiting and not self._is_watching, True
        if begins:
            start_in_background(self._watch())
        return is_waiting

    async def _watch(self) -> None:
        try:
            async with server_for("Waiting for a task run") as client:
                self._take(await ended_run(client, self.task_run_id))
        except ServiceError as error:
            self._exit = error
        self.finish()

    def _take(self, recorded: Run) -> None:
        self._run.name = recorded.name
        self._run.state = state_from_proto(recorded.state, task_run_id=recorded.id)


async def _recorded(run_id: str) -> Run:
    async with get_client() as client:
        return await client.get_run(run_id)


def defer_task_run(
    task: Task[..., Any],
    parameters: Mapping[str, Any],
    wait_for: Any = None,
    dependencies: Mapping[str, list[str]] | None = None,
) -> HeadraceDistributedFuture[Any]:
    """Have a task worker run a task; see `Task.apply_async`."""
    call = new_task_call(task, parameters, wait_for, is_step=False)
    run = call.context.task_run
    edges = {name: list(ids) for name, ids in run.inputs.items()}
    for name, run_ids in (dependencies or {}).items():
        edges[name] = list(dict.fromkeys([*edges.get(name, ()), *run_ids]))
    given: dict[str, Any] = futures_to(dict(parameters), _distributed)
    if wait_for is not None:
        given[WAIT_FOR] = futures_to(wait_for, _distributed)
    # Its own owner: it outlives the run that asks for it, and is guarded by a fence of its own.
    run.owner, run.parameters, run.inputs = Owner(run.id), {}, edges
    details = StateDetails(task_run_id=run.id, scheduled_time=datetime.now(UTC), deferred=True)
    message = run_entry(run, State(StateType.SCHEDULED, state_details=details, data=NO_DATA)).run
    message.state.scheduled.deferred = True
    message.ClearField("attempt")
    message.ClearField("fence")
    message.retry_policy.on_lost = LOST_ATTEMPT_POLICY_RESCHEDULE
    _payload(task, given).put_in(message.parameters)
    run_in_background(_create(message, has_caller=call.context.parent is not None))
    return HeadraceDistributedFuture(run.id)


def defer_mapped_task_runs(
    task: Task[..., Any], given: Mapping[str, Any], wait_for: Any = None
) -> HeadraceFutureList[Any]:
    """Have task workers run a task once for each item of what is spread; see `Task.map`.

    Args:
        task: the task.
        given: the arguments as `task.binder.bind_given` gives them.
        wait_for: futures and states that must complete first, in any collection.
    """
    calls = spread(task.binder.signature, given)
    return HeadraceFutureList(
        [defer_task_run(task, task.binder.complete(call), wait_for, calls.edges) for call in calls.calls]
    )


def _distributed(future: HeadraceFuture[Any]) -> HeadraceDistributedFuture[Any]:
    """A future that another process can wait for."""
    if isinstance(future, HeadraceDistributedFuture):
        return future
    return HeadraceDistributedFuture(future.task_run_id)


def _payload(task: Task[..., Any], given: Mapping[str, Any]) -> InlineResult | KeptResult:
    """The arguments as they travel: in the record, or in the storage of the task's results."""
    try:
        return InlineResult.of(given)
    except TooLarge:
        store = ResultStore().update_for_task(task)
        record = store.create_result_record(given, f"parameters/{new_id()}")
        return store.persist_result_record(record)


async def _create(message: Run, *, has_caller: bool) -> None:
    require_server("A background task")
    async with lasting_client() as client:
        if has_caller:
            # The server has to know the run that asks for it.
            await recorded_everything()
        await client.create_run(CreateRunRequest(run=message))
