"""Whether a server answers, and what it answers."""

from __future__ import annotations

from enum import Enum
from typing import Any

from headrace.core.verdicts import Abort, Accept, Reject, Verdict, Wait
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import State

__all__ = ["Reach", "verdict_of"]


class Reach(Enum):
    """Whether a server's answer can be waited for."""

    NONE = "none"
    """There is no server, or it has not answered for too long."""
    TRYING = "trying"
    """There should be one, and the connection is being made."""
    OPEN = "open"
    """The stream is open."""
    REFUSED = "refused"
    """The server refuses this recorder; only a change of settings or of versions helps."""


def verdict_of(response: ProposeStateResponse) -> Verdict[State]:
    """The wire's verdict as a value. An answer from a newer server counts as a wait."""
    kind = response.WhichOneof("verdict")
    if kind == "accepted":
        return Accept(response.accepted.state)
    if kind == "rejected":
        return Reject(response.rejected.state, response.rejected.reason)
    if kind == "abort":
        return Abort(response.abort.reason)
    after: Any = response.wait.retry_after
    return Wait(after.seconds + after.nanos / 1e9, response.wait.reason)
