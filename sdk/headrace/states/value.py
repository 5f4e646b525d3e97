"""One state: its type, name and details, and what it says about a run's result."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeGuard, cast, overload

from headrace.core.clock import from_micros, to_micros
from headrace.core.ids import new_id
from headrace.core.states import FINAL, StateType, default_name
from headrace.exceptions import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    MissingResult,
    PausedRun,
    UnfinishedRun,
)
from headrace.results import InlineResult, KeptResult, StoredResult
from headrace.utilities.typevars import TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "NO_DATA",
    "State",
    "StateDetails",
    "aget_state_exception",
    "araise_state_exception",
    "get_state_exception",
    "in_running_loop",
    "is_state",
    "is_state_iterable",
    "raise_state_exception",
]

R = TypeVar("R", default=Any, covariant=True)


class _NoData:
    """Marks the absence of data, which is not the same as data that is None."""

    def __repr__(self) -> str:
        return "<no data>"

    def __reduce__(self) -> str:
        return "NO_DATA"


NO_DATA: Final = _NoData()


@dataclass(slots=True)
class StateDetails:
    """What a state says besides its type, name and message.

    Attributes:
        flow_run_id: the flow run that the state belongs to; empty for a state made by hand.
        task_run_id: the task run that the state belongs to.
        child_flow_run_id: the flow run that a task run stands for.
        scheduled_time: when the run is to start; set for SCHEDULED states, and only for them.
        cache_key: the key under which the result may be used again.
        cache_expiration: until when.
        pause_timeout: when a pause ends by itself.
        pause_reschedule: whether the process leaves during the pause.
        pause_key: which pause of the run this is.
        run_input_keyset: where the input of a paused run is kept.
        retriable: False when a retry condition has said no; None when nobody was asked.
        deferred: whether the task run waits for a task worker.
        task_parameters_id: where the parameters of a deferred task run are kept.
        traceparent: W3C trace context of the run.
        transition_id: identity of the transition into the state.
        untrackable_result: whether the result has no identity, so that no edge leads from the run to another
            one that is given it by value.
        returned_state: whether the body of the task returned a state, which is what its caller got.
        left_to: to whom a process that has to end leaves its run: `server`, for the next attempt, or
            `infrastructure`, which starts the same one again; of states that it proposes.
        producer_run_id: of a result from the cache: the task run that has computed it; None: not known.
    """

    flow_run_id: str | None = None
    task_run_id: str | None = None
    child_flow_run_id: str | None = None
    scheduled_time: datetime | None = None
    cache_key: str | None = None
    cache_expiration: datetime | None = None
    pause_timeout: datetime | None = None
    pause_reschedule: bool = False
    pause_key: str | None = None
    run_input_keyset: dict[str, str] | None = None
    retriable: bool | None = None
    deferred: bool = False
    task_parameters_id: str | None = None
    traceparent: str | None = None
    transition_id: str | None = None
    untrackable_result: bool = False
    returned_state: bool = False
    producer_run_id: str | None = None
    left_to: Literal["", "server", "infrastructure"] = ""


class State(Generic[R]):
    """One state of a run. Treat it as immutable.

    Attributes:
        id: UUIDv7; the same id recorded twice is the same state.
        type: what kind of state it is.
        name: its label; the type's own name unless told otherwise.
        message: a sentence for people, or None.
        state_details: what else there is to say.
        kept: the data as the record tells of it, once it has been encoded or written to storage.
    """

    __slots__ = ("_data", "_micros", "id", "kept", "message", "name", "state_details", "type")

    def __init__(
        self,
        type: StateType | str,
        name: str | None = None,
        *,
        message: str | None = None,
        data: Any = NO_DATA,
        state_details: StateDetails | None = None,
        timestamp: datetime | None = None,
        id: str | None = None,
    ) -> None:
        """A state.

        Args:
            type: the kind of state, or its name.
            name: a label; default: the type in title case.
            message: a sentence for people.
            data: the result, the exception or other states. Not given is not the same as None.
            state_details: what else there is to say.
            timestamp: aware; default: now.
            id: a UUID; default: a new one.

        Raises:
            ValueError: there is no such type, or `timestamp` has no time zone.
        """
        self.type: StateType = type if isinstance(type, StateType) else StateType(type)
        self.name: str = name or default_name(self.type)
        self.message: str | None = message
        self._data: Any = data
        self.kept: InlineResult | KeptResult | None = None
        self._micros: int = time.time_ns() // 1000 if timestamp is None else to_micros(timestamp)
        self.id: str = id or new_id()
        self.state_details: StateDetails = _consistent(
            self.type, state_details or StateDetails(), self._micros
        )

    @classmethod
    def at(
        cls,
        micros: int,
        type: StateType,
        name: str,
        details: StateDetails,
        message: str | None = None,
        data: Any = NO_DATA,
    ) -> State[Any]:
        """The state of a run at the instant `micros`, with nothing checked: what an engine makes."""
        state: State[Any] = cls.__new__(cls)
        state.id = new_id()
        state.type = type
        state.name = name
        state.message = message
        state._data = data
        state.kept = None
        state._micros = micros
        state.state_details = details
        return state

    @property
    def timestamp(self) -> datetime:
        """When the run entered the state, by the clock of who wrote it; aware UTC."""
        return from_micros(self._micros)

    @property
    def micros(self) -> int:
        """`timestamp` in microseconds since 1970-01-01 UTC."""
        return self._micros

    @property
    def has_data(self) -> bool:
        """Whether there is data; data may be None."""
        return self._data is not NO_DATA

    @property
    def data(self) -> Any:
        """The result, the exception or other states; None also when there is no data (see `has_data`)."""
        return None if self._data is NO_DATA else self._data

    def is_scheduled(self) -> bool:
        """Whether the type is SCHEDULED."""
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        """Whether the type is PENDING."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Whether the type is RUNNING."""
        return self.type is StateType.RUNNING

    def is_completed(self) -> bool:
        """Whether the type is COMPLETED."""
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        """Whether the type is FAILED."""
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        """Whether the type is CRASHED."""
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        """Whether the type is CANCELLED."""
        return self.type is StateType.CANCELLED

    def is_cancelling(self) -> bool:
        """Whether the type is CANCELLING."""
        return self.type is StateType.CANCELLING

    def is_paused(self) -> bool:
        """Whether the type is PAUSED."""
        return self.type is StateType.PAUSED

    def is_final(self) -> bool:
        """Whether a run in this state has ended."""
        return self.type in FINAL

    @overload
    def result(
        self: State[R],
        raise_on_failure: Literal[True] = True,
        retry_result_failure: bool = True,
        *,
        _sync: bool | None = None,
    ) -> R: ...
    @overload
    def result(
        self: State[R],
        raise_on_failure: bool,
        retry_result_failure: bool = True,
        *,
        _sync: bool | None = None,
    ) -> R | BaseException: ...
    def result(
        self,
        raise_on_failure: bool = True,
        retry_result_failure: bool = True,
        *,
        _sync: bool | None = None,
    ) -> Any:
        """The result of the run.

        Inside a running event loop this is an awaitable of the result, as `aresult` is; `_sync=True` asks
        for the value itself anywhere.

        Args:
            raise_on_failure: raise the exception of a run that did not complete; else return it.
            retry_result_failure: ask an object store again, for less than a second, that does not have it.

        Raises:
            PausedRun: the run is paused.
            UnfinishedRun: the run has not ended.
            MissingResult: the run completed, and its result was not recorded, or is not in storage any more.
            SerializationError: what is recorded cannot be read here.
            OSError: the storage cannot be reached.
            BaseException: the run did not complete: its exception, or `FailedRun`, `CrashedRun`,
                `CancelledRun` when it left none.
        """
        if _sync is None and in_running_loop():
            return self.aresult(raise_on_failure, retry_result_failure)
        return _result(self, raise_on_failure, retry_result_failure)

    @overload
    async def aresult(
        self: State[R], raise_on_failure: Literal[True] = True, retry_result_failure: bool = True
    ) -> R: ...
    @overload
    async def aresult(
        self: State[R], raise_on_failure: bool, retry_result_failure: bool = True
    ) -> R | BaseException: ...
    async def aresult(self, raise_on_failure: bool = True, retry_result_failure: bool = True) -> Any:
        """The async twin of `result`; storage is asked in a thread."""
        if isinstance(self._data, StoredResult) and self._data.is_elsewhere:
            asyncio = sys.modules["asyncio"]
            return await asyncio.to_thread(_result, self, raise_on_failure, retry_result_failure)
        return _result(self, raise_on_failure, retry_result_failure)

    def with_data(self, data: Any) -> State[Any]:
        """The same state of the same run, with other data; `NO_DATA` for none."""
        copied = copy(self)
        copied._data = data
        return copied

    def fresh_copy(self, **changes: Any) -> State[R]:
        """The same state with a new id and timestamp, belonging to no run.

        Args:
            changes: arguments of `State` that replace this state's.
        """
        details = replace(
            self.state_details, flow_run_id=None, task_run_id=None, child_flow_run_id=None, transition_id=None
        )
        given: dict[str, Any] = {
            "type": self.type,
            "name": self.name,
            "message": self.message,
            "data": self._data,
            "state_details": details,
        }
        return State(**(given | changes))

    def __repr__(self) -> str:
        return f"{self.name}(message={self.message!r}, type={self.type.value}, result={self._data!r})"

    def __str__(self) -> str:
        shown = [repr(self.message)] if self.message else []
        if self.type.value.lower() != self.name.lower():
            shown.append(f"type={self.type.value}")
        return f"{self.name}({', '.join(shown)})"


