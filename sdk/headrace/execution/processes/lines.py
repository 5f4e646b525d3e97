"""Where workers of a cluster on this machine reach the process that submitted what they run."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Literal, TypeAlias

from headrace.execution.processes.messages import Channel, Reply, Request

__all__ = ["Event", "Lines", "dial"]

Event: TypeAlias = Channel | Literal["done", "revoked"]
"""What happens to a job that a cluster has been given: a worker on this machine takes it, the cluster has
nothing more to do for it, or it must not be taken any more."""

_PATH_BYTES: Final = 100
"""The system allows a few more in the address of a socket."""
_FIRST_WORD_SECONDS: Final = 10.0
_QUEUED: Final = 1024


class Lines:
    """A socket in a folder that only this user can enter; each job that is taken gets a channel.

    Attributes:
        address: where to reach it on this machine.
    """

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="headrace-")
        if len(folder) > _PATH_BYTES - 10:
            shutil.rmtree(folder)
            folder = tempfile.mkdtemp(prefix="headrace-", dir="/tmp")
        self._folder = Path(folder)
        self.address = str(self._folder / "line")
        self._lock = threading.Lock()
        self._expected: dict[str, SimpleQueue[Event]] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.address)
        self._listener.listen(_QUEUED)
        threading.Thread(target=self._accept, name="headrace-lines", daemon=True).start()

    @contextmanager
    def expect(self, run_id: str) -> Generator[SimpleQueue[Event]]:
        """While inside, the run may be taken, once.

        Yields:
            Gets what happens to it.
        """
        events: SimpleQueue[Event] = SimpleQueue()
        with self._lock:
            self._expected[run_id] = events
        try:
            yield events
        finally:
            with self._lock:
                self._expected.pop(run_id, None)

    def is_expected(self, run_id: str) -> bool:
        """Whether the run may still be taken."""
        return run_id in self._expected

    def revoke(self, run_id: str) -> None:
        """See that the run is not taken any more, if it has not been."""
        with self._lock:
            events = self._expected.pop(run_id, None)
        if events is not None:
            events.put("revoked")

    def close(self) -> None:
        """Nobody is expected any more."""
        with suppress(OSError):
            # Wakes the thread that waits for connections.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            channel = Channel(connection.detach())
            with suppress(EOFError, OSError):
                self._connect(channel)

    def _connect(self, channel: Channel) -> None:
        if not channel.has_message(_FIRST_WORD_SECONDS):
            return
        request = channel.receive()
        assert isinstance(request, Request)
        with self._lock:
            events = self._expected.pop(request.arguments[0], None)
        if events is not None:
            # Before the answer, so that nothing of the run is over before its channel is there.
            events.put(channel)
        channel.send(Reply(request.number, events is not None))


def dial(address: str) -> Channel | None:
    """A channel to the process that listens at `address`; None: it is not on this machine, or is gone."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(address)
    except OSError:
        line.close()
        return None
    return Channel(line.detach())
