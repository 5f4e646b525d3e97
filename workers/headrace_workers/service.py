"""A worker process, from its options to its end: session, streams, worker class, signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import random
import signal
import socket
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from headrace.client.channel import client_version, open_channel, request_metadata
from headrace.client.discovery import connect
from headrace.core.errors import HeadraceException
from headrace.core.ids import new_id
from headrace.settings import OPTIONS, Settings, variable_name
from headrace.v1.record_service_pb2 import SdkInfo
from headrace.v1.worker_service_pb2 import WorkerHello
from headrace_workers.actions import Notice
from headrace_workers.base import BaseWorker, WorkerFacts
from headrace_workers.health import Answers, HealthServer, Vitals
from headrace_workers.infrastructure.search import Search
from headrace_workers.infrastructure.worker import InfrastructureWorker
from headrace_workers.session import SessionOptions, WorkerSession
from headrace_workers.stream import SessionDriver
from headrace_workers.supervisor import Supervisor

__all__ = ["WorkerOptions", "WorkerService", "child_environment"]

RUN_ONCE_SECONDS: Final = 1.0
"""How long a worker that is to look once waits for assignments."""
LAST_SECONDS: Final = 5.0
"""How long infrastructure that is being ended is waited for when the worker leaves."""
_WORKERS: Final = uuid.UUID("8f1d2c64-7a3b-5e0f-9c1d-6b2a4e8d0f37")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker process is to do.

    Attributes:
        name: what people see; empty: one is made up.
        work_pool: whose runs it takes; empty: those of `deployment_ids` or `task_keys`.
        work_queues: of the pool; none: all.
        deployment_ids: deployments without a pool, which it serves itself.
        task_keys: tasks whose background runs it takes.
        labels: what runs may ask for.
        limit: runs at once; None: as many as there are.
        max_starting: how many may be starting at once.
        prefetch_seconds: how long before its time a run may be assigned.
        run_once: take what there is now, and leave.
        is_strict: end work before the lease runs out.
        grace_seconds: how long runs may go on when it is told to leave; None: until they end.
        health_address: host and port of the health server; None: there is none.
        status: what the health server shows as `/status`; None: it shows none.
        more: what else the health server answers.
    """

    name: str = ""
    work_pool: str = ""
    work_queues: Sequence[str] = ()
    deployment_ids: Sequence[str] = ()
    task_keys: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    limit: int | None = None
    max_starting: int = 16
    prefetch_seconds: float = 10.0
    run_once: bool = False
    is_strict: bool = False
    grace_seconds: float | None = None
    health_address: tuple[str, int] | None = None
    status: Callable[[Vitals], Mapping[str, Any]] | None = None
    more: Answers | None = None


