"""The heartbeats of a session, and the lease that their answers renew. Pure."""

from __future__ import annotations

from typing import Final

from headrace.v1.worker_service_pb2 import ServerWelcome

__all__ = ["Beats"]

_INTERVAL_SECONDS: Final = 5.0
_TTL_SECONDS: Final = 30.0


class Beats:
    """When to send heartbeats, and how long the lease lasts.

    Attributes:
        interval_seconds: between heartbeats.
        next_at: when the next one is to be sent.
        seq: number of the newest one.
    """

    def __init__(self) -> None:
        self.interval_seconds = _INTERVAL_SECONDS
        self.next_at = 0.0
        self._ttl_seconds = _TTL_SECONDS
        self.seq = 0
        self._sent: dict[int, float] = {}
        self._lease_from: float | None = None

    def welcomed(self, welcome: ServerWelcome, hello_at: float, now: float) -> None:
        """A server has answered a hello that was sent at `hello_at`."""
        interval, ttl = welcome.heartbeat_interval, welcome.lease_ttl
        self.interval_seconds = (interval.seconds + interval.nanos / 1e9) or _INTERVAL_SECONDS
        self._ttl_seconds = (ttl.seconds + ttl.nanos / 1e9) or _TTL_SECONDS
        self._lease_from = hello_at
        self._sent.clear()
        self.next_at = now + self.interval_seconds

    def sent(self, now: float) -> int:
        """A heartbeat is being sent; its number."""
        self.seq += 1
        self._sent[self.seq] = now
        self.next_at = now + self.interval_seconds
        return self.seq

    def answered(self, seq: int) -> bool:
        """The server has answered heartbeat `seq`; False: it is not one of the present stream."""
        if seq not in self._sent:
            return False
        # The lease counts from when the server may have heard of us at the earliest.
        self._lease_from = self._sent[seq]
        self._sent = {later: at for later, at in self._sent.items() if later > seq}
        return True

    def has_lapsed(self, now: float) -> bool:
        """Whether the server may have ended the session because nothing was heard."""
        return self._lease_from is not None and now >= self._lease_from + self._ttl_seconds

    def lease_end(self) -> float | None:
        """When work that must not overlap has to be at its end; None: no server has granted a lease."""
        if self._lease_from is None:
            return None
        return self._lease_from + self._ttl_seconds - self.interval_seconds
