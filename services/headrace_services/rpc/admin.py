"""`headrace.v1.AdminService`: what the server says about itself."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.core import limits
from headrace.core.clock import Clock
from headrace.v1 import admin_service_pb2 as pb
from headrace_services.rpc.call import Call
from headrace_services.rpc.drain import Drain
from headrace_services.storage.database import Database
from headrace_services.storage.migrations import head_revision

__all__ = ["AdminService", "ServerFacts"]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What does not change while the server lives.

    Attributes:
        version: of headrace.
        replica_id: one per server process.
        started_at: microseconds since 1970-01-01 UTC.
        recorder_lease_seconds: how long a recording process may be silent.
    """

    version: str
    replica_id: str
    started_at: int
    recorder_lease_seconds: float


class AdminService:
    """The server itself."""

    def __init__(self, database: Database, facts: ServerFacts, clock: Clock, drain: Drain) -> None:
        self._database = database
        self._facts = facts
        self._clock = clock
        self._drain = drain

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, call: Call) -> pb.GetServerInfoResponse:
        response = pb.GetServerInfoResponse(
            version=self._facts.version,
            protocol_min=limits.PROTOCOL_MIN,
            protocol_max=limits.PROTOCOL_MAX,
            replica_id=self._facts.replica_id,
            database=self._database.dialect,
            database_version=self._database.version,
            schema_revision=head_revision(),
            limits=self._limits(),
            time_zone_version=_time_zone_version(),
            draining=self._drain.begun,
        )
        response.start_time.FromMicroseconds(self._facts.started_at)
        response.server_time.FromMicroseconds(self._clock.now())
        return response

    def _limits(self) -> pb.ServerLimits:
        sizes = pb.ServerLimits(
            max_message_bytes=limits.MESSAGE_BYTES,
            max_inline_payload_bytes=limits.INLINE_PAYLOAD_BYTES,
            max_log_message_bytes=limits.LOG_MESSAGE_BYTES,
            max_batch_entries=limits.BATCH_ENTRIES,
            max_batch_bytes=limits.BATCH_BYTES,
            max_page_size=limits.PAGE_SIZE_MAX,
            max_parameters_bytes=limits.INLINE_PAYLOAD_BYTES,
        )
        sizes.recorder_lease_ttl.FromMicroseconds(int(self._facts.recorder_lease_seconds * 1e6))
        return sizes


def _time_zone_version() -> str:
    import tzdata  # type: ignore[import-untyped]

    return str(tzdata.IANA_VERSION)