def _consistent(type: StateType, details: StateDetails, micros: int) -> StateDetails:
    """`details` with a scheduled time if, and only if, the state is SCHEDULED."""
    if type is StateType.SCHEDULED:
        return details if details.scheduled_time else replace(details, scheduled_time=from_micros(micros))
    return replace(details, scheduled_time=None) if details.scheduled_time else details


def in_running_loop() -> bool:
    """Whether an event loop runs in this thread."""
    # A loop can run only where asyncio has been imported; importing it here would cost every script 30 ms.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _result(state: State[Any], raise_on_failure: bool, retry: bool) -> Any:
    if state.is_paused():
        raise PausedRun("Run is paused, its result is not available.", state=state)
    if not state.is_final():
        raise UnfinishedRun(f"Run is in {state.type.value} state, its results are not available.")
    if not state.is_completed():
        error = get_state_exception(state)
        if raise_on_failure:
            raise error
        if state.data is None:
            return error
    elif not state.has_data:
        raise MissingResult("The result was not recorded, or can be read only in the process of the run.")
    data = state.data
    return data.load(retry) if isinstance(data, StoredResult) else data


_WRAPPERS: Final[dict[StateType, tuple[type[Exception], str]]] = {
    StateType.FAILED: (FailedRun, "Run failed."),
    StateType.CRASHED: (CrashedRun, "Run crashed."),
    StateType.CANCELLED: (CancelledRun, "Run cancelled."),
}


