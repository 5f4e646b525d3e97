"""A small HTTP/1.1 server for processes of headrace: one request per connection, bounded in time and in size.

Whoever serves gives one function from a `Request` to a `Response`; which paths and methods there are is its
affair. It runs on the process's event loop, so a client that is slow, or silent, holds up nobody but itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote, urlsplit

__all__ = ["HttpError", "HttpServer", "Request", "Response", "json_response", "message"]

HEAD_SECONDS: Final = 5.0
"""How long the request line and the headers may take."""
BODY_SECONDS: Final = 60.0
"""How long a body may take."""
_ANSWER_SECONDS: Final = 5.0
_LINE_BYTES: Final = 8192
_MAX_HEADERS: Final = 100
_MAX_CONNECTIONS: Final = 128
# All bodies that are being read together: many clients at once must not fill the memory.
_BODIES_BYTES: Final = 64 * 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """An answer.

    Attributes:
        status: HTTP status code.
        body: its bytes.
        content_type: of the body.
        headers: further ones.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def json_response(value: Any, status: int = 200) -> Response:
    """An answer that is a JSON document."""
    return Response(status, json.dumps(value).encode())


def message(status: int, text: str, **headers: str) -> Response:
    """An answer that is a sentence: `{"message": text}`.

    Args:
        status: HTTP status code.
        text: for people.
        headers: further ones; `_` in their names stands for `-`.
    """
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, json.dumps({"message": text}).encode(), headers=more)


class HttpError(Exception):
    """The request is answered by this, whatever else was to be done."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.response = message(status, text, **headers)


@dataclass(slots=True)
class Request:
    """A request, whose body is read only if it is asked for.

    Attributes:
        method: in capitals.
        path: without the query, decoded.
        query: what follows the `?`.
        headers: by name in lower case; of several of one name the last.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    _connection: _Connection

    async def read(self, limit_bytes: int) -> bytes:
        """The body.

        Raises:
            HttpError: it is larger than that, has no length, or does not come in time.
        """
        return await self._connection.read_body(self.headers, limit_bytes)


class HttpServer:
    """Answers requests; `async with` it.

    Args:
        host: address to listen on.
        port: 0 takes any free one.
        answer: from a request to what is answered; it may raise HttpError.

    Attributes:
        port: that it listens on.
    """

    def __init__(self, host: str, port: int, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._host = host
        self.port = port
        self.answer = answer
        self.buffered_bytes = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> HttpServer:
        """Listen.

        Raises:
            OSError: the address is taken, or not this machine's.
        """
        self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=_LINE_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            connection = _Connection(self, reader, writer)
            if len(self._open) > _MAX_CONNECTIONS:
                await connection.send(message(503, "Too many connections.", Retry_After="5"))
            else:
                await connection.handle()
        except (TimeoutError, OSError, EOFError):
            pass  # whoever asked does not want to know any more
        except asyncio.CancelledError:
            # The server closes. Raised further it would be reported as a defect of the connection.
            pass
        finally:
            self._open.discard(task)
            writer.close()


class _Connection:
    """One connection: one request, one answer."""

    def __init__(
        self, server: HttpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._buffered_bytes = 0
        self._unread = False

    async def handle(self) -> None:
        method = ""
        try:
            request = await self._read_head()
            method = request.method
            self._unread = "content-length" in request.headers or "transfer-encoding" in request.headers
            response = await self._server.answer(request)
        except HttpError as error:
            response = error.response
        except (TimeoutError, OSError, EOFError):
            raise
        except Exception as error:
            what = {"message": "A request could not be answered.", "exception": error}
            asyncio.get_running_loop().call_exception_handler(what)
            response = message(500, "A defect; the log of this process says more.")
        finally:
            self._server.buffered_bytes -= self._buffered_bytes
        await self.send(response, has_body=method != "HEAD")

    async def read_body(self, headers: Mapping[str, str], limit_bytes: int) -> bytes:
        """See `Request.read`."""
        if "transfer-encoding" in headers:
            raise HttpError(411, "Say how long the body is: Content-Length.")
        text = headers.get("content-length", "0")
        if not (text.isascii() and text.isdecimal()):
            raise HttpError(400, "Content-Length is not a number.")
        length = int(text) if len(text) < 20 else limit_bytes + 1
        if length > limit_bytes:
            raise HttpError(413, f"The body may have {limit_bytes} bytes, and has {text}.")
        if headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while len(body) < length:
                    piece = await self._reader.read(min(_CHUNK_BYTES, length - len(body)))
                    self._take(piece)
                    body += piece
        except TimeoutError:
            raise HttpError(408, f"The body did not come within {BODY_SECONDS:.0f} s.") from None
        self._unread = False
        return bytes(body)

    def _take(self, piece: bytes) -> None:
        if not piece:
            raise EOFError
        if self._server.buffered_bytes + len(piece) > _BODIES_BYTES:
            raise HttpError(503, "Too much is being sent at once.", Retry_After="5")
        self._server.buffered_bytes += len(piece)
        self._buffered_bytes += len(piece)

    async def _read_head(self) -> Request:
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                line = (await self._reader.readline()).decode("latin-1")
                if not line:
                    raise EOFError
                method, target, protocol = [*line.split(), "", "", ""][:3]
                if not protocol.startswith("HTTP/1."):
                    raise HttpError(400, "This is not HTTP/1.1.")
                headers = await self._read_headers()
            parts = urlsplit(target)
        except ValueError:
            raise HttpError(431, "A line is too long, or makes no sense.") from None
        return Request(method.upper(), unquote(parts.path), parts.query, headers, self)

    async def _read_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for _ in range(_MAX_HEADERS + 1):
            line = (await self._reader.readline()).decode("latin-1").strip()
            if not line:
                return headers
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        raise HttpError(431, f"There are more than {_MAX_HEADERS} headers.")

    async def send(self, response: Response, *, has_body: bool = True) -> None:
        """Write the answer, and close the connection so that it arrives."""
        head = {
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "Connection": "close",
            **response.headers,
        }
        lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in head.items()]
        data = "\r\n".join([*lines, "", ""]).encode("latin-1")
        async with asyncio.timeout(_ANSWER_SECONDS):
            self._writer.write(data + (response.body if has_body else b""))
            await self._writer.drain()
            if self._unread:
                await self._discard()

    async def _discard(self) -> None:
        """Let a client that still sends read the answer: a reset would take it away from it."""
        self._writer.write_eof()
        with contextlib.suppress(OSError):
            while await self._reader.read(_CHUNK_BYTES):
                pass
