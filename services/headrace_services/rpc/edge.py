"""The outermost layer of every call: credentials, headers, decoding, and no error that escapes unmapped.

One interceptor wraps the handlers of all services, also those of health and reflection. It takes the
decoding of requests over from gRPC, so that bytes that are no message are an error of ours as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from headrace.core import limits
from headrace.core.errors import FieldsInvalid, MessageTooLarge, ServiceError
from headrace_services.rpc.auth import OPEN_METHODS, BasicAuth
from headrace_services.rpc.errors import DETAILS_KEY, grpc_code, service_error, status_of

__all__ = ["CLIENT_HEADER", "SERVER_HEADER", "Activity", "Edge"]

CLIENT_HEADER: Final = "headrace-client"
SERVER_HEADER: Final = "headrace-server"

_FIRST_MESSAGE_SECONDS: Final = 1.0
_SLACK_BYTES: Final = 64 * 1024

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class Activity:
    """How busy the server is, for one that leaves when nobody needs it.

    Attributes:
        open_calls: calls being served now, health checks left out.
        last_at: monotonic seconds of the last call's begin or end.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.open_calls = 0
        self.last_at = monotonic()

    @contextlib.contextmanager
    def call(self, method: str) -> Generator[None]:
        """Counts one call while it is served; asking for the health is no need of the server."""
        if method in OPEN_METHODS:
            yield
            return
        self.open_calls += 1
        self.touch()
        try:
            yield
        finally:
            self.open_calls -= 1
            self.touch()

    def touch(self) -> None:
        """Something has just happened."""
        self.last_at = self._monotonic()


@dataclass(frozen=True, slots=True)
class _GrpcCall:
    """`headrace_services.rpc.call.Call` over gRPC's own context."""

    method: str
    principal: str
    context: Any

    def peer(self) -> str:
        return str(self.context.peer())


class Edge(grpc.aio.ServerInterceptor):
    """Wraps every handler; see the module.

    Args:
        version: sent to every caller that gives its own.
        auth: None when the server asks for no credentials.
        activity: counts the calls.
    """

    def __init__(self, *, version: str, auth: BasicAuth | None, activity: Activity) -> None:
        self._header = ((SERVER_HEADER, version),)
        self._auth = auth
        self._activity = activity
        self._wrapped: dict[str, _Handler] = {}

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        method = str(handler_call_details.method)
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        if self._auth is not None and method not in OPEN_METHODS:
            try:
                self._auth.check(handler_call_details.invocation_metadata)
            except ServiceError as error:
                return _refusal(wrapped, error)
        return wrapped

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        if not handler.request_streaming and not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(
                self._single(method, handler, handler.unary_unary), None, handler.response_serializer
            )
        if handler.request_streaming and not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._single(method, handler, handler.stream_unary), None, handler.response_serializer
            )
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._many(method, handler, handler.stream_stream), None, handler.response_serializer
            )
        return grpc.unary_stream_rpc_method_handler(
            self._many(method, handler, handler.unary_stream), None, handler.response_serializer
        )

    def _single(self, method: str, handler: _Handler, behaviour: Any) -> Any:
        decode = _decoder(handler)

        async def serve(request: Any, context: _Context) -> Any:
            with self._activity.call(method):
                try:
                    await self._greet(context)
                    response = await behaviour(decode(request), self._call(method, handler, context))
                    _check_size(response)
                    return response
                except Exception as error:
                    await _fail(context, error, method)

        return serve

    def _many(self, method: str, handler: _Handler, behaviour: Any) -> Any:
        decode = _decoder(handler)

        if not inspect.isasyncgenfunction(behaviour):

            async def write(request: Any, context: _Context) -> None:
                try:
                    await behaviour(decode(request), context)
                except Exception as error:
                    await _fail(context, error, method)

            return write

        async def serve(request: Any, context: _Context) -> AsyncIterator[Any]:
            with self._activity.call(method):
                try:
                    await self._greet(context)
                    call = self._call(method, handler, context)
                    async with contextlib.aclosing(behaviour(decode(request), call)) as responses:
                        async for response in responses:
                            yield response
                except Exception as error:
                    await _fail(context, error, method)

        return serve

    async def _greet(self, context: _Context) -> None:
        """Tells the server's version to a client that tells its own; to others it would be a message more."""
        metadata = context.invocation_metadata() or ()
        if any(key == CLIENT_HEADER for key, _ in metadata):
            await context.send_initial_metadata(self._header)

    def _call(self, method: str, handler: _Handler, context: _Context) -> Any:
        if not getattr(handler, "is_ours", False):
            return context
        return _GrpcCall(method, self._auth.principal if self._auth else "", context)


def _decoder(handler: _Handler) -> Callable[[Any], Any]:
    deserialize: Callable[[bytes], Any] = handler.request_deserializer or bytes

    def one(data: bytes) -> Any:
        try:
            return deserialize(data)
        except (DecodeError, RecursionError):
            raise FieldsInvalid(
                "The request is not a message of this method: its bytes cannot be decoded."
            ) from None

    async def many(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for data in requests:
            yield one(data)

    return many if handler.request_streaming else one


def _check_size(response: Message) -> None:
    """Refuses to send what the caller would refuse to receive."""
    size = response.ByteSize()
    if size > limits.TRANSPORT_MESSAGE_BYTES - _SLACK_BYTES:
        raise MessageTooLarge(
            f"The answer has {size} bytes; up to {limits.TRANSPORT_MESSAGE_BYTES} can travel. "
            "Ask for less at a time: a smaller page_size, or the view BASIC.",
            facts={"max_bytes": str(limits.TRANSPORT_MESSAGE_BYTES), "bytes": str(size)},
        )


async def _fail(context: _Context, error: Exception, method: str) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError | asyncio.CancelledError):
        raise error
    known = service_error(error, method)
    status = status_of(known)
    await context.abort(
        grpc_code(known), status.message, trailing_metadata=((DETAILS_KEY, status.SerializeToString()),)
    )
    raise AssertionError("abort always raises")


def _refusal(handler: _Handler, error: ServiceError) -> _Handler:
    """A handler of the same arity that only says no."""

    async def single(_request: Any, context: _Context) -> Any:
        await _fail(context, error, "")

    async def many(request: Any, context: _Context) -> AsyncIterator[Any]:
        if handler.request_streaming:
            # A client that is told no while it still sends its first message may not hear why.
            with contextlib.suppress(TimeoutError, StopAsyncIteration):
                await asyncio.wait_for(anext(request), _FIRST_MESSAGE_SECONDS)
        await _fail(context, error, "")
        yield b""

    if not handler.request_streaming and not handler.response_streaming:
        return grpc.unary_unary_rpc_method_handler(single)
    if handler.request_streaming and not handler.response_streaming:
        return grpc.stream_unary_rpc_method_handler(single)
    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(many)
    return grpc.unary_stream_rpc_method_handler(many)
