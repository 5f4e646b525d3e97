"""Reading a call's answers one by one, as both streams of a process with the server do."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from headrace.core.errors import ServerUnavailable

__all__ = ["raise_status", "read_message"]


async def read_message(call: Any) -> Any:
    """The next message; EOF also when this side has cancelled the call, which gRPC tells by cancelling us."""
    try:
        return await call.read()
    except asyncio.CancelledError:
        if not call.cancelled():
            raise
        return grpc.aio.EOF


async def raise_status(call: Any) -> None:
    """Raise the call's error, if it ended with one.

    Raises:
        grpc.aio.AioRpcError: it did.
        ServerUnavailable: this side has given the call up.
    """
    if call.cancelled():
        raise ServerUnavailable("The connection was given up.")
    if await call.code() is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            await call.code(),
            initial_metadata=grpc.aio.Metadata(),
            trailing_metadata=await call.trailing_metadata() or grpc.aio.Metadata(),
            details=await call.details(),
        )
