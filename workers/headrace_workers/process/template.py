"""The process that run processes are copies of: `python -m headrace_workers.process.template DESCRIPTOR`.

It has imported what every run needs, and nothing of a user, and never runs anything itself: it has one
thread, no connection and no event loop, so a fork of it is as good as a new interpreter and takes
milliseconds. Each fork is used for exactly one run.

The worker says over a socket what is to be done:

- `fork N`, with four descriptors: the child's control socket, and where its standard output, its errors and
  its log lines go;
- `signal N SIGNUM`, to the group of child N, as long as it is there.

It is answered with `forked N PID` and, when the child has ended, `exited N STATUS PEAK_BYTES`. When the
worker goes away, every child's group is killed.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from types import FrameType
from typing import Any, Final

from headrace_workers.process.system import die_with_parent

__all__ = ["main"]

MESSAGE_BYTES: Final = 4096
DESCRIPTORS: Final = 4
_IMPORTS: Final = (
    "asyncio",
    "concurrent.futures",
    "email.parser",
    "json",
    "logging.config",
    "runpy",
    "uuid",
    "headrace",
    "headrace.cli.executing",
    "headrace.client.api",
    "headrace.execution.api",
    "headrace.execution.attempts",
    "headrace.flows",
    "headrace.logging.configuration",
    "headrace.logging.formatters",
    "headrace.logging.handlers",
    "headrace.recorder.link",
    "headrace.recorder.process",
    "headrace.results",
    "headrace.runtime",
    "headrace.task_runners",
    "headrace.tasks",
    "headrace.transactions",
    "headrace.validation",
    "headrace_workers.process.child",
)


class _Template:
    """Forks when it is told to, and tells of what becomes of its children."""

    def __init__(self, worker: socket.socket) -> None:
        self._worker = worker
        self._pids: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._wake_read, self._wake_write = os.pipe()
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def serve(self) -> tuple[int, int] | None:
        """Until the worker goes away.

        Returns:
            In a child: the descriptors of its control socket and for its log lines; in the template: None.
        """
        watched: list[Any] = [self._worker, self._wake_read]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if self._wake_read in ready:
                os.read(self._wake_read, MESSAGE_BYTES)
                self._reap()
            if self._worker not in ready:
                continue
            data, descriptors, _, _ = socket.recv_fds(self._worker, MESSAGE_BYTES, DESCRIPTORS)
            if not data:
                self._end_all()
                return None
            word, number, *rest = data.decode().split()
            if word == "fork":
                own = self._fork(int(number), descriptors)
                if own is not None:
                    return own
            elif word == "signal":
                self._signal(int(number), int(rest[0]))

    def _fork(self, number: int, descriptors: list[int]) -> tuple[int, int] | None:
        """In the child: its control socket, and where its log lines go."""
        pid = os.fork()
        if pid == 0:
            self._become_child(descriptors)
            return descriptors[0], descriptors[3]
        for descriptor in descriptors:
            os.close(descriptor)
        self._pids[number] = pid
        self._numbers[pid] = number
        self._tell(f"forked {number} {pid}")
        return None

    def _become_child(self, descriptors: list[int]) -> None:
        template_pid = os.getppid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        die_with_parent(template_pid)
        self._worker.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        _, output, errors, _ = descriptors
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.close(output)
        os.close(errors)

    def _signal(self, number: int, signum: int) -> None:
        pid = self._pids.get(number)
        if pid is not None:
            _signal_group(pid, signum)

    def _reap(self) -> None:
        while self._pids:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            # Before its number can be anybody else's: what it has started and left behind.
            _signal_group(ended.si_pid, signal.SIGKILL)
            pid, status, usage = os.wait4(ended.si_pid, 0)
            number = self._numbers.pop(pid, None)
            if number is not None:
                del self._pids[number]
                self._tell(f"exited {number} {status} {usage.ru_maxrss * 1024}")

    def _tell(self, text: str) -> None:
        try:
            self._worker.send(text.encode())
        except OSError:
            self._end_all()
            os._exit(0)

    def _end_all(self) -> None:
        for pid in self._numbers:
            _signal_group(pid, signal.SIGKILL)


def _nothing(signum: int, frame: FrameType | None) -> None:
    """A handler, so that the signal wakes the `select`."""


def _signal_group(pid: int, signum: int) -> None:
    # A child that has only just been forked is not the leader of a group yet.
    for send in (os.killpg, os.kill):
        try:
            send(pid, signum)
        except (ProcessLookupError, PermissionError):
            continue
        return


def main(argv: list[str]) -> int:
    """Be the template.

    Args:
        argv: the descriptor of the socket, and the worker's process id.

    Returns:
        The exit code.
    """
    die_with_parent(int(argv[1]))
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    for name in _IMPORTS:
        __import__(name)
    from headrace.client.channel import client_version

    client_version()
    # What is here now stays: collecting it in a child would copy its pages.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(argv[0])) as worker:
        worker.send(b"ready 0")
        own = _Template(worker).serve()
    if own is None:
        return 0
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    from headrace_workers.process.child import run_child

    return run_child(*own)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
