"""What errors of the engine mean for a container, and the output of containers as the engine keeps it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import aiohttp
from aiodocker.exceptions import DockerError

from headrace.core.limits import LOG_MESSAGE_BYTES
from headrace.docker.engine import engine_error
from headrace_workers.infrastructure.output import LogLine
from headrace_workers.infrastructure.worker import EngineUnavailable, InfrastructureGone

__all__ = ["OutputLines", "answers", "read_output"]

_ENDLESS: Final = aiohttp.ClientTimeout(sock_connect=10.0)
_NOT_FOUND: Final = 404
_SERVER_ERRORS: Final = 500
_FRAME: Final = struct.Struct(">BxxxL")
_STDERR: Final = 2
_CHUNK_BYTES: Final = 64 * 1024


@contextlib.contextmanager
def answers(container_id: str) -> Iterator[None]:
    """While inside, errors of the engine say what they mean for a container.

    Raises:
        InfrastructureGone: there is no such container.
        EngineUnavailable: the engine does not answer, or is in trouble itself.
    """
    try:
        yield
    except DockerError as error:
        if error.status == _NOT_FOUND:
            raise InfrastructureGone(f"The container {container_id[:12]} is not there any more.") from None
        if error.status >= _SERVER_ERRORS:
            raise EngineUnavailable(f"The container engine does not answer: {engine_error(error)}") from None
        raise
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise EngineUnavailable(f"The container engine does not answer: {engine_error(error)}") from None


async def read_output(
    engine: Any, container_id: str, since_ns: int | None
) -> AsyncIterator[Sequence[LogLine]]:
    """What a container prints, until it has ended or the engine goes away: lines that came together.

    Not by the library's own reader, which mixes both streams and takes only valid UTF-8.

    Raises:
        DockerError, aiohttp.ClientError: as the engine answers.
    """
    parameters: dict[str, Any] = {"stdout": 1, "stderr": 1, "follow": 1, "timestamps": 1}
    if since_ns is not None:
        parameters["since"] = since_ns // 10**9  # not every engine looks below the second
    shown = await engine.containers.container(container_id).show()
    entries = _lines_of if shown["Config"].get("Tty") else _frames_of
    query = engine._query(f"containers/{container_id}/logs", params=parameters, timeout=_ENDLESS)
    async with query as response:
        rests = {False: OutputLines(), True: OutputLines()}
        async for is_error, data in entries(response):
            if lines := rests[is_error].take(data, is_error):
                yield lines
        for is_error, rest in rests.items():
            if lines := rest.take(b"\n", is_error) if rest.data else []:
                yield lines


async def _lines_of(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[bool, bytes]]:
    """The engine's entries for a container with a terminal: lines."""
    rest = b""
    while data := await response.content.read(_CHUNK_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield False, line + b"\n"
    if rest:
        yield False, rest


async def _frames_of(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[bool, bytes]]:
    """The engine's entries for any other, of both streams: a line, or a part of one."""
    while True:
        try:
            number, length = _FRAME.unpack(await response.content.readexactly(_FRAME.size))
            yield number == _STDERR, await response.content.readexactly(length)
        except asyncio.IncompleteReadError:
            return


class OutputLines:
    """Puts the lines of one stream together from the engine's entries: lines, or parts of them.

    Attributes:
        data: of a line that has not ended yet.
    """

    def __init__(self) -> None:
        self.data = b""
        self._time_ns: int | None = None

    def take(self, entry: bytes, is_error: bool) -> list[LogLine]:
        """The lines that an entry ends; it begins with the engine's time."""
        stamp, space, text = entry.partition(b" ")
        time_ns = _nanoseconds(stamp.decode(errors="replace")) if space else None
        *whole, rest = (text if time_ns is not None else entry).split(b"\n")
        lines: list[LogLine] = []
        for data in whole:
            lines.append(self._line(data, is_error, time_ns))
        self.data += rest
        if rest:
            self._time_ns = time_ns
        if len(self.data) > LOG_MESSAGE_BYTES:
            lines.append(self._line(b"", is_error, time_ns))
        return lines

    def _line(self, data: bytes, is_error: bool, time_ns: int | None) -> LogLine:
        """The line that ends with `data`."""
        text = (self.data + data).decode(errors="backslashreplace").rstrip("\r")
        if self.data and self._time_ns is not None:
            time_ns = self._time_ns
        self.data, self._time_ns = b"", None
        return LogLine(text, is_error, time_ns)


def _nanoseconds(stamp: str) -> int | None:
    """An instant such as 2026-11-20T15:04:05.123456789Z, or with an offset; None: it is none."""
    whole, digits, zone = stamp, "", ""
    if "." in stamp:
        whole, _, rest = stamp.partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        zone = rest[len(digits) :]
    try:
        seconds = datetime.fromisoformat(f"{whole}{zone}").timestamp()
    except ValueError:
        return None
    return int(seconds) * 10**9 + int(digits.ljust(9, "0")[:9])
