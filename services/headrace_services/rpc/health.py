"""`grpc.health.v1`: whether the server, and each of its services, takes calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

__all__ = ["Health"]


class Health:
    """The health of the server ("") and of each service, by full name."""

    def __init__(self, services: Sequence[str]) -> None:
        servicer: Any = getattr(health_aio, "HealthServicer")  # noqa: B009
        self._servicer = servicer()
        self._services = ("", *services)

    def add_to(self, server: Any) -> None:
        """Puts the service on a server."""
        add: Any = getattr(health_pb2_grpc, "add_HealthServicer_to_server")  # noqa: B009
        add(self._servicer, server)

    async def set_serving(self) -> None:
        """Takes calls."""
        for service in self._services:
            await self._servicer.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def set_stopping(self) -> None:
        """Takes no new calls, and never will again."""
        await self._servicer.enter_graceful_shutdown()
