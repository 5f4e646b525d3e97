"""Receiving what a flow run is sent, as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any, Generic, Self, TypeVar, cast
from uuid import UUID

from headrace.client.background import offloaded, run_in_background
from headrace.client.calls import is_transient
from headrace.core.errors import ServiceError
from headrace.execution.background import dispatched
from headrace.execution.server import recorded_everything, require_server, server_for
from headrace.input.actions import ensure_flow_run_id, is_own_run
from headrace.input.run_input import (
    AutomaticRunInput,
    RunInput,
    RunInputMetadata,
    default_key_prefix,
    run_input_subclass_from_type,
)
from headrace.v1.run_service_pb2 import RunInput as RunInputMessage

__all__ = ["GetAutomaticInputHandler", "GetInputHandler", "receive_input"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
_WHAT = "Receiving input"


class GetInputHandler(Generic[T]):
    """The inputs of one type that a run is sent: an iterator and an async iterator, oldest first.

    Each input comes once. Other receivers of the run get it as well.

    Args:
        run_input_cls: the type.
        key_prefix: that keys begin with; None: by the type.
        timeout: seconds to wait for each input; None: for ever.
        poll_interval: seconds between two looks while the server cannot be watched.
        raise_timeout_error: whether the iteration ends with `TimeoutError` rather than quietly.
        exclude_keys: inputs to pass by.
        flow_run_id: the run; None: the one around the call.

    Attributes:
        exclude_keys: keys that are passed by: those given, and those that came already.

    Raises:
        RuntimeError: no run is given, and there is none around the call.
        ValueError: a number of seconds is negative.
    """

    def __init__(
        self,
        run_input_cls: type[RunInput],
        key_prefix: str | None = None,
        timeout: float | None = 3600,
        poll_interval: float = 10,
        raise_timeout_error: bool = False,
        exclude_keys: Iterable[str] | None = None,
        flow_run_id: str | UUID | None = None,
    ) -> None:
        if (timeout or 0) < 0 or poll_interval < 0:
            raise ValueError("a number of seconds must not be negative")
        self.run_input_cls = run_input_cls
        self.key_prefix = key_prefix or default_key_prefix(run_input_cls)
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.raise_timeout_error = raise_timeout_error
        self.exclude_keys: set[str] = set(exclude_keys or ())
        self.flow_run_id = ensure_flow_run_id(flow_run_id)
        self._arrived: deque[RunInputMessage] = deque()
        self._token = ""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return run_in_background(self.anext())
        except TimeoutError:
            if self.raise_timeout_error:
                raise
            raise StopIteration from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.anext()
        except TimeoutError:
            if self.raise_timeout_error:
                raise
            raise StopAsyncIteration from None

    def next(self) -> T:
        """The next input.

        Raises:
            TimeoutError: none came in time.
        """
        return dispatched(self.anext())

    async def anext(self) -> T:
        """The async twin of `next`."""
        said = self._take()
        if said is None:
            require_server(_WHAT)
            async with asyncio.timeout(self.timeout):
                said = await self._wait()
        return self._instance(said)

    def _take(self) -> RunInputMessage | None:
        while self._arrived:
            said = self._arrived.popleft()
            if said.key not in self.exclude_keys and self._is_ours(said.key):
                self.exclude_keys.add(said.key)
                return said
        return None

    def _is_ours(self, key: str) -> bool:
        rest = key.removeprefix(self.key_prefix)
        return not rest or rest[0] == "-"

    @offloaded
    async def _wait(self) -> RunInputMessage:
        while True:
            try:
                async with server_for(_WHAT) as client:
                    if is_own_run(self.flow_run_id):
                        await recorded_everything()
                    watch = client.watch_run_inputs(
                        self.flow_run_id, self.key_prefix, resume_token=self._token
                    )
                    async with aclosing(cast("Any", watch)) as events:
                        async for event in events:
                            self._token = event.resume_token or self._token
                            self._arrived.extend(event.inputs)
                            said = self._take()
                            if said is not None:
                                return said
            except ServiceError as error:
                if not is_transient(error):
                    raise
                _log.warning("The server cannot be asked for inputs: %s", error.message)
            await asyncio.sleep(self.poll_interval)

    def _instance(self, said: RunInputMessage) -> T:
        instance = self.run_input_cls.model_validate_json(said.value)
        instance.receive_as(
            RunInputMetadata(key=said.key, sender=said.sender or None, receiver=self.flow_run_id)
        )
        return cast("T", self._handed(instance))

    def _handed(self, instance: Any) -> Any:
        return instance


class GetAutomaticInputHandler(GetInputHandler[T]):
    """The values of a plain type that a run is sent.

    Args:
        with_metadata: give each value in an `AutomaticRunInput`, which knows where it came from.
    """

    def __init__(self, *args: Any, with_metadata: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.with_metadata = with_metadata

    def _handed(self, instance: Any) -> Any:
        return instance if self.with_metadata else instance.value


def receive_input(
    input_type: Any,
    timeout: float | None = 3600,
    poll_interval: float = 10,
    raise_timeout_error: bool = False,
    exclude_keys: Iterable[str] | None = None,
    key_prefix: str | None = None,
    flow_run_id: str | UUID | None = None,
    with_metadata: bool = False,
) -> GetInputHandler[Any]:
    """Iterate, with `for` or `async for`, over what a flow run is sent.

    Args:
        input_type: a `RunInput`, another pydantic model, or a plain type.
        timeout: seconds to wait for each input; None: for ever.
        poll_interval: seconds between two looks while the server cannot be watched; else inputs are told
            at once.
        raise_timeout_error: end with `TimeoutError` instead of quietly.
        exclude_keys: inputs to pass by.
        key_prefix: only inputs sent with this prefix; default: by the type.
        flow_run_id: the run; default: the one around the call.
        with_metadata: for plain types: give an `AutomaticRunInput` with `value` and `metadata`.

    Raises:
        RuntimeError: no run is given, and there is none around the call.
        ValueError: a number of seconds is negative.
    """
    given = (timeout, poll_interval, raise_timeout_error, exclude_keys, key_prefix, flow_run_id)
    input_cls = run_input_subclass_from_type(input_type)
    if issubclass(input_cls, AutomaticRunInput):
        automatic: GetInputHandler[Any] = input_cls.receive(*given, with_metadata=with_metadata)
        return automatic
    return input_cls.receive(*given)
