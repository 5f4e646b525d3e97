"""One call to a server: its deadline, its retries, its errors as our classes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeVar

import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from headrace.client.errors import from_rpc_error
from headrace.core.errors import DatabaseUnavailable, ServerDraining, ServerUnavailable, ServiceError

__all__ = ["Caller", "backoff_seconds", "is_transient"]

Response = TypeVar("Response")

# `MethodOptions.IDEMPOTENCY_UNKNOWN`, without its module, which takes every command 30 ms to import.
_IDEMPOTENCY_UNKNOWN: Final = 0
RETRY_FIRST_SECONDS: Final = 0.1
RETRY_MAX_SECONDS: Final = 5.0
FIRST_CONTACT_SECONDS: Final = 0.5
"""How long calls are repeated to a server that has never answered this client: it is probably not there."""

_TRANSIENT = (ServerUnavailable, ServerDraining, DatabaseUnavailable)


def is_transient(error: ServiceError) -> bool:
    """Whether the same call may succeed a moment later."""
    return isinstance(error, _TRANSIENT)


def backoff_seconds(attempt: int, error: ServiceError | None = None) -> float:
    """How long to wait before attempt number `attempt` (from 1) is repeated, with full jitter."""
    ceiling = min(RETRY_MAX_SECONDS, RETRY_FIRST_SECONDS * 2 ** min(attempt, 10))
    asked = error.retry_after_seconds if error and not isinstance(error, ServerUnavailable) else None
    return max(random.uniform(ceiling / 4, ceiling), asked or 0.0)


def _is_idempotent(method: str) -> bool:
    """Whether the schema says so of `/package.Service/Method`."""
    service, _, name = method.lstrip("/").partition("/")
    found: Any = descriptor_pool.Default().FindServiceByName(service)
    level: int = found.methods_by_name[name].GetOptions().idempotency_level
    return level != _IDEMPOTENCY_UNKNOWN


class Caller:
    """Makes calls over one channel.

    Args:
        channel: to the server.
        address: of the server, for messages.
        metadata: what every call carries.
        timeout_seconds: how long one call may take, its retries included, unless it says otherwise.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        address: str,
        metadata: tuple[tuple[str, str], ...],
        timeout_seconds: float,
    ) -> None:
        self.address = address
        self.metadata = metadata
        self.timeout_seconds = timeout_seconds
        self._channel = channel
        self._has_answered = False

    async def unary(
        self, method: str, request: Message, response: Callable[[bytes], Response], timeout: float | None
    ) -> Response:
        """Call `method`; idempotent ones are repeated while the server is away, within the time limit.

        Args:
            method: `/package.Service/Method`.
            request: the message.
            response: parses the answer.
            timeout: seconds in all; None: as the settings say.

        Raises:
            ServiceError: the class that the server raised, or `ServerUnavailable`.
        """
        loop = asyncio.get_running_loop()
        total = self.timeout_seconds if timeout is None else timeout
        began = loop.time()
        call: Any = self._channel.unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=response
        )
        attempt = 0
        while True:
            attempt += 1
            left = began + total - loop.time()
            try:
                answer: Response = await call(request, timeout=max(left, 0.001), metadata=self.metadata)
            except grpc.aio.AioRpcError as error:
                await self._wait_or_raise(method, from_rpc_error(error, self.address), attempt, began, total)
            else:
                self._has_answered = True
                return answer

    async def _wait_or_raise(
        self, method: str, error: ServiceError, attempt: int, began: float, total: float
    ) -> None:
        if not is_transient(error):
            self._has_answered = True
        elif _is_idempotent(method):
            limit = total if self._has_answered else min(total, FIRST_CONTACT_SECONDS)
            delay = backoff_seconds(attempt, error)
            if asyncio.get_running_loop().time() - began + delay < limit:
                await asyncio.sleep(delay)
                return
        raise error

    async def stream(
        self, method: str, request: Message, response: Callable[[bytes], Response], silence_seconds: float
    ) -> AsyncGenerator[Response]:
        """The answers of one server-streaming call.

        Args:
            method: `/package.Service/Method`.
            request: the message.
            response: parses an answer.
            silence_seconds: a stream on which nothing comes for so long is broken.

        Raises:
            ServiceError: as `unary`; nothing is repeated here.
        """
        call: Any = self._channel.unary_stream(
            method, request_serializer=type(request).SerializeToString, response_deserializer=response
        )(request, metadata=self.metadata)
        try:
            while True:
                async with asyncio.timeout(silence_seconds):
                    answer = await call.read()
                if answer is grpc.aio.EOF:
                    await _raise_unless_ok(call, self.address)
                    return
                self._has_answered = True
                yield answer
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self.address) from None
        except TimeoutError:
            raise ServerUnavailable(
                f"The server at {self.address} has been silent for {silence_seconds:g} s."
            ) from None
        finally:
            call.cancel()


async def _raise_unless_ok(call: Any, address: str) -> None:
    if await call.code() is not grpc.StatusCode.OK:
        raise from_rpc_error(
            grpc.aio.AioRpcError(
                await call.code(),
                initial_metadata=grpc.aio.Metadata(),
                trailing_metadata=await call.trailing_metadata() or grpc.aio.Metadata(),
                details=await call.details(),
            ),
            address,
        )
