"""What a worker's session asks of the world around it, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from headrace.core.errors import ServiceError
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.worker_service_pb2 import Assignment, ConnectRequest

__all__ = [
    "Action",
    "Attempt",
    "Begin",
    "Cancel",
    "Close",
    "Finish",
    "FoundInfrastructure",
    "Kill",
    "LetGo",
    "Notice",
    "Open",
    "Remove",
    "Send",
]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ownership of one run; as `AttemptRef`, but hashable."""

    run_id: str
    number: int
    fence: int

    @classmethod
    def of(cls, message: AttemptRef) -> Attempt:
        """The value of a message."""
        return cls(message.run_id, message.attempt, message.fence)

    def to_message(self) -> AttemptRef:
        """The message of the value."""
        return AttemptRef(run_id=self.run_id, attempt=self.number, fence=self.fence)


@dataclass(frozen=True, slots=True)
class FoundInfrastructure:
    """Infrastructure that exists, whichever worker has made it.

    Attributes:
        attempt: which it was made for.
        infrastructure_id: by which it can be found again.
    """

    attempt: Attempt
    infrastructure_id: str


@dataclass(frozen=True, slots=True)
class Open:
    """Open a stream, and write `hello` to it first.

    Attributes:
        stream: what the session calls the stream from now on.
        hello: the first message.
    """

    stream: int
    hello: ConnectRequest


@dataclass(frozen=True, slots=True)
class Send:
    """Write `request` to a stream; nothing happens where the stream has ended already."""

    stream: int
    request: ConnectRequest


@dataclass(frozen=True, slots=True)
class Close:
    """End a stream.

    Attributes:
        stream: which.
        abort: at once; else what was sent is written first.
    """

    stream: int
    abort: bool


@dataclass(frozen=True, slots=True)
class Begin:
    """Start the infrastructure of an attempt, or see it through if the assignment names some. What becomes of
    it is told by `started` and `exited`."""

    attempt: Attempt
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Cancel:
    """The run is being cancelled: let it end by itself, and after the grace make it end."""

    attempt: Attempt
    grace_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End an attempt's infrastructure now, however that has to be done."""

    attempt: Attempt
    reason: str


@dataclass(frozen=True, slots=True)
class LetGo:
    """Have nothing to do with an attempt's infrastructure any more; it goes on. Nothing is told of it."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove what may be left of an attempt that is not held. What came of it is told by `removed`."""

    attempt: Attempt
    infrastructure_id: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth a line for whoever looks at the worker.

    Attributes:
        text: one sentence.
        is_warning: something is not as it should be.
    """

    text: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """The session is over.

    Attributes:
        error: why; None: it was drained.
    """

    error: ServiceError | None = None


Action: TypeAlias = Open | Send | Close | Begin | Cancel | Kill | LetGo | Remove | Notice | Finish
