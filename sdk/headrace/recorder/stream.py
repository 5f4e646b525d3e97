"""The recording stream as a state machine without I/O: what to send next, what to do when it breaks.

It is fed with what happened (opened, acknowledged, failed) and answers with values. Sequence numbers are
the whole of its memory: `durable` is what a server has committed, `sent` what has been written to the
present stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from headrace.core.errors import (
    FieldsInvalid,
    MessageTooLarge,
    PayloadTooLarge,
    PermissionMissing,
    ProtocolUnsupported,
    RecorderSealed,
    SequenceGap,
    ServerUnavailable,
    ServiceError,
    Unauthenticated,
)
from headrace.core.limits import BATCH_BYTES, PROTOCOL_MAX, PROTOCOL_MIN

__all__ = ["Again", "GiveUp", "Slice", "StreamState"]

BACKOFF_FIRST_SECONDS: Final = 0.2
BACKOFF_MAX_SECONDS: Final = 30.0
BATCH_ENTRIES: Final = 500

_FINAL_ERRORS = (Unauthenticated, PermissionMissing, ProtocolUnsupported, RecorderSealed)
# A server answers these to what it was sent, so sending the same again ends the same way.
_POISON_ERRORS = (FieldsInvalid, PayloadTooLarge, MessageTooLarge)


@dataclass(frozen=True, slots=True)
class Slice:
    """What to send next.

    Attributes:
        first_seq: of the first entry.
        max_entries: how many at most.
        max_bytes: how large at most, together.
        is_quarantined: the one entry was refused with the whole stream: send a notice in its place.
    """

    first_seq: int
    max_entries: int
    max_bytes: int
    is_quarantined: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """Connect again after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Connecting again with the same ends the same way."""

    error: ServiceError


Next: TypeAlias = Again | GiveUp


class StreamState:
    """One recorder's stream, over all its connections.

    Attributes:
        durable: highest sequence number a server has said to be committed.
        sent: highest sequence number written to the present connection.
        is_open: the server has answered the opening message.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self.durable = 0
        self.sent = 0
        self.is_open = False
        self._window = 0
        self._max_entries = 0
        self._max_bytes = 0
        self._failures = 0
        # While set, entries up to it go one by one: one of them ends the stream.
        self._careful_until = 0
        self._quarantined: set[int] = set()

    def opened(
        self, *, protocol: int, durable_seq: int, window: int, max_entries: int, max_bytes: int
    ) -> None:
        """The server has answered. What it says to be durable rules, even when it is less than before.

        Raises:
            ProtocolUnsupported: it chose a version that was not offered.
        """
        if not PROTOCOL_MIN <= protocol <= PROTOCOL_MAX:
            raise ProtocolUnsupported(
                f"The server speaks version {protocol} of the record stream, this program "
                f"{PROTOCOL_MIN} to {PROTOCOL_MAX}. Upgrade the older of the two."
            )
        self.is_open = True
        self.durable = self.sent = durable_seq
        self._window = window
        self._max_entries = min(max_entries or BATCH_ENTRIES, BATCH_ENTRIES)
        self._max_bytes = min(max_bytes or BATCH_BYTES, BATCH_BYTES)

    def acknowledged(self, durable_seq: int, window: int) -> bool:
        """The server has committed everything up to `durable_seq`.

        Returns:
            Whether that is more than was known.
        """
        self._window = window
        if durable_seq <= self.durable:
            return False
        self._failures = 0
        self.durable = durable_seq
        self.sent = max(self.sent, durable_seq)
        if durable_seq >= self._careful_until:
            self._careful_until = 0
        self._quarantined = {seq for seq in self._quarantined if seq > durable_seq}
        return True

    def next_slice(self, last_seq: int) -> Slice | None:
        """What may be sent now of the entries up to `last_seq`; None: nothing, wait for an event."""
        first = self.sent + 1
        room = min(last_seq, self.durable + self._window) - self.sent
        if not self.is_open or room <= 0:
            return None
        if self._careful_until:
            if self.sent > self.durable:
                return None
            return Slice(first, 1, self._max_bytes, first in self._quarantined)
        return Slice(first, min(room, self._max_entries), self._max_bytes)

    def wrote(self, last_seq: int) -> None:
        """Everything up to `last_seq` is written to the connection."""
        self.sent = last_seq

    def failed(self, error: ServiceError | None) -> Next:
        """The connection ended, or could not be made; `error` is None for an end without one."""
        in_flight = self.sent - self.durable if self.is_open else 0
        self.is_open = False
        if isinstance(error, _FINAL_ERRORS):
            return GiveUp(error)
        if isinstance(error, _POISON_ERRORS) and in_flight:
            self._suspect(in_flight)
        if isinstance(error, SequenceGap) and self._failures == 0:
            self._failures = 1
            return Again(0.0)
        ceiling = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(self._failures, 16))
        self._failures += 1
        asked = 0.0
        if error is not None and not isinstance(error, ServerUnavailable):
            asked = error.retry_after_seconds or 0.0
        return Again(max(self._random() * ceiling, asked))

    def _suspect(self, in_flight: int) -> None:
        """One of the entries in flight ended the stream: find out which, then leave it out."""
        if self._careful_until and in_flight == 1:
            self._quarantined.add(self.sent)
        self._careful_until = max(self._careful_until, self.sent)

    def redirected(self, seconds: float) -> Again:
        """The server wants the stream to end here and begin again after `seconds`."""
        self.is_open = False
        return Again(seconds)

    def hurry(self) -> None:
        """Somebody waits: the next failure is followed by a short delay again."""
        self._failures = 0
