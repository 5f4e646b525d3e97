"""The HTTP side of a sync: notices come in, and whoever wants to know how it is may ask."""

from __future__ import annotations

from typing import Final

from headrace_workers.git_sync.notices import NoticeInvalid, has_proof, is_genuine, read_notice
from headrace_workers.git_sync.sync import GitSync
from headrace_workers.http import HttpServer, Request, Response, json_response, message

__all__ = ["MAX_BODY_BYTES", "WEBHOOK_PATH", "SyncServer"]

MAX_BODY_BYTES: Final = 25 * 1024 * 1024
"""As large as GitHub makes them: what is larger it does not send."""
WEBHOOK_PATH: Final = "/webhook"


class SyncServer(HttpServer):
    """Serves `POST /webhook`, `GET /health` and `GET /status`; `async with` it.

    Args:
        host: address to listen on.
        port: 0 takes any free one.
        sync: that is told.
        secret: that notices prove to know; None: every notice is believed.
    """

    def __init__(self, host: str, port: int, sync: GitSync, secret: str | None) -> None:
        super().__init__(host, port, self._answer)
        self._sync = sync
        self._secret = secret

    async def _answer(self, request: Request) -> Response:
        if request.path == WEBHOOK_PATH:
            if request.method != "POST":
                return message(405, "Notices are posted.", Allow="POST")
            return await self._notice(request)
        if request.path not in ("/health", "/status"):
            return message(404, f"There are {WEBHOOK_PATH}, /health and /status.")
        if request.method not in ("GET", "HEAD"):
            return message(405, "Only GET is served here.", Allow="GET, HEAD")
        return message(200, "OK") if request.path == "/health" else json_response(self._sync.status())

    async def _notice(self, request: Request) -> Response:
        if self._secret is not None and not has_proof(request.headers):
            # Nobody is listened to at length who does not even claim to know the secret.
            return message(401, "The request is not signed: set the same secret there and here.")
        body = await request.read(MAX_BODY_BYTES)
        if self._secret is not None and not is_genuine(request.headers, body, self._secret):
            return message(401, "The signature is not made with the secret that is set here.")
        try:
            notice = read_notice(request.headers, body)
        except NoticeInvalid as error:
            return message(400, str(error))
        return message(*self._sync.accept(notice))
