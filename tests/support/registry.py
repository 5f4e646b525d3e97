"""A registry of images that lets in only whoever says who he is: what podman needs of one, in memory."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["PASSWORD", "USERNAME", "ImageRegistry"]

USERNAME = "otter"
PASSWORD = "river"
_LOGIN = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


class ImageRegistry:
    """Serves on a port of 127.0.0.1.

    Attributes:
        manifests: by name and tag, or digest: type and text.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _handler(registry: ImageRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, text in {"Content_Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole

        def _is_let_in(self) -> bool:
            if self.headers.get("Authorization") == _LOGIN:
                return True
            self._body()
            self._answer(401, WWW_Authenticate='Basic realm="registry"')
            return False

        def do_GET(self) -> None:
            if not self._is_let_in():
                return
            if found := re.fullmatch(r"/v2/(.+)/blobs/(.+)", self.path):
                data = registry.blobs.get(found[2])
                self._answer(404) if data is None else self._answer(200, data, Docker_Content_Digest=found[2])
            elif found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", self.path):
                known = registry.manifests.get(f"{found[1]}:{found[2]}")
                if known is None:
                    self._answer(404)
                else:
                    digest = _digest(known[1])
                    self._answer(200, known[1], Content_Type=known[0], Docker_Content_Digest=digest)
            else:
                self._answer(200)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            if self._is_let_in():
                self._body()
                number = str(len(registry.uploads))
                registry.uploads[number] = b""
                self._answer(202, Location=f"{self.path.rstrip('/')}/{number}", Range="0-0")

        def do_PATCH(self) -> None:
            if self._is_let_in():
                number = self.path.rpartition("/")[2]
                registry.uploads[number] += self._body()
                end = len(registry.uploads[number]) - 1
                self._answer(202, Location=self.path, Range=f"0-{end}")

        def do_PUT(self) -> None:
            if not self._is_let_in():
                return
            data = self._body()
            if found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", self.path):
                digest, type = _digest(data), self.headers["Content-Type"]
                for name in (found[2], digest):
                    registry.manifests[f"{found[1]}:{name}"] = (type, data)
            else:
                path, _, query = self.path.partition("?")
                data = registry.uploads.pop(path.rpartition("/")[2]) + data
                digest = query.removeprefix("digest=").replace("%3A", ":")
                assert digest == _digest(data), query
                registry.blobs[digest] = data
            self._answer(201, Docker_Content_Digest=digest, Location=self.path)

    return Handler
