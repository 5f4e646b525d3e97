"""From a servicer of ours to gRPC handlers, by the schema's own descriptors.

A servicer is a plain object with one method per RPC, named as in the schema: `async def GetRun(request,
call) -> response`, or an async generator where the response is a stream. Nothing generated is needed, and
another transport can bind the same objects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from headrace.core import limits
from headrace.core.errors import MessageTooLarge
from headrace_services.rpc.validation import rules

__all__ = ["handlers"]


class _OurHandler(NamedTuple):
    """A `grpc.RpcMethodHandler` whose behaviour takes a `Call`."""

    request_streaming: bool
    response_streaming: bool
    request_deserializer: Any
    response_serializer: Any
    unary_unary: Any
    unary_stream: Any
    stream_unary: Any
    stream_stream: Any
    is_ours: bool = True


def handlers(service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
    """The handlers of one service.

    Raises:
        AttributeError: the servicer lacks a method of the service.
    """
    # A stream of requests is checked by its handler: there, a bad entry must not end the stream.
    unchecked: frozenset[str] = getattr(servicer, "checks_itself", frozenset())
    methods: dict[str, Any] = {
        m.name: _handler(m, getattr(servicer, m.name), m.client_streaming or m.name in unchecked)
        for m in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _handler(method: MethodDescriptor, behaviour: Any, unchecked: bool) -> _OurHandler:
    kind = (bool(method.client_streaming), bool(method.server_streaming))
    request_class = GetMessageClass(method.input_type)
    response_class = GetMessageClass(method.output_type)
    decode = request_class.FromString if unchecked else _checked(method.input_type.full_name, request_class)
    return _OurHandler(
        *kind,
        decode,
        response_class.SerializeToString,
        behaviour if kind == (False, False) else None,
        behaviour if kind == (False, True) else None,
        behaviour if kind == (True, False) else None,
        behaviour if kind == (True, True) else None,
    )


def _checked(name: str, request_class: type[Message]) -> Callable[[bytes], Message]:
    """Decodes a request and checks its size and its fields."""

    def decode(data: bytes) -> Message:
        if len(data) > limits.MESSAGE_BYTES:
            raise MessageTooLarge(
                f"The request has {len(data)} bytes; the server takes up to {limits.MESSAGE_BYTES}.",
                facts={"max_bytes": str(limits.MESSAGE_BYTES), "bytes": str(len(data))},
            )
        request = request_class.FromString(data)
        error = rules().check(name, data)
        if error is not None:
            raise error
        return request

    return decode
