"""`grpc.health.v1`: whether the server, and each of its services, takes calls."""

from __future__ import annotations

from collections.abc import Sequence

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

__all__ = ["Health"]


class Health:
    """The health of the server ("") and of each service, by full name."""

    def __init__(self, services: Sequence[str]) -> None:
        self.servicer = aio.HealthServicer()
        self._services = ("", *services)

    async def set_serving(self) -> None:
        """Takes calls."""
        for service in self._services:
            await self.servicer.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def set_stopping(self) -> None:
        """Takes no new calls, and never will again."""
        await self.servicer.enter_graceful_shutdown()
