"""`grpc.health.v1`: whether the server, and each of its services, takes calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from grpc_health.v1 import health_pb2 as pb

from headrace.core.errors import ObjectNotFound
from headrace_services.rpc.binding import handlers
from headrace_services.rpc.call import Call

__all__ = ["HEALTH_SERVICE", "Health"]

HEALTH_SERVICE = "grpc.health.v1.Health"

_Response = pb.HealthCheckResponse


class Health:
    """The health of the server ("") and of each service, by full name. Belongs to one event loop."""

    # Its messages are not in our schema, and have no rules.
    checks_itself = frozenset({"Check", "List", "Watch"})

    def __init__(self, services: Sequence[str]) -> None:
        self._services = frozenset(("", *services))
        self._status = _Response.NOT_SERVING
        self._is_stopping = False
        self._changed = asyncio.Event()

    def add_to(self, server: Any) -> None:
        """Puts the service on a gRPC server."""
        descriptor: Any = pb.DESCRIPTOR.services_by_name["Health"]
        server.add_generic_rpc_handlers([handlers(descriptor, self)])

    def set_serving(self) -> None:
        """Takes calls."""
        self._set(_Response.SERVING)

    def set_stopping(self) -> None:
        """Takes no new calls, and never will again."""
        self._is_stopping = True
        self._set(_Response.NOT_SERVING)

    def _set(self, status: pb.HealthCheckResponse.ServingStatus.ValueType) -> None:
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: pb.HealthCheckRequest, call: Call) -> pb.HealthCheckResponse:
        if request.service not in self._services:
            raise ObjectNotFound.of("service", request.service)
        return _Response(status=self._status)

    async def List(self, request: Any, call: Call) -> Any:
        response: Any = getattr(pb, "HealthListResponse")()  # noqa: B009
        for service in self._services:
            response.statuses[service].status = self._status
        return response

    async def Watch(
        self, request: pb.HealthCheckRequest, call: Call
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        known = request.service in self._services
        while True:
            changed = self._changed
            yield _Response(status=self._status if known else _Response.SERVICE_UNKNOWN)
            if self._is_stopping:
                return
            await changed.wait()
