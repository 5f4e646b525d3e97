"""The server of a home: found by its `server.json`, or started when there is none."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import grpc.aio

from headrace.client.channel import open_channel
from headrace.core.errors import ConfigurationError, ServerUnavailable
from headrace.recorder.options import read_server_file
from headrace.settings import Settings

__all__ = ["connect", "ensure_server"]

START_SECONDS: Final = 30.0
"""How long a server may take until it is healthy."""
HEALTH_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.02
_LOG_LINES: Final = 15
_DISK_FULL_BYTES: Final = 64 * 1024
_SERVING: Final = 1
_HEALTH_METHOD: Final = "/grpc.health.v1.Health/Check"


async def connect(settings: Settings, *, start_server: bool = True) -> tuple[str, Any]:
    """The address of the home's server, and a channel to it on which it has answered.

    Args:
        settings: whose home it is.
        start_server: start one when there is none; it leaves by itself when nobody needs it.

    Raises:
        ServerUnavailable: there is none, or it could not be started; the message then has the end of its log.
        ConfigurationError: the home folder cannot be written to.
    """
    found = await _alive(settings.home)
    if found is not None:
        return found
    if not start_server:
        raise ServerUnavailable(
            f"No server runs for {settings.home}. Start one with `headrace server start`, or set "
            f"HEADRACE_API_URL to the address of another."
        )
    return await asyncio.shield(_start(settings.home))


def ensure_server(settings: Settings) -> str:
    """The address of the home's server, which is started when there is none. For callers without a loop.

    Raises:
        ServerUnavailable, ConfigurationError: as `connect`.
    """

    async def find() -> str:
        address, channel = await connect(settings)
        await channel.close(None)
        return address

    return asyncio.run(find())


async def _alive(home: Path) -> tuple[str, Any] | None:
    """The address and a channel, if the home's server answers."""
    noted = read_server_file(home)
    if noted is None or not noted.is_alive():
        return None
    channel = open_channel(noted.address)
    if await _is_serving(channel):
        return noted.address, channel
    await channel.close(None)
    return None


async def _is_serving(channel: Any) -> bool:
    """Whether `grpc.health.v1` says SERVING of the whole server."""
    check = channel.unary_unary(_HEALTH_METHOD)
    try:
        # An empty request asks about the whole server; the answer's only field is the status.
        answer: bytes = await check(b"", timeout=HEALTH_SECONDS)
    except grpc.aio.AioRpcError:
        return False
    return answer == bytes([0x08, _SERVING])


async def _start(home: Path) -> tuple[str, Any]:
    """Start a server, or wait for the one that another process is starting."""
    deadline = time.monotonic() + START_SECONDS
    with _start_lock(home) as lock:
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"Another process is starting a server for {home}, without success.")
            await asyncio.sleep(_POLL_SECONDS)
        found = await _alive(home)
        if found is not None:
            return found
        log = home / "server.log"
        log_start = log.stat().st_size if log.exists() else 0
        process = _spawn(home, log)
        while time.monotonic() < deadline:
            found = await _alive(home)
            if found is not None:
                return found
            if process.poll() is not None:
                raise ServerUnavailable(
                    f"The local server ended at its start (exit code {process.returncode})."
                    + _log_tail(log, log_start)
                )
            await asyncio.sleep(_POLL_SECONDS)
        raise ServerUnavailable(
            f"The local server was not healthy after {START_SECONDS:g} s." + _log_tail(log, log_start)
        )


@contextlib.contextmanager
def _start_lock(home: Path) -> Generator[int]:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(home / "server.start.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"The home folder {home} cannot be written to ({error.strerror}): "
            f"set HEADRACE_HOME to a folder of yours."
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _spawn(home: Path, log: Path) -> subprocess.Popen[bytes]:
    """A server process of its own session, which outlives this one."""
    command = [sys.executable, "-m", "headrace.cli", "server", "start", "--on-demand"]
    environment = {**os.environ, "HEADRACE_HOME": str(home)}
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=environment,
            start_new_session=True,
        )


def _log_tail(log: Path, start: int) -> str:
    """The end of what the log has got since `start`, for a message."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    if not lines:
        if shutil.disk_usage(log.parent).free < _DISK_FULL_BYTES:
            return f" The disk of {log.parent} is full: free some space on it."
        return f" Its log {log} is empty."
    return "\n".join([f" The end of {log}:", *(f"  {line}" for line in lines[-_LOG_LINES:])])
