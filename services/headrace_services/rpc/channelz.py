"""Channelz: what gRPC itself knows of this server's connections and calls, for whoever looks for a fault.

It names the addresses of clients, so it answers on loopback only, unless it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

import grpc

from headrace.core.errors import MissingExtraError, ObjectNotFound
from headrace_services.rpc.binding import handlers
from headrace_services.rpc.call import Call

__all__ = ["CHANNELZ_SERVICE", "add_channelz"]

CHANNELZ_SERVICE: Final = "grpc.channelz.v1.Channelz"


def add_channelz(server: grpc.aio.Server, *, is_required: bool) -> bool:
    """Put the service on a gRPC server, if its package is installed; whether it is.

    Raises:
        MissingExtraError: it is required, and is not installed.
    """
    try:
        schema: Any = importlib.import_module("grpc_channelz.v1.channelz_pb2")
        written: Any = importlib.import_module("grpc_channelz.v1._servicer")
    except ImportError:
        if is_required:
            raise MissingExtraError("HEADRACE_SERVER_CHANNELZ_ENABLED", "headrace[ops]") from None
        return False
    descriptor = schema.DESCRIPTOR.services_by_name["Channelz"]
    server.add_generic_rpc_handlers([handlers(descriptor, _Channelz(descriptor, written.ChannelzServicer))])
    return True


class _Channelz:
    """The package's servicer, with its errors as ours.

    It answers at once, from memory, and says by its context what is wrong, in which case it has no answer.
    """

    def __init__(self, descriptor: Any, servicer: Any) -> None:
        # Its messages are not in our schema, and have no rules.
        self.checks_itself = frozenset(method.name for method in descriptor.methods)
        self._servicer = servicer

    def __getattr__(self, name: str) -> Any:
        answer = getattr(self._servicer, name)

        async def method(request: Any, call: Call) -> Any:
            context = _Context()
            response = answer(request, context)
            if response is None:
                if context.code is grpc.StatusCode.NOT_FOUND:
                    raise ObjectNotFound(context.details)
                raise RuntimeError(context.details)
            return response

        return method


class _Context:
    """What the servicer says of an answer that it does not have."""

    code: grpc.StatusCode | None = None
    details = ""

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details
