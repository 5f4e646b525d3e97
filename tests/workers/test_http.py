"""The HTTP server of our processes, over real sockets: bodies, bounds, clients that dawdle."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any

import pytest

from headrace_workers import http as served
from headrace_workers.http import HttpServer, Request, Response, json_response

LIMIT_BYTES = 1000


async def echo(request: Request) -> Response:
    """What was asked, and its body if there is to be one."""
    if request.path == "/defect":
        raise RuntimeError("planned")
    body = await request.read(LIMIT_BYTES) if request.method == "POST" and request.path == "/echo" else b""
    return json_response({"asked": [request.method, request.path, request.query], "body": body.decode()})


def ask(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else {}


async def raw(port: int, text: bytes) -> bytes:
    """What is answered to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_body_is_read_as_it_was_sent() -> None:
    async with HttpServer("127.0.0.1", 0, echo) as server:
        status, said = await asyncio.to_thread(ask, server.port, "POST", "/echo?a=1", b"x" * LIMIT_BYTES)
        assert (status, said) == (200, {"asked": ["POST", "/echo", "a=1"], "body": "x" * LIMIT_BYTES})
        assert (await asyncio.to_thread(ask, server.port, "HEAD", "/echo"))[1] == {}
        assert server.buffered_bytes == 0


async def test_a_body_that_is_too_large_is_refused_though_the_client_still_sends() -> None:
    async with HttpServer("127.0.0.1", 0, echo) as server:
        large = b"x" * 5_000_000  # more than the sockets hold: whoever resets is not heard
        status, said = await asyncio.to_thread(ask, server.port, "POST", "/echo", large)
        assert status == 413 and "5000000" in said["message"]
        status, said = await asyncio.to_thread(ask, server.port, "POST", "/elsewhere", large)
        assert status == 200, "a body nobody wants is not read, and the answer arrives"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"GET /echo HTTP/1.1\r\n" + b"A: 1\r\n" * 101 + b"\r\n", 431),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
    ],
    ids=["chunked", "negative", "absurd", "headers", "line", "tls"],
)
async def test_what_cannot_be_served_is_answered(text: bytes, status: int) -> None:
    async with HttpServer("127.0.0.1", 0, echo) as server:
        # The client ends what it sends: what it still says after the answer is of no interest.
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(text)
        writer.write_eof()
        assert (await reader.readline()).split()[1] == str(status).encode()
        writer.close()


async def test_a_client_that_waits_for_leave_to_send_is_given_it() -> None:
    async with HttpServer("127.0.0.1", 0, echo) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert b'"body": "hi"' in await reader.read()
        writer.close()


async def test_who_dawdles_is_given_up_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpServer("127.0.0.1", 0, echo) as server:
        reader, slow = await asyncio.open_connection("127.0.0.1", server.port)
        slow.write(b"POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        await slow.drain()
        assert (await asyncio.to_thread(ask, server.port, "POST", "/echo", b"quick"))[1]["body"] == "quick"
        monkeypatch.setattr(served, "BODY_SECONDS", 0.05)
        late = await raw(server.port, b"POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        assert late.startswith(b"HTTP/1.1 408")
    # Closing does not wait for the one that dawdles.
    assert await reader.read() == b""
    slow.close()


async def test_bodies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "_BODIES_BYTES", 500)
    async with HttpServer("127.0.0.1", 0, echo) as server:
        assert (await asyncio.to_thread(ask, server.port, "POST", "/echo", b"x" * 501))[0] == 503
        assert (await asyncio.to_thread(ask, server.port, "POST", "/echo", b"x" * 500))[0] == 200
    monkeypatch.setattr(served, "_MAX_CONNECTIONS", 0)
    async with HttpServer("127.0.0.1", 0, echo) as server:
        assert (await asyncio.to_thread(ask, server.port, "GET", "/echo"))[0] == 503


async def test_a_defect_of_the_answer_is_told_where_it_happened() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with HttpServer("127.0.0.1", 0, echo) as server:
        status, said = await asyncio.to_thread(ask, server.port, "GET", "/defect")
    assert status == 500 and "planned" not in said["message"]
    assert [str(one["exception"]) for one in told] == ["planned"]
