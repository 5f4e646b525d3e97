"""Which stream a session speaks on, and when it opens another. Pure: time comes in as an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headrace.core.errors import (
    FieldsInvalid,
    ObjectNotFound,
    PermissionMissing,
    ProtocolUnsupported,
    ServerUnavailable,
    ServiceError,
    Unauthenticated,
)

__all__ = ["Links"]

BACKOFF_FIRST_SECONDS: Final = 0.2
BACKOFF_MAX_SECONDS: Final = 30.0
WELCOME_SECONDS: Final = 10.0
"""How long a server may leave a hello unanswered."""
SILENT_INTERVALS: Final = 3
"""After so many heartbeats' time without an answer a stream is taken for dead."""

_FINAL_ERRORS = (Unauthenticated, PermissionMissing, ProtocolUnsupported)
# What is wrong with the hello itself is a mistake of whoever started the worker; once a server has taken it,
# it is the server's affair, and may pass.
_FINAL_AT_FIRST = (FieldsInvalid, ObjectNotFound)


class Links:
    """At most one stream that the server has welcomed, and one that waits for its welcome.

    Attributes:
        current: the stream that everything is sent on; None: there is none.
        pending: the stream whose hello has not been answered; None: there is none.
        newest: the highest number given to a stream so far.
        has_been_welcome: whether any server has ever answered.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self.current: int | None = None
        self.pending: int | None = None
        self.newest = 0
        self.has_been_welcome = False
        self._failures = 0
        self._redial_at: float | None = 0.0
        self._pending_since = 0.0
        self._last_answer = 0.0
        self._interval = 0.0

    @property
    def heard_at(self) -> float | None:
        """When a server has answered last; None: never."""
        return self._last_answer if self.has_been_welcome else None

    @property
    def has_failed(self) -> bool:
        """Whether the last try to connect has failed."""
        return self._failures > 0

    def due(self) -> float | None:
        """When something is to be done next; None: when something happens."""
        times: list[float] = []
        if self.pending is not None:
            times.append(self._pending_since + WELCOME_SECONDS)
        elif self._redial_at is not None:
            times.append(self._redial_at)
        if self.current is not None:
            times.append(self._last_answer + SILENT_INTERVALS * self._interval)
        return min(times, default=None)

    def should_dial(self, now: float) -> bool:
        return self.pending is None and self._redial_at is not None and now >= self._redial_at

    def dialled(self, now: float) -> int:
        """A stream is being opened; its number."""
        self.newest += 1
        self.pending = self.newest
        self._pending_since = now
        self._redial_at = None
        return self.newest

    def welcomed(self, stream: int, interval_seconds: float, now: float) -> int | None:
        """The server has answered the hello of `stream`.

        Returns:
            The stream that it takes the place of.
        """
        replaced, self.current, self.pending = self.current, stream, None
        self.has_been_welcome = True
        self._interval = interval_seconds
        self._last_answer = now
        self._redial_at = None
        return replaced

    def answered(self, now: float) -> None:
        """A heartbeat of the current stream was answered."""
        self._last_answer = now
        self._failures = 0

    def silent(self, now: float) -> list[int]:
        """The streams on which the server has not answered in time; they count as failed now."""
        found: list[int] = []
        if self.pending is not None and now >= self._pending_since + WELCOME_SECONDS:
            found.append(self.pending)
        if self.current is not None and now >= self._last_answer + SILENT_INTERVALS * self._interval:
            found.append(self.current)
        return found

    def replace_in(self, seconds: float, now: float) -> None:
        """The server wants this stream's successor to be opened after so long."""
        if self.pending is None and self._redial_at is None:
            self._redial_at = now + seconds

    def failed(self, stream: int, error: ServiceError | None, now: float) -> float | None:
        """A stream has ended.

        Returns:
            Seconds until the next try to connect; None: the stream was of no account, or a try goes on.
        """
        if stream not in (self.current, self.pending):
            return None
        if stream == self.current:
            self.current = None
            if self.pending is not None:
                return None
        else:
            self.pending = None
        asked = 0.0
        if error is not None and not isinstance(error, ServerUnavailable):
            asked = error.retry_after_seconds or 0.0
        # Servers that are back give their workers a lease's time to say what they still have.
        longest = SILENT_INTERVALS * self._interval if self.has_been_welcome else BACKOFF_MAX_SECONDS
        longest = min(BACKOFF_MAX_SECONDS, longest)
        ceiling = min(longest, BACKOFF_FIRST_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        seconds = max(self._random() * ceiling, asked)
        self._redial_at = now + seconds
        return seconds

    def is_final(self, error: ServiceError | None) -> bool:
        """Whether connecting again with the same ends the same way."""
        if isinstance(error, _FINAL_ERRORS):
            return True
        return not self.has_been_welcome and isinstance(error, _FINAL_AT_FIRST)
