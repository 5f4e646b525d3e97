"""A server inside the test's own process, on a free port and a home of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc

from headrace.core.clock import Clock
from headrace.v1 import (
    admin_service_pb2_grpc,
    deployment_service_pb2_grpc,
    flow_service_pb2_grpc,
    log_service_pb2_grpc,
    run_service_pb2_grpc,
    schedule_service_pb2_grpc,
    span_service_pb2_grpc,
    work_pool_service_pb2_grpc,
)
from headrace.v1.record_service_pb2_grpc import RecordServiceStub
from headrace_services.server import Server, running_server
from headrace_services.settings import ServerSettings
from tests.support.recording import RecordingClient

__all__ = ["Client", "serving", "settings_for"]


@dataclass(frozen=True, slots=True)
class Client:
    """A server and everything a client may ask it.

    Attributes:
        server: the server itself, for its test signals.
        channel: a connection to it.
    """

    server: Server
    channel: grpc.aio.Channel

    @property
    def runs(self) -> Any:
        return run_service_pb2_grpc.RunServiceStub(self.channel)

    @property
    def flows(self) -> Any:
        return flow_service_pb2_grpc.FlowServiceStub(self.channel)

    @property
    def logs(self) -> Any:
        return log_service_pb2_grpc.LogServiceStub(self.channel)

    @property
    def spans(self) -> Any:
        return span_service_pb2_grpc.SpanServiceStub(self.channel)

    @property
    def schedules(self) -> Any:
        return schedule_service_pb2_grpc.ScheduleServiceStub(self.channel)

    @property
    def work_pools(self) -> Any:
        return work_pool_service_pb2_grpc.WorkPoolServiceStub(self.channel)

    @property
    def deployments(self) -> Any:
        return deployment_service_pb2_grpc.DeploymentServiceStub(self.channel)

    @property
    def admin(self) -> Any:
        return admin_service_pb2_grpc.AdminServiceStub(self.channel)

    @property
    def records(self) -> Any:
        return RecordServiceStub(self.channel)

    def recorder(self, recorder_id: str | None = None, **who: Any) -> RecordingClient:
        """A record stream by hand."""
        return RecordingClient(self.channel, recorder_id, **who)


def settings_for(home: Path, database_url: str, **changes: Any) -> ServerSettings:
    """Settings of a server for one test."""
    base = ServerSettings(
        home=home,
        server_api_port=0,
        server_database_connection_url=database_url,
        server_shutdown_grace_seconds=2.0,
    )
    return replace(base, **changes)


@asynccontextmanager
async def serving(settings: ServerSettings, *, clock: Clock | None = None) -> AsyncGenerator[Client]:
    """A running server and a channel to it."""
    async with (
        running_server(settings, clock=clock) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield Client(server, channel)
