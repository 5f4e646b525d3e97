"""What runs in a child of the process pool: `python -m headrace.task_runners.child DESCRIPTOR`."""

from __future__ import annotations

import os
import queue
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import FrameType

from headrace.execution.interruption import takes_signals, was_for_scope
from headrace.execution.processes.messages import Channel, Ended, Job, Refused, Start, Taken
from headrace.execution.processes.remote import Parent, RemoteRecorder
from headrace.execution.processes.shipping import packed_error, unpacked
from headrace.recorder.process import record_through
from headrace.task_runners.jobs import JobExecution

__all__ = ["main"]


class _Child:
    """Runs one job after the other on the main thread, where a time limit can interrupt it."""

    def __init__(self, channel: Channel) -> None:
        start: Start = channel.receive()
        sys.path[:] = start.path
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._execution = JobExecution(self._next_key)
        self._parent = Parent(
            channel,
            on_job=self._jobs.put,
            on_cancel=self._execution.cancel,
            on_interrupt=self._execution.interrupt,
            # Nobody can be told any more what happens here.
            on_gone=lambda: os._exit(1),
        )
        record_through(RemoteRecorder(self._parent, self._execution.lose))
        self._parent.listen()
        before = dict(os.environ)
        self._refusal = _initialize(start.initializer)
        self._variables = {name: text for name, text in os.environ.items() if before.get(name) != text}

    def serve(self) -> None:
        """Until the parent says that there will be no more jobs."""
        while (job := self._jobs.get()) is not None:
            self._parent.send(Taken())
            self._parent.send(Refused(self._refusal) if self._refusal is not None else self._do(job))

    def _do(self, job: Job) -> Ended | Refused:
        with _environment({**job.environment, **self._variables}):
            return self._execution.run(job)

    def _next_key(self, run_id: str, key: str) -> str:
        answer: str = self._parent.ask("next_key", run_id, key).result()
        return answer


def _initialize(packed_call: bytes | None) -> bytes | None:
    """Call the initializer; gives what it raised, pickled."""
    if packed_call is None:
        return None
    try:
        initializer, arguments = unpacked(packed_call)
        initializer(*arguments)
    except Exception as error:
        return packed_error(error)
    return None


@contextmanager
def _environment(variables: Mapping[str, str]) -> Generator[None]:
    """Exactly these variables while inside."""
    before = dict(os.environ)
    _replace_environment(variables)
    try:
        yield
    finally:
        _replace_environment(before)


def _replace_environment(variables: Mapping[str, str]) -> None:
    if os.environ == variables:
        return
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _go_on(signum: int, frame: FrameType | None) -> None:
    """Take a signal and do nothing."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    """Interrupt the body that is to end; for everybody else, SIGTERM ends the process."""
    if not was_for_scope(frame):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def main(descriptor: int) -> None:
    """Serve the parent at the other end of the socket `descriptor`."""
    os.set_inheritable(descriptor, False)
    # Ctrl-C reaches every process of a terminal; the parent decides. Not SIG_IGN, which programs that a task
    # starts would inherit.
    signal.signal(signal.SIGINT, _go_on)
    signal.signal(signal.SIGTERM, _terminate)
    with takes_signals():
        _Child(Channel(descriptor)).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