class WorkerService:
    """One worker process.

    Args:
        options: what it is to do.
        worker: how it does it.
        settings: where the server is.
        tell: takes lines for whoever looks at the worker.
    """

    def __init__(
        self,
        options: WorkerOptions,
        worker: BaseWorker[Any],
        settings: Settings,
        tell: Callable[[str], None],
    ) -> None:
        self._options = options
        self._worker = worker
        self._settings = settings
        self._tell = tell
        self.name = options.name or f"{type(worker).__name__} {uuid.uuid4()}"
        self._signals = 0
        self._driver: SessionDriver | None = None
        self._began_at = 0.0
        self._first_dial = True
        self._server_address = ""
        self._search: Search | None = None

    async def run(self) -> None:
        """Until it is told to leave, or the server refuses it.

        Raises:
            ServiceError: the server refuses it.
            HeadraceException: the worker class cannot get ready.
        """
        loop = asyncio.get_running_loop()
        self._began_at = loop.time()
        self._worker.facts = WorkerFacts(
            self.name,
            self._options.work_pool,
            child_environment(self._settings),
            self._tell,
            lambda: self._server_address,
        )
        async with self._worker:
            session = WorkerSession(
                SessionOptions(
                    self._hello(),
                    self._options.limit,
                    self._options.max_starting,
                    self._options.is_strict,
                    keeps_infrastructure=isinstance(self._worker, InfrastructureWorker),
                ),
                random.random,
            )
            supervisor = Supervisor(self._worker, lambda: session.pool, self._tell)
            metadata = request_metadata(self._settings.api_auth_string)
            driver = SessionDriver(session, supervisor, self._dial, metadata, self._noticed)
            supervisor.listener = self._driver = driver
            async with (
                self._health(session, supervisor),
                self._searching(driver),
                _signals(self._told_to_leave),
            ):
                try:
                    await driver.run()
                finally:
                    await supervisor.idle(LAST_SECONDS)

    def leave(self) -> None:
        """Take nothing new; the second time: end what runs, so that others may have it."""
        self._told_to_leave()

    def _told_to_leave(self) -> None:
        self._signals += 1
        if self._driver is None:
            return
        if self._signals == 1:
            self._driver.drain(self._options.grace_seconds)
        else:
            self._tell("Told again: what runs is ended and given back.")
            self._driver.drain(0.0)

    def _noticed(self, notice: Notice) -> None:
        self._tell(f"Warning: {notice.text}" if notice.is_warning else notice.text)
        driver = self._driver
        if self._search is not None and driver is not None and driver.session.is_connected:
            self._search.wake()
        if self._options.run_once and driver is not None and driver.session.is_connected:
            loop = asyncio.get_running_loop()
            loop.call_later(RUN_ONCE_SECONDS, self._leave_once)

    def _leave_once(self) -> None:
        if self._driver is not None and not self._driver.session.is_draining:
            self._driver.drain(None)

    async def _dial(self) -> tuple[str, Any]:
        settings = self._settings
        if settings.api_url == "auto":
            may_start, self._first_dial = self._first_dial, False
            address, channel = await connect(settings, start_server=may_start)
        else:
            address, channel = settings.api_url, open_channel(settings.api_url)
        self._server_address = address
        return address, channel

    def _hello(self) -> WorkerHello:
        options = self._options
        hello = WorkerHello(
            worker_id=self._worker_id(),
            name=self.name,
            work_pool=options.work_pool,
            type=self._worker.type,
            work_queues=options.work_queues,
            deployment_ids=options.deployment_ids,
            task_keys=options.task_keys,
            labels=options.labels,
            capabilities=self._worker.capabilities,
            sdk=SdkInfo(
                name="headrace",
                version=client_version(),
                language=f"python {platform.python_version()}",
                host=socket.gethostname(),
                pid=os.getpid(),
            ),
        )
        hello.prefetch.FromMicroseconds(int(options.prefetch_seconds * 1e6))
        return hello

    def _worker_id(self) -> str:
        if not self._options.name:
            return new_id()
        # The same worker again, when it is started again with the same name.
        parts = (socket.gethostname(), str(self._settings.home), self._options.work_pool, self.name)
        return str(uuid.uuid5(_WORKERS, "\0".join(parts)))

    @contextlib.asynccontextmanager
    async def _searching(self, driver: SessionDriver) -> AsyncGenerator[None]:
        """While inside, infrastructure is looked for that outlived another worker process."""
        if not isinstance(self._worker, InfrastructureWorker):
            yield
            return
        self._search = Search(self._worker, driver.found)
        task = asyncio.ensure_future(self._search.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _health(self, session: WorkerSession, supervisor: Supervisor) -> AsyncGenerator[None]:
        if self._options.health_address is None:
            yield
            return
        loop = asyncio.get_running_loop()

        def vitals() -> Vitals:
            heard_at = session.heard_at
            return Vitals(
                session.is_connected,
                session.is_draining,
                loop.time() - (self._began_at if heard_at is None else heard_at),
                session.running,
                supervisor.begun,
            )

        try:
            status = self._options.status
            server = HealthServer(
                *self._options.health_address,
                vitals,
                status=None if status is None else lambda: status(vitals()),
                more=self._options.more,
            )
            await server.__aenter__()
        except OSError as error:
            host, port = self._options.health_address
            raise HeadraceException(
                f"The health server cannot listen on {host}:{port}: {error.strerror}."
            ) from None
        self._tell(f"Health is served on port {server.port}.")
        try:
            yield
        finally:
            await server.__aexit__()


@contextlib.asynccontextmanager
async def _signals(told: Callable[[], None]) -> AsyncGenerator[None]:
    """While inside, SIGINT and SIGTERM call `told`."""
    loop = asyncio.get_running_loop()
    taken = (signal.SIGINT, signal.SIGTERM)
    with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: others take signals there
        for signum in taken:
            loop.add_signal_handler(signum, told)
    try:
        yield
    finally:
        for signum in taken:
            with contextlib.suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(signum)


def child_environment(settings: Settings) -> dict[str, str]:
    """The settings that runs inherit: those that are not the defaults, as variables."""
    variables = {"HEADRACE_HOME": str(settings.home)}
    for name, option in OPTIONS.items():
        value = getattr(settings, name)
        if value is None or value == option.default or name == "home" or name.startswith("worker_"):
            continue
        text = ",".join(str(item) for item in cast("Any", value)) if isinstance(value, tuple) else str(value)
        variables[variable_name(name)] = text
    return variables
