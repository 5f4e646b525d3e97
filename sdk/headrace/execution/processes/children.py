"""The children of a process that run its tasks."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from headrace.execution.processes.desk import Desk, RemoteBody, serve_job
from headrace.execution.processes.messages import (
    Cancel,
    Channel,
    Ended,
    Job,
    Refused,
    Start,
    Stop,
)

if TYPE_CHECKING:
    from headrace.engine.tasks import TaskCall

__all__ = ["ChildDied", "Children"]

_CHILD_MODULE: Final = "headrace.task_runners.child"
_STOP_SECONDS: Final = 10.0
"""How long children may take to leave."""
_TRIES: Final = 3

_logger = logging.getLogger("headrace.task_runners")


class ChildDied(Exception):
    """A child ended in the middle of a job.

    Attributes:
        was_taken: whether it had begun with the job.
    """

    def __init__(self, message: str, was_taken: bool) -> None:
        super().__init__(message)
        self.was_taken = was_taken


class _Child:
    """One process, started anew: never a fork of this one."""

    def __init__(self, start: Start) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            path = os.pathsep.join(entry or os.curdir for entry in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _CHILD_MODULE, str(descriptor)],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                pass_fds=[descriptor],
            )
        self._channel = Channel(ours.detach())
        self._send_quietly(start)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def run(self, call: TaskCall, job: Job) -> Ended | Refused:
        """Have the child run a job.

        Raises:
            ChildDied: it did not live to say how the job ended; what it had begun is CRASHED.
        """
        desk = Desk(call, self._channel.send)
        call.context.scope = RemoteBody(call, self._send_quietly)
        try:
            self._channel.send(job)
            return serve_job(self._channel, desk, lambda: self.is_alive)
        except (EOFError, OSError):
            reason = self._how_it_ended()
            desk.end_unended(reason)
            raise ChildDied(reason, desk.was_taken) from None
        finally:
            call.context.scope = None

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code >= 0:
            return f"Execution was ended by its process, which left with code {code}."
        return f"Execution was killed by signal {-code} ({signal.Signals(-code).name})."

    def cancel(self) -> None:
        self._send_quietly(Cancel())

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        """Say that there will be no more jobs."""
        self._send_quietly(Stop())

    def wait(self) -> None:
        """Serve what it still has to record, until it has left."""
        desk = Desk(None, self._channel.send)
        try:
            while self._channel.has_message(_STOP_SECONDS):
                desk.serve(self._channel.receive())
            _logger.warning("A process of the task runner did not end: it is killed.")
            self._process.kill()
        except (EOFError, OSError):
            pass
        finally:
            self._how_it_ended()
            self._channel.close()

    def _send_quietly(self, message: object) -> None:
        try:
            self._channel.send(message)
        except OSError:
            pass  # whoever waits for its answers sees that it is gone


class Children:
    """As many as there are jobs at a time; those that have nothing to do are used again.

    Args:
        initializer: a pickled function with its arguments; called in each child before its first job.
    """

    def __init__(self, initializer: bytes | None) -> None:
        self._initializer = initializer
        self._lock = threading.Lock()
        self._all: set[_Child] = set()
        self._idle: list[_Child] = []
        self._is_cancelled = False

    def run(self, call: TaskCall, make_job: Callable[[bool], Job]) -> Ended | Refused:
        """Have a child run a job.

        Args:
            call: the run; its state follows what the child does.
            make_job: makes the job; told whether everything has been cancelled.

        Raises:
            ChildDied: the child did not live to say how the job ended; what it had begun is CRASHED.
            OSError: no process can be started.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                with self._one() as child:
                    return child.run(call, make_job(self._is_cancelled))
            except ChildDied as error:
                # One that was killed while it had nothing to do is no reason to end the run.
                if error.was_taken or not tries_left:
                    raise
        raise AssertionError("unreachable")

    @contextmanager
    def _one(self) -> Generator[_Child]:
        child = self._take()
        try:
            yield child
        except BaseException:
            self._discard(child)
            raise
        with self._lock:
            self._idle.append(child)

    def _take(self) -> _Child:
        while True:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None:
                child = _Child(Start(list(sys.path), self._initializer))
                with self._lock:
                    self._all.add(child)
                return child
            if child.is_alive:
                return child
            self._discard(child)

    def _discard(self, child: _Child) -> None:
        with self._lock:
            self._all.discard(child)
        child.stop()
        child.wait()

    def cancel_all(self) -> None:
        """Waits for a next try end; bodies go on."""
        with self._lock:
            self._is_cancelled = True
            children = list(self._all)
        for child in children:
            child.cancel()

    def kill_all(self) -> None:
        """End every child at once; what it has begun ends with it."""
        with self._lock:
            children = list(self._all)
        for child in children:
            child.kill()

    def close(self) -> None:
        """Let every child leave, and wait for that; none may be busy."""
        with self._lock:
            children, self._all, self._idle = list(self._all), set[_Child](), []
        for child in children:
            child.stop()
        for child in children:
            child.wait()
