"""The server process: the one place that wires everything together, and its life from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

import grpc

from headrace.core import limits
from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import HeadraceException, ServiceError
from headrace.core.ids import new_id
from headrace_services.home import ServerNote, hold_home
from headrace_services.loops.backfiller import Backfiller
from headrace_services.loops.deaths import ProcessWatch
from headrace_services.loops.directives import Directives
from headrace_services.loops.intake import SpoolIntake
from headrace_services.loops.loop import Loop
from headrace_services.loops.managed_pools import ManagedPools
from headrace_services.loops.managed_workers import ManagedWorkerSettings
from headrace_services.loops.reaper import LeaseReaper
from headrace_services.loops.renewals import LeaseRenewals
from headrace_services.loops.scheduler import Overlaps, Scheduler
from headrace_services.loops.timers import RunTimers
from headrace_services.loops.worker_hub import WorkerHub, WorkerTerms
from headrace_services.rpc.auth import BasicAuth
from headrace_services.rpc.drain import Drain
from headrace_services.rpc.edge import Activity, Edge
from headrace_services.rpc.entries import refused_entries
from headrace_services.rpc.health import Health
from headrace_services.rpc.record_stream import RecordPolicy
from headrace_services.rpc.records import RecordService, Streams
from headrace_services.rpc.services import Services, register
from headrace_services.rpc.validation import rules
from headrace_services.rpc.watch import WatchSettings
from headrace_services.settings import ServerSettings
from headrace_services.storage.database import Database, open_database
from headrace_services.storage.migrations import upgrade

__all__ = ["PortTaken", "Server", "running_server", "serve"]

_log = logging.getLogger(__name__)

_FIRST_INTAKE_SECONDS: Final = 1.0

_GRPC_OPTIONS: Final = (
    # Without it a second server binds the same port and silently takes half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 20_000),
    # `keepalive_timeout_ms` has no effect below 60 s.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_receive_message_length", limits.TRANSPORT_MESSAGE_BYTES),
    ("grpc.max_send_message_length", limits.TRANSPORT_MESSAGE_BYTES),
)


class PortTaken(HeadraceException):
    """Another program listens on the port."""


@dataclass(slots=True)
class Server:
    """A server that listens.

    Attributes:
        address: where, e.g. `127.0.0.1:4200`.
        replica_id: one per server process.
        database: where everything is.
        drain: begins when the server is told to stop.
        streams: the open record streams.
        watch: finds dead processes.
        intake: takes in spools.
        reaper: ends silent recorders' leases.
        loops: all loops, for health and tests.
        activity: how busy the server is.
        workers: those that are connected.
        managed: workers of its own; None: it has none.
    """

    address: str
    replica_id: str
    database: Database
    drain: Drain
    streams: Streams
    watch: ProcessWatch
    intake: SpoolIntake
    reaper: LeaseReaper
    activity: Activity
    loops: list[Loop]
    health: Health
    grpc_server: grpc.aio.Server
    clock: Clock
    tasks: list[asyncio.Task[None]]
    workers: WorkerHub
    managed: ManagedPools | None

    @property
    def idle_seconds(self) -> float:
        """How long nobody has needed the server; 0 while somebody does."""
        if self.activity.open_calls or self.intake.alive or self.watch.suspects:
            return 0.0
        return self.clock.monotonic() - self.activity.last_at

    async def stop(self, grace_seconds: float) -> None:
        """Says goodbye to every stream, lets calls in flight end, then commits what is queued.

        Args:
            grace_seconds: after that, calls that still go on are cut off.
        """
        if self.managed is not None:
            await self.managed.stop()
        self.health.set_stopping()
        self.drain.begin()
        await self.grpc_server.stop(grace_seconds)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.database.close()


async def start_server(settings: ServerSettings, clock: Clock) -> Server:
    """A server that listens and says that it is healthy.

    Raises:
        ConfigurationError: the settings make no sense together, or are not safe.
        MissingExtraError: they ask for what is not installed.
        PortTaken: another program listens there.
        DatabaseUnavailable, SchemaTooNew, SchemaTooOld: nothing was started.
    """
    settings.check()
    probe_port(settings.server_api_host, settings.server_api_port)
    url = settings.database_url
    if settings.server_database_migrate_on_start:
        await upgrade(url)
    database = await open_database(url, clock=clock, read_pool_size=settings.server_database_pool_size)
    try:
        return await _wire(settings, clock, database)
    except BaseException:
        await database.close()
        raise


async def _wire(settings: ServerSettings, clock: Clock, database: Database) -> Server:
    replica_id, version = new_id(), metadata.version("headrace")
    drain, activity = Drain(), Activity(clock.monotonic)
    drain.listen(database.signals.bump)
    # The workers of managed pools are not given the credentials that people have.
    own = f"managed:{secrets.token_urlsafe(32)}"
    auth = BasicAuth(settings.server_api_auth_string, own) if settings.server_api_auth_string else None
    lease, renew = settings.server_recorder_lease_seconds, settings.server_recorder_renew_seconds
    edge = Edge(version=version, auth=auth, activity=activity)
    grpc_server = grpc.aio.server(interceptors=[edge], options=_GRPC_OPTIONS)
    address = _bind(grpc_server, settings.server_api_host, settings.server_api_port)
    streams, renewals = Streams(drain), LeaseRenewals(database, lease, clock)
    directives = Directives(database, streams, clock)
    terms = WorkerTerms(
        replica_id,
        settings.server_worker_heartbeat_seconds,
        settings.server_worker_reply_seconds,
        settings.server_queue_ageing_seconds,
        settings.server_worker_stream_seconds,
    )
    workers = WorkerHub(database, terms, clock)
    drain.listen(workers.drain)

    def pools_changed() -> None:
        workers.loop.wake()
        if managed is not None:
            managed.loop.wake()

    def directed() -> None:
        directives.loop.wake()
        workers.loop.wake()

    streams.directed = directives.loop.wake
    scheduler, backfiller = Scheduler(database, clock), Backfiller(database, clock)
    policy = RecordPolicy(replica_id, lease, renew)
    refusal = settings.refuses_managed_pools
    managed_settings = _managed_workers(settings, address, own if auth is not None else None)
    managed = None if refusal else ManagedPools(database, managed_settings, clock)
    if refusal and (pools := await database.reader.work_pools.managed()):
        _log.warning("Nobody works the managed pools here (%s). %s", ", ".join(pools.values()), refusal)
    services = Services(
        database=database,
        records=RecordService(database.writer, policy, renewals, streams),
        watch=WatchSettings(clock, drain),
        version=version,
        replica_id=replica_id,
        started_at=clock.now(),
        recorder_lease_seconds=lease,
        clock=clock,
        drain=drain,
        scheduled=scheduler.loop.wake,
        backfilled=backfiller.loop.wake,
        directed=directed,
        dispatch=workers,
        pools_changed=pools_changed,
        refuses_managed_pools=refusal,
    )
    health = register(grpc_server, services, settings.channelz)
    intake = SpoolIntake(
        settings.home / "spool",
        database,
        refused_entries,
        replica_id=replica_id,
        lease_seconds=lease,
        address=address,
        scan_seconds=settings.server_spool_scan_seconds,
        clock=clock,
    )
    watch = ProcessWatch(database, streams, intake, clock)
    streams.listener = watch
    reaper = LeaseReaper(database, lease, renew, clock)
    server = Server(
        address, replica_id, database, drain, streams, watch, intake, reaper, activity,
        [
            renewals.loop,
            reaper.loop,
            watch.loop,
            intake.loop,
            RunTimers(database, clock).loop,
            directives.loop,
            scheduler.loop,
            Overlaps(database, clock).loop,
            backfiller.loop,
            *workers.loops,
            *([managed.loop] if managed is not None else []),
        ],
        health, grpc_server, clock, [], workers, managed,
    )  # fmt: skip
    await watch.recall()
    await _take_in_first(intake)
    await grpc_server.start()
    health.set_serving()
    server.tasks.extend(asyncio.create_task(loop.run(), name=loop.name) for loop in server.loops)
    server.tasks.append(asyncio.create_task(workers.dispatcher.run(), name="dispatcher"))
    server.tasks.append(asyncio.create_task(workers.news.run(), name="news of attempts"))
    return server


def _managed_workers(
    settings: ServerSettings, address: str, credentials: str | None
) -> ManagedWorkerSettings:
    host, _, port = address.rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    return ManagedWorkerSettings(
        folder=settings.home / "managed",
        address=f"{here}:{port}",
        credentials=credentials,
        more_variables=settings.server_managed_pools_variables,
        cgroup=settings.server_managed_pools_cgroup,
        grace_seconds=settings.server_shutdown_grace_seconds,
        keep_seconds=settings.server_managed_pools_environment_seconds,
        keep_bytes=settings.server_managed_pools_environment_bytes,
    )


async def _take_in_first(intake: SpoolIntake) -> None:
    """Whoever has this server started is about to ask for what was recorded without one.

    What takes longer than `_FIRST_INTAKE_SECONDS` goes on beside the first calls.
    """
    with contextlib.suppress(TimeoutError, ServiceError):
        async with asyncio.timeout(_FIRST_INTAKE_SECONDS):
            await intake.scan()


def probe_port(host: str, port: int) -> None:
    """Makes sure that the port can be had; gRPC itself would only say that binding failed.

    Raises:
        PortTaken: it cannot.
    """
    if not port:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise _port_taken(host, port, error.strerror or "binding failed") from None


def _port_taken(host: str, port: int, reason: str) -> PortTaken:
    return PortTaken(
        f"The server cannot listen on {host}:{port}: {reason}. "
        "Stop the program that does, or choose another port with --port."
    )


def _bind(server: grpc.aio.Server, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    try:
        bound = server.add_insecure_port(f"{shown}:{port}")
    except RuntimeError:
        raise _port_taken(host, port, "binding failed") from None
    return f"{shown}:{bound}"


@contextlib.asynccontextmanager
async def running_server(
    settings: ServerSettings, *, clock: Clock | None = None, idle_timeout_seconds: float | None = None
) -> AsyncGenerator[Server]:
    """A server that holds its home, listens, and is found by others; stopped at the end of the block.

    Raises:
        HomeTaken, HomeUnusable: see `headrace_services.home`.
        ConfigurationError, PortTaken, DatabaseUnavailable, SchemaTooNew, SchemaTooOld: nothing runs.
    """
    clock = clock or SystemClock()
    with hold_home(settings.home):
        server = await start_server(settings, clock)
        note = ServerNote(
            pid=os.getpid(),
            address=server.address,
            version=metadata.version("headrace"),
            replica_id=server.replica_id,
            database=server.database.dialect,
            started_at=clock.now(),
            idle_timeout_seconds=idle_timeout_seconds,
        )
        try:
            note.write(settings.home)
            yield server
        finally:
            note.remove(settings.home)
            await server.stop(settings.server_shutdown_grace_seconds)


async def serve(
    settings: ServerSettings,
    *,
    idle_timeout_seconds: float | None = None,
    ready: Callable[[Server], Awaitable[None] | None] = lambda _: None,
) -> None:
    """Runs until SIGTERM, SIGINT, or until nobody has needed the server for a while.

    Args:
        settings: of the server.
        idle_timeout_seconds: how long a while is; None: for ever.
        ready: called once the server is healthy.

    Raises:
        HeadraceException: the server could not start; the message says what to do.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop)
    async with running_server(settings, idle_timeout_seconds=idle_timeout_seconds) as server:
        rules()  # read now, not in the first call
        # What lives now lives as long as the process; no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        told = ready(server)
        if told is not None:
            await told
        if idle_timeout_seconds is None:
            await stop.wait()
        else:
            await _until_idle(server, stop, idle_timeout_seconds)
        _log.info("stopping")


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        sys.stderr.write("stopped at once\n")
        os._exit(130)
    stop.set()


async def _until_idle(server: Server, stop: asyncio.Event, timeout_seconds: float) -> None:
    while not stop.is_set():
        left = timeout_seconds - server.idle_seconds
        if left <= 0:
            _log.info("nobody has needed the server for %g s", timeout_seconds)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), max(left, 0.2))


def new_event_loop() -> Any:
    """The event loop that the server runs on: uvloop's where it is installed."""
    try:
        uvloop: Any = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
