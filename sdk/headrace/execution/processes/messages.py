"""What a process and the child that runs its tasks say to each other.

    parent                            child
      Start ──────────────────────────▶          once
      Job ────────────────────────────▶          one at a time
         ◀──────────────────────────── Taken
         ◀──────────────────────────── Request   any number, from any thread: records, above all
      Reply ──────────────────────────▶
      Cancel, Lost, Interrupt, Directed ▶        at any time
         ◀──────────────────────────── Ended or Refused
      Stop ───────────────────────────▶

What belongs to the user is inside of messages as bytes, so that a message can always be read.

A worker of a cluster is given its job by the cluster. If it runs on the machine of the process that has
submitted the job, it says the rest in the same words: it asks to `take` the job where it was told to, and
from then on it speaks as a child does.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from headrace.execution.processes.kept import RemoteResult
from headrace.runs import TaskRun
from headrace.states import State

if TYPE_CHECKING:
    from headrace.assets import Asset

__all__ = [
    "Cancel",
    "Channel",
    "Directed",
    "Ended",
    "Interrupt",
    "Job",
    "Left",
    "Lost",
    "Refused",
    "Reply",
    "Request",
    "Start",
    "Stop",
    "Taken",
]


@dataclass(frozen=True, slots=True)
class Start:
    """The first message.

    Attributes:
        path: where modules are found.
        initializer: a function and its arguments, pickled; called before the first job.
    """

    path: list[str]
    initializer: bytes | None


@dataclass(frozen=True, slots=True)
class Job:
    """A task run whose body is to run.

    Attributes:
        call: the task and its arguments, pickled.
        run: the task run, without arguments.
        log_prints: whether `print` becomes a log line of the run.
        persist_result: whether the result is kept.
        context: where it was submitted: see `serialize_context`.
        environment: the variables at that time; those that the initializer has set come before them.
        is_cancelled: whether no more time is to be spent on waits for a next try.
        upstream_assets: what the results that it is given were made from.
    """

    call: bytes
    run: TaskRun
    log_prints: bool
    persist_result: bool | None
    context: Mapping[str, Any]
    environment: Mapping[str, str]
    is_cancelled: bool
    upstream_assets: Sequence[Asset] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """The child has begun with a job: from now on its death is the death of the run."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Waits for a next try end, and what has not begun is not begun."""


@dataclass(frozen=True, slots=True)
class Stop:
    """There will be no more jobs."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A run that the child owns is not its own any longer, or is to be left at its next task boundary."""

    run_id: str
    reason: str
    is_suspended: bool


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The run of a job is cancelled: its body is to be interrupted, because of the reason."""

    run_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Directed:
    """What others want of a run that the child attends to: a serialised `RunDirective`."""

    directive: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A call of the parent: see `Desk` for the methods."""

    number: int
    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the request of that number: a value, or a pickled exception."""

    number: int
    value: Any = None
    error: bytes | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The body was not entered, because of a pickled exception."""

    error: bytes


@dataclass(frozen=True, slots=True)
class Left:
    """In place of the data of a state: it stays on the cluster, where it was made.

    Attributes:
        size_bytes: how large it is, pickled.
    """

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The run has ended.

    Attributes:
        state: its newest state, without data.
        data: the state's data, pickled, or where it is; None: it has none.
        changes: fields of the run.
        error: a pickled exception by which execution was ended from outside.
    """

    state: State[Any]
    data: bytes | Left | RemoteResult | None
    changes: Mapping[str, Any]
    error: bytes | None


class Channel:
    """Whole messages over a socket. Any thread may send, one receives."""

    def __init__(self, descriptor: int) -> None:
        self._connection: Connection = Connection(descriptor)
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Send one message.

        Raises:
            OSError: the other end is gone.
        """
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._connection.send_bytes(data)

    def receive(self) -> Any:
        """The next message; blocks.

        Raises:
            EOFError: the other end has closed.
            OSError: the other end is gone.
        """
        return pickle.loads(self._connection.recv_bytes())

    def has_message(self, timeout_seconds: float) -> bool:
        """Whether `receive` would not block within that time; also when the other end is gone."""
        return self._connection.poll(timeout_seconds)

    def close(self) -> None:
        """Close this end."""
        self._connection.close()
