"""What a handler may know of the call it serves, whatever the transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeAlias

from google.protobuf.message import Message

__all__ = ["Call", "StreamHandler", "UnaryHandler"]


class Call(Protocol):
    """One call of one method."""

    @property
    def method(self) -> str:
        """Full name, e.g. `/headrace.v1.RunService/GetRun`."""
        ...

    @property
    def principal(self) -> str:
        """Who calls; empty while the server asks for no credentials."""
        ...

    def peer(self) -> str:
        """Where the call comes from, e.g. `ipv4:127.0.0.1:53122`."""
        ...


UnaryHandler: TypeAlias = Callable[[Message, Call], Awaitable[Message]]
StreamHandler: TypeAlias = Callable[[Message, Call], AsyncIterator[Message]]
