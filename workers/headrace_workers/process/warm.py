"""Processes that wait to be told what to run, made by copying one that has everything imported."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from headrace.core.errors import HeadraceException
from headrace_workers.process.messages import HEAD_BYTES, decode_head, encode
from headrace_workers.process.template import MESSAGE_BYTES

__all__ = ["Ended", "TemplateLost", "WarmProcess", "WarmProcesses"]

START_SECONDS: Final = 60.0
"""How long the template may take to import what runs need."""


STOP_SECONDS: Final = 5.0
"""How long the template may take to end when it is not wanted any more."""


class TemplateLost(HeadraceException):
    """The process that run processes are copies of has ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process has ended.

    Attributes:
        status: as `os.waitpid` gives it; None: nobody knows.
        peak_bytes: the most memory it has had.
    """

    status: int | None
    peak_bytes: int = 0


class WarmProcess:
    """One process: it waits for its job, does it and ends.

    Attributes:
        number: what the template calls it.
        pid: its process id; 0 until it is forked.
        output: where its standard output, error and log lines can be read.
        ended: done when it has ended.
    """

    def __init__(self, number: int, control: socket.socket, output: tuple[int, int, int]) -> None:
        self.number = number
        self.pid = 0
        self.output = output
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.forked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._control = control

    async def say(self, **message: Any) -> None:
        """Tell it something; nothing happens when it has ended."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._control, encode(message))

    async def hear(self) -> dict[str, Any] | None:
        """What it says next; None: it has nothing more to say."""
        head = await self._exactly(HEAD_BYTES)
        body = await self._exactly(decode_head(head)) if head is not None else None
        return None if body is None else dict(json.loads(body))

    async def _exactly(self, size: int) -> bytes | None:
        found = bytearray()
        loop = asyncio.get_running_loop()
        while len(found) < size:
            try:
                part = await loop.sock_recv(self._control, size - len(found))
            except OSError:
                return None
            if not part:
                return None
            found += part
        return bytes(found)

    def close(self) -> None:
        """Let go of it; if it has not ended, it does now."""
        self._control.close()


class WarmProcesses:
    """A few processes kept ready; `async with` it.

    Args:
        spare: how many are kept ready.
        environment: of the template: what interpreters read when they start is the same for all.
    """

    def __init__(self, spare: int, environment: dict[str, str]) -> None:
        self._spare = spare
        self._environment = environment
        self._next = 0
        self._ready: deque[WarmProcess] = deque()
        self._alive: dict[int, WarmProcess] = {}
        self._template: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._is_warm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> WarmProcesses:
        await self._begin()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        template, self._template = self._template, None
        if template is not None:
            try:
                await asyncio.to_thread(template.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                template.kill()
                template.wait()
        for process in list(self._alive.values()):
            self._forget(process, Ended(None))
        for process in self._ready:
            process.close()
            _close_all(process.output)

    async def take(self) -> WarmProcess:
        """A process that is used for one job, by the caller.

        Raises:
            TemplateLost: it could not be made.
        """
        async with self._lock:
            if self._socket is None:
                await self._begin()
        while self._ready:
            process = self._ready.popleft()
            if not process.ended.done():
                self._fill()
                return process
            process.close()
            _close_all(process.output)
        process = self._fork()
        await process.forked
        self._fill()
        return process

    def signal(self, process: WarmProcess, signum: int) -> None:
        """Send a signal to a process and everything it has started, as long as it is there."""
        if self._socket is not None and not process.ended.done():
            self._tell(f"signal {process.number} {signum}")

    async def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._template = self._spawn(theirs.fileno())
        self._socket = ours
        self._is_warm = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(ours, self._heard)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._is_warm
        except TimeoutError:
            raise TemplateLost(f"What starts runs was not ready after {START_SECONDS:g} s.") from None
        self._fill()

    def _spawn(self, descriptor: int) -> subprocess.Popen[bytes]:
        """The template. From the main thread: the kernel ends it when the thread that started it ends."""
        module = "headrace_workers.process.template"
        return subprocess.Popen(
            [sys.executable, "-m", module, str(descriptor), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=[descriptor],
            env=self._environment,
            # Ctrl-C on the worker's terminal is the worker's affair.
            start_new_session=True,
        )

    def _fill(self) -> None:
        while len(self._ready) < self._spare and self._socket is not None:
            self._ready.append(self._fork())

    def _fork(self) -> WarmProcess:
        """Ask for one more; it can be told its job at once."""
        self._next += 1
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        pipes = [os.pipe() for _ in range(3)]
        process = WarmProcess(self._next, ours, (pipes[0][0], pipes[1][0], pipes[2][0]))
        self._alive[process.number] = process
        given = [theirs.fileno(), pipes[0][1], pipes[1][1], pipes[2][1]]
        try:
            self._tell(f"fork {process.number}", given)
        finally:
            theirs.close()
            _close_all(pipe[1] for pipe in pipes)
        return process

    def _tell(self, text: str, descriptors: list[int] | None = None) -> None:
        assert self._socket is not None
        try:
            socket.send_fds(self._socket, [text.encode()], descriptors or [])
        except OSError:
            self._lost()
            raise TemplateLost("The process that starts runs has ended.") from None

    def _heard(self) -> None:
        """Everything that the template has said."""
        while self._socket is not None:
            try:
                data = self._socket.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            word, number, *rest = data.decode().split()
            process = self._alive.get(int(number))
            if word == "ready" and not self._is_warm.done():
                self._is_warm.set_result(None)
            elif word == "forked" and process is not None:
                process.pid = int(rest[0])
                process.forked.set_result(process.pid)
            elif word == "exited" and process is not None:
                self._forget(process, Ended(int(rest[0]), int(rest[1])))

    def _lost(self) -> None:
        """The template is gone. Its children go with it; so does what they have started."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._template is not None:
            # Its socket closes a moment before it has ended.
            self._template.kill()
            self._template.wait()
        if not self._is_warm.done():
            self._is_warm.set_exception(TemplateLost("The process that starts runs has ended at its start."))
        for process in list(self._alive.values()):
            if process.pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
            self._forget(process, Ended(None))

    def _forget(self, process: WarmProcess, ended: Ended) -> None:
        self._alive.pop(process.number, None)
        if not process.forked.done():
            process.forked.set_exception(TemplateLost("The process that starts runs has ended."))
            process.forked.exception()  # nobody may be waiting
        if not process.ended.done():
            process.ended.set_result(ended)


def _close_all(descriptors: Any) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
