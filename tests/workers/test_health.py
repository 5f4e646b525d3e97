"""What a worker's health server answers, over real sockets."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from headrace_workers.health import HealthServer, Vitals

WELL = Vitals(is_connected=True, is_draining=False, silent_seconds=1.0, running=3, begun=7)


async def get(vitals: Vitals, request: str) -> tuple[int, str]:
    """Status and body of one answer."""
    async with HealthServer("127.0.0.1", 0, lambda: vitals, silent_seconds=10.0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    ("vitals", "request_line", "status", "words"),
    [
        (WELL, "GET /health", 200, "OK"),
        (replace(WELL, silent_seconds=11.0, is_connected=False), "GET /health", 503, "11 s"),
        (replace(WELL, is_connected=False), "GET /health", 200, "OK"),
        (WELL, "GET /ready", 200, "OK"),
        (replace(WELL, is_connected=False), "GET /ready", 503, "Not connected"),
        (replace(WELL, is_draining=True), "GET /ready", 503, "Draining"),
        (WELL, "GET /elsewhere", 404, "/metrics"),
        (WELL, "POST /health", 405, "GET"),
        (WELL, "GET /health?verbose", 200, "OK"),
        (WELL, "nonsense", 400, "HTTP"),
    ],
)
async def test_answers(vitals: Vitals, request_line: str, status: int, words: str) -> None:
    code, body = await get(vitals, request_line)
    assert (code, words in body) == (status, True), body


async def test_metrics() -> None:
    code, body = await get(WELL, "GET /metrics")
    assert code == 200
    assert "headrace_worker_runs 3\n" in body
    assert "# TYPE headrace_worker_runs_begun_total counter\nheadrace_worker_runs_begun_total 7\n" in body
    assert "headrace_worker_connected 1\n" in body


async def test_a_client_that_says_nothing_holds_nobody_up() -> None:
    async with HealthServer("127.0.0.1", 0, lambda: WELL) as server:
        _, silent = await asyncio.open_connection("127.0.0.1", server.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        silent.close()
        writer.close()
