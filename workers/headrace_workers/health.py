"""A small HTTP server that says how a worker is: `/health`, `/ready`, `/metrics`, and for some `/status`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from headrace_workers.http import HttpServer, Request, Response, json_response, message

__all__ = ["SILENT_SECONDS", "Answers", "HealthServer", "Vitals"]

SILENT_SECONDS: Final = 300.0
"""Without a word of the server for so long a worker is not healthy."""


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


Answers: TypeAlias = "Callable[[Request, Vitals], Awaitable[Response | None]]"


class HealthServer(HttpServer):
    """Answers GET requests; `async with` it.

    Args:
        host: address to listen on.
        port: 0 takes any free one.
        vitals: asked at each request.
        silent_seconds: how long the server may be silent.
        status: what `/status` shows, as JSON; None: there is none.
        more: answers other paths; what it gives None for is none of its own.
    """

    def __init__(
        self,
        host: str,
        port: int,
        vitals: Callable[[], Vitals],
        silent_seconds: float = SILENT_SECONDS,
        status: Callable[[], Mapping[str, Any]] | None = None,
        more: Answers | None = None,
    ) -> None:
        super().__init__(host, port, self._about)
        self._vitals = vitals
        self._silent_seconds = silent_seconds
        self._status = status
        self._more = more

    async def _about(self, request: Request) -> Response:
        vitals = self._vitals()
        if self._more is not None and (answer := await self._more(request, vitals)) is not None:
            return answer
        is_heard = vitals.silent_seconds < self._silent_seconds
        if request.method not in ("GET", "HEAD"):
            return message(405, "Only GET is served.", Allow="GET, HEAD")
        if request.path == "/health":
            words = "OK" if is_heard else f"No word of the server for {vitals.silent_seconds:.0f} s."
            return message(200 if is_heard else 503, words)
        if request.path == "/ready":
            is_ready = vitals.is_connected and not vitals.is_draining
            words = "OK" if is_ready else "Draining." if vitals.is_draining else "Not connected."
            return message(200 if is_ready else 503, words)
        if request.path == "/metrics":
            return Response(200, _metrics(vitals).encode(), "text/plain; version=0.0.4")
        if request.path == "/status" and self._status is not None:
            return json_response(self._status())
        known = "/health, /ready" + (", /status" if self._status else "")
        return message(404, f"There are {known} and /metrics.")


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
