"""The edge of the server over a real socket, before handlers that do what a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.core.clock import SystemClock
from headrace.v1 import log_service_pb2, record_service_pb2, run_service_pb2
from headrace_services.rpc.auth import BasicAuth
from headrace_services.rpc.binding import handlers
from headrace_services.rpc.edge import Activity, Edge
from headrace_services.rpc.reflection import add_reflection
from headrace_services.settings import ServerSettings
from tests.rpc.servers import Client, serving, settings_for

Handler = Callable[[Any, Any], Any]


class Scripted:
    """A servicer whose every method is the handler it was made with."""

    def __init__(self, handler: Handler, stream: Handler) -> None:
        self._handler, self._stream = handler, stream

    def __getattr__(self, name: str) -> Handler:
        if name == "checks_itself":
            raise AttributeError(name)
        return (
            self._stream if name in ("WatchRuns", "WatchRunInputs", "Record", "TailLogs") else self._handler
        )


Serve = Callable[..., AbstractAsyncContextManager[grpc.aio.Channel]]


@pytest.fixture
def serve(one_event_loop: None) -> Serve:
    """Serves one handler under the names of all our methods; gives a channel to it."""

    @asynccontextmanager
    async def start(handler: Handler, auth: str | None = None) -> AsyncIterator[grpc.aio.Channel]:
        async def stream(request: Any, call: Any) -> AsyncIterator[Any]:
            yield await handler(request, call)

        activity = Activity(SystemClock().monotonic)
        edge = Edge(version="1.2.3", auth=BasicAuth(auth) if auth else None, activity=activity)
        server = grpc.aio.server(
            interceptors=[edge],
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 8 * 1024 * 1024)],
        )
        servicer = Scripted(handler, stream)
        for module, name in (
            (run_service_pb2, "RunService"),
            (record_service_pb2, "RecordService"),
            (log_service_pb2, "LogService"),
        ):
            descriptor: Any = module.DESCRIPTOR.services_by_name[name]
            server.add_generic_rpc_handlers([handlers(descriptor, servicer)])
        add_reflection(server, ["headrace.v1.RunService"])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
        finally:
            await server.stop(10)
            assert activity.open_calls == 0

    return start


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> ServerSettings:
    """Settings of a server on a fresh database, once on each dialect."""
    return settings_for(tmp_path / "home", database_url)


@pytest.fixture
async def client(settings: ServerSettings, one_event_loop: None) -> AsyncIterator[Client]:
    """A server on a fresh database, once on each dialect, and what one can ask it."""
    async with serving(settings) as running:
        yield running
