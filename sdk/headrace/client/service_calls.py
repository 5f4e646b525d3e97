"""What the calls of one service are mixed into the client with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

__all__ = ["ServiceCalls"]

Answer = TypeVar("Answer")


class ServiceCalls:
    """The calls of one service: a base of `HeadraceClient`, which knows the server."""

    async def _call(
        self, method: str, request: Message, response: Callable[[bytes], Answer], timeout: float | None
    ) -> Answer:
        """Make one call.

        Args:
            method: e.g. `RunService/GetRun`.
            request: what is sent.
            response: decodes the answer.
            timeout: seconds; None: as the settings say.
        """
        raise NotImplementedError
