"""A small HTTP server that says how a worker is: `/health`, `/ready`, `/metrics`, and for some `/status`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["SILENT_SECONDS", "HealthServer", "Vitals"]

SILENT_SECONDS: Final = 300.0
"""Without a word of the server for so long a worker is not healthy."""
_REQUEST_SECONDS: Final = 5.0
_LINE_BYTES: Final = 8192


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a worker is.

    Attributes:
        is_connected: a server has welcomed its stream.
        is_draining: it takes nothing new.
        silent_seconds: since the server was heard last, or the worker was started.
        running: runs that it holds.
        begun: runs that it has begun.
    """

    is_connected: bool
    is_draining: bool
    silent_seconds: float
    running: int
    begun: int


class HealthServer:
    """Answers GET requests; `async with` it.

    Args:
        host: address to listen on.
        port: 0 takes any free one.
        vitals: asked at each request.
        silent_seconds: how long the server may be silent.
        status: what `/status` shows, as JSON; None: there is none.

    Attributes:
        port: that it listens on.
    """

    def __init__(
        self,
        host: str,
        port: int,
        vitals: Callable[[], Vitals],
        silent_seconds: float = SILENT_SECONDS,
        status: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self._host = host
        self.port = port
        self._vitals = vitals
        self._silent_seconds = silent_seconds
        self._status = status
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> HealthServer:
        self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=_LINE_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                line = (await reader.readline()).decode("latin-1")
                while (await reader.readline()).strip():
                    pass
                writer.write(self._answer(line))
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass  # whoever asked does not want to know any more, or did not speak HTTP
        finally:
            writer.close()

    def _answer(self, line: str) -> bytes:
        method, path, *_ = [*line.split(), "", ""]
        vitals = self._vitals()
        is_heard = vitals.silent_seconds < self._silent_seconds
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", _message("Only GET is served."))
        if path == "/health":
            words = "OK" if is_heard else f"No word of the server for {vitals.silent_seconds:.0f} s."
            return _response("200 OK" if is_heard else "503 Service Unavailable", _message(words))
        if path == "/ready":
            is_ready = vitals.is_connected and not vitals.is_draining
            words = "OK" if is_ready else "Draining." if vitals.is_draining else "Not connected."
            return _response("200 OK" if is_ready else "503 Service Unavailable", _message(words))
        if path == "/metrics":
            return _response("200 OK", _metrics(vitals), "text/plain; version=0.0.4")
        if path == "/status" and self._status is not None:
            return _response("200 OK", json.dumps(self._status()))
        known = "/health, /ready" + (", /status" if self._status else "")
        return _response("404 Not Found", _message(f"There are {known} and /metrics."))


def _message(text: str) -> str:
    return json.dumps({"message": text})


def _metrics(vitals: Vitals) -> str:
    values = {
        "headrace_worker_connected gauge": int(vitals.is_connected),
        "headrace_worker_draining gauge": int(vitals.is_draining),
        "headrace_worker_silent_seconds gauge": round(vitals.silent_seconds, 3),
        "headrace_worker_runs gauge": vitals.running,
        "headrace_worker_runs_begun_total counter": vitals.begun,
    }
    lines: list[str] = []
    for name_and_kind, value in values.items():
        lines += [f"# TYPE {name_and_kind}", f"{name_and_kind.split()[0]} {value}"]
    return "\n".join(lines) + "\n"


def _response(status: str, body: str, kind: str = "application/json") -> bytes:
    data = body.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n"
    )
    return head.encode() + b"\r\n" + data
