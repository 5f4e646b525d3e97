"""Server reflection, under the old name and the new one.

The package that implements it knows only `v1alpha`; the messages of `v1` are the same on the wire, so its
servicer answers under both names, and the schema of `v1` is made from that of `v1alpha`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

__all__ = ["add_reflection"]

_FILE: Final = "grpc/reflection/v1/reflection.proto"
_NAMES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


class _MethodsToo:
    """A descriptor pool that finds methods by their names as well, as its C++ original does."""

    def __init__(self) -> None:
        self._pool: Any = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindFileContainingSymbol(symbol.rpartition(".")[0])


def add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Lets tools list and describe `services` and reflection itself."""
    _describe_v1()
    servicer: Any = ReflectionServicer([*services, *_NAMES], _MethodsToo())
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}) for name in _NAMES]
    )


def _describe_v1() -> None:
    """Puts the schema of `v1` where tools that ask for it find it."""
    pool: Any = descriptor_pool.Default()
    try:
        pool.FindFileByName(_FILE)
    except KeyError:
        alpha: Any = reflection_pb2.DESCRIPTOR
        schema = descriptor_pb2.FileDescriptorProto()
        alpha.CopyToProto(schema)
        text = str(schema).replace("grpc.reflection.v1alpha", "grpc.reflection.v1")
        schema = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
        schema.name = _FILE
        pool.Add(schema)
