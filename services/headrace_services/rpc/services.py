"""Every service the server offers, put on a gRPC server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2

from headrace.core.clock import Clock
from headrace.v1 import (
    admin_service_pb2,
    backfill_service_pb2,
    cache_service_pb2,
    deployment_service_pb2,
    event_service_pb2,
    flow_service_pb2,
    lock_service_pb2,
    log_service_pb2,
    record_service_pb2,
    run_service_pb2,
    schedule_service_pb2,
    span_service_pb2,
    work_pool_service_pb2,
    worker_service_pb2,
)
from headrace_services.rpc.admin import AdminService, ServerFacts
from headrace_services.rpc.backfills import BackfillService
from headrace_services.rpc.binding import handlers
from headrace_services.rpc.cache import CacheService
from headrace_services.rpc.channelz import CHANNELZ_SERVICE, add_channelz
from headrace_services.rpc.deployments import DeploymentService
from headrace_services.rpc.drain import Drain
from headrace_services.rpc.events import EventService
from headrace_services.rpc.flows import FlowService
from headrace_services.rpc.health import HEALTH_SERVICE, Health
from headrace_services.rpc.locks import LockService
from headrace_services.rpc.logs import LogService
from headrace_services.rpc.records import RecordService
from headrace_services.rpc.reflection import add_reflection
from headrace_services.rpc.runs import RunService
from headrace_services.rpc.schedules import ScheduleService
from headrace_services.rpc.spans import SpanService
from headrace_services.rpc.watch import WatchSettings
from headrace_services.rpc.work_pools import WorkPoolService
from headrace_services.rpc.worker_stream import Dispatch
from headrace_services.rpc.workers import WorkerService
from headrace_services.storage.database import Database

__all__ = ["Services", "register"]

# Reflection finds only what is loaded: with this, tools can show the details of an error.
_ERROR_DETAILS = error_details_pb2.DESCRIPTOR


@dataclass(frozen=True, slots=True)
class Services:
    """What the services are made of.

    `directed` is called when processes may have to be told something, `scheduled` when the scheduler may have
    something to do, `backfilled` when a backfill may, `pools_changed` when a pool was made, changed or
    deleted. `refuses_managed_pools` says why there can be no managed ones; empty: there can.
    """

    database: Database
    records: RecordService
    watch: WatchSettings
    version: str
    replica_id: str
    started_at: int
    recorder_lease_seconds: float
    clock: Clock
    drain: Drain
    directed: Callable[[], None]
    scheduled: Callable[[], None]
    backfilled: Callable[[], None]
    dispatch: Dispatch
    pools_changed: Callable[[], None]
    refuses_managed_pools: str

    def servicers(self) -> list[tuple[Any, object]]:
        """Each service's descriptor and the object that answers."""
        facts = ServerFacts(self.version, self.replica_id, self.started_at, self.recorder_lease_seconds)
        backfills = BackfillService(self.database, self.backfilled)
        return [
            (
                _service(run_service_pb2, "RunService"),
                RunService(self.database, self.watch, self.directed, self.dispatch.credits),
            ),
            (_service(record_service_pb2, "RecordService"), self.records),
            (_service(flow_service_pb2, "FlowService"), FlowService(self.database)),
            (_service(event_service_pb2, "EventService"), EventService(self.database)),
            (_service(cache_service_pb2, "CacheService"), CacheService(self.database)),
            (
                _service(lock_service_pb2, "LockService"),
                LockService(self.database, self.clock, self.drain),
            ),
            (_service(log_service_pb2, "LogService"), LogService(self.database, self.watch)),
            (_service(span_service_pb2, "SpanService"), SpanService(self.database)),
            (
                _service(schedule_service_pb2, "ScheduleService"),
                ScheduleService(self.database, self.clock, self.scheduled, backfills),
            ),
            (_service(backfill_service_pb2, "BackfillService"), backfills),
            (
                _service(work_pool_service_pb2, "WorkPoolService"),
                WorkPoolService(self.database, self.pools_changed, self.refuses_managed_pools),
            ),
            (_service(deployment_service_pb2, "DeploymentService"), DeploymentService(self.database)),
            (
                _service(admin_service_pb2, "AdminService"),
                AdminService(self.database, facts, self.clock, self.drain),
            ),
            (
                _service(worker_service_pb2, "WorkerService"),
                WorkerService(self.database, self.dispatch, self.drain, self.clock),
            ),
        ]


def _service(module: Any, name: str) -> Any:
    return module.DESCRIPTOR.services_by_name[name]


def register(server: grpc.aio.Server, services: Services, channelz: bool | None = False) -> Health:
    """Puts our services, health and reflection on a server.

    Args:
        server: that listens.
        services: ours.
        channelz: whether that is put on it too; None: if it is installed.

    Returns:
        The health of what was registered, not yet serving.

    Raises:
        MissingExtraError: channelz is wanted, and is not installed.
    """
    bound = services.servicers()
    names = [service.full_name for service, _ in bound]
    server.add_generic_rpc_handlers([handlers(service, servicer) for service, servicer in bound])
    health = Health(names)
    health.add_to(server)
    names.append(HEALTH_SERVICE)
    if channelz is not False and add_channelz(server, is_required=channelz is True):
        names.append(CHANNELZ_SERVICE)
    add_reflection(server, names)
    return health