def get_state_exception(state: State[Any]) -> BaseException:
    """The exception of a state that is FAILED, CRASHED or CANCELLED.

    Raises:
        ValueError: the state is none of these.
        TypeError: its data is nothing from which an exception can be made.
    """
    try:
        wrapper, default = _WRAPPERS[state.type]
    except KeyError:
        raise ValueError(f"Expected failed or crashed state got {state!r}.") from None
    data = state.data
    if isinstance(data, StoredResult):
        data = data.load()
    if data is None:
        return wrapper(state.message or default)
    if isinstance(data, BaseException):
        return data
    if isinstance(data, str):
        return wrapper(data)
    if is_state(data):
        # One that is not bad gives nothing to raise: its run has not ended, or has ended well.
        return get_state_exception(data) if data.type in _WRAPPERS else wrapper(state.message or default)
    if is_state_iterable(data):
        return _first_exception(data)
    raise TypeError(
        f"Unexpected result for failed state: {data!r}; a {type(data).__name__} "
        "cannot be resolved into an exception"
    )


def _first_exception(states: Iterable[State[Any]]) -> BaseException:
    for state in states:
        if state.type in _WRAPPERS:
            return get_state_exception(state)
    raise ValueError("The state holds a collection of states of which none failed.")


async def aget_state_exception(state: State[Any]) -> BaseException:
    """The async twin of `get_state_exception`; storage is asked in a thread."""
    asyncio = sys.modules["asyncio"]  # whoever awaits has imported it
    error: BaseException = await asyncio.to_thread(get_state_exception, state)
    return error


async def araise_state_exception(state: State[Any]) -> None:
    """The async twin of `raise_state_exception`."""
    if state.type in _WRAPPERS:
        raise await aget_state_exception(state)


def raise_state_exception(state: State[Any]) -> None:
    """Raise the exception of a state that is FAILED, CRASHED or CANCELLED; do nothing for another.

    Raises:
        BaseException: the state's exception.
    """
    if state.type in _WRAPPERS:
        raise get_state_exception(state)


def is_state(value: object) -> TypeGuard[State[Any]]:
    """Whether `value` is a state."""
    return isinstance(value, State)


def is_state_iterable(obj: object) -> TypeGuard[Sequence[State[Any]]]:
    """Whether `obj` is a list, tuple or set that holds states only, and at least one."""
    if isinstance(obj, (list, tuple, set)):
        items = cast("list[object]", obj)
        return bool(items) and all(isinstance(item, State) for item in items)
    return False
