"""The server of a home as a process of its own: started in the background, asked, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from headrace.core.errors import HeadraceException
from headrace_services.home import ServerNote, is_alive

__all__ = [
    "Health",
    "StartFailed",
    "check_health",
    "start_in_background",
    "stop_server",
    "wait_until_healthy",
]

_POLL_SECONDS: Final = 0.02
_START_SECONDS: Final = 60.0
_TAIL_LINES: Final = 12
_LOG_BYTES: Final = 16 * 1024 * 1024


class StartFailed(HeadraceException):
    """The background server ended, or did not get healthy in time."""


def start_in_background(home: Path, arguments: Sequence[str], environment: dict[str, str]) -> ServerNote:
    """Starts a server that outlives this process, and waits until it is healthy.

    Args:
        home: the home it serves.
        arguments: of `server start`.
        environment: variables to add; credentials belong here, not into the arguments.

    Raises:
        StartFailed: it ended; the message has the last lines of its log.
        OSError: the home cannot be written to.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = home / "server.log"
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(home / "server.log.1")
    with log.open("ab") as output:
        begin = output.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "headrace_services", "server", "start", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env={**os.environ, **environment},
        )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        note = ServerNote.read(home)
        if note is not None and note.pid == child.pid:
            return note
        if child.poll() is not None:
            raise StartFailed(
                _tail(log, begin) or f"The server ended at once (exit code {child.returncode})."
            )
        time.sleep(_POLL_SECONDS)
    child.terminate()
    raise StartFailed(f"The server was not healthy after {_START_SECONDS:g} s. See {log}.")


def _tail(log: Path, begin: int) -> str:
    """The last lines of the log after `begin`."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return "\n".join(line.removeprefix("Error: ") for line in lines[-_TAIL_LINES:])


def stop_server(home: Path, timeout_seconds: float) -> ServerNote | None:
    """Asks the home's server to stop and waits until it has.

    Returns:
        What was stopped; None when no server was there.

    Raises:
        StartFailed: it is still there when the time is up.
    """
    note = ServerNote.read(home)
    if note is None or not is_alive(home):
        return None
    try:
        os.kill(note.pid, signal.SIGTERM)
    except ProcessLookupError:
        return None
    deadline = time.monotonic() + timeout_seconds
    while is_alive(home):
        if time.monotonic() > deadline:
            raise StartFailed(
                f"The server (pid {note.pid}) is still there after {timeout_seconds:g} s; calls may be in "
                f"flight. Wait, or end it with `kill -9 {note.pid}`: nothing acknowledged is lost."
            )
        time.sleep(_POLL_SECONDS)
    return note


class Health:
    """Words for how a home's server is."""

    SERVING = "serving"
    STOPPING = "stopping"
    SILENT = "silent"
    ABSENT = "absent"


def check_health(home: Path, timeout_seconds: float = 2.0) -> tuple[ServerNote | None, str]:
    """The home's server and one of the words of `Health`."""
    note = ServerNote.read(home)
    if note is None or not is_alive(home):
        return None, Health.ABSENT
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(note.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
        except grpc.RpcError:
            return note, Health.SILENT
    serving = bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return note, Health.SERVING if serving else Health.STOPPING


def wait_until_healthy(home: Path, timeout_seconds: float) -> tuple[ServerNote | None, str]:
    """As `check_health`, as soon as the server is serving, or when the time is up."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        note, health = check_health(home)
        if health == Health.SERVING or time.monotonic() >= deadline:
            return note, health
        time.sleep(_POLL_SECONDS)
