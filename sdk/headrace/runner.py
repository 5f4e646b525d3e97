"""Serving flows from the program they stand in: `flow.serve`, `serve`, and what they are made of.

    if __name__ == "__main__":
        nightly.serve(cron="0 2 * * *")

A serving process registers its deployments and is a worker for their runs, each in a process of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from headrace.client import get_client
from headrace.core.errors import ConfigurationError, ServiceError
from headrace.schedules import Schedule
from headrace.settings import get_current_settings
from headrace.v1.deployment_pb2 import CollisionStrategy, Deployment
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_RESCHEDULE
from headrace.v1.worker_pb2 import WorkerStatus

if TYPE_CHECKING:
    from headrace.deployments.sources import Storage
    from headrace.flows import Flow

__all__ = ["ConcurrencyLimitConfig", "Runner", "RunnerDeployment", "aserve", "serve"]

Intervals: TypeAlias = "timedelta | float | Sequence[timedelta | float]"
Texts: TypeAlias = "str | Sequence[str]"
EntrypointType: TypeAlias = Literal["file", "module"]

DEFAULT_LIMIT: Final = 5
# What a `RunnerDeployment` says of a deployment in any case.
_SAID: Final = (
    *("description", "version", "version_info", "tags", "schedules", "concurrency", "parameters"),
    *("parameter_schema", "skip_parameter_check", "job_variables", "pull_steps", "path", "entrypoint"),
    *("work_pool", "work_queue", "on_lost"),
)


@dataclass(frozen=True)
class ConcurrencyLimitConfig:
    """How many runs of a deployment there may be at once.

    Attributes:
        limit: at least 1.
        collision_strategy: what becomes of one run more: `ENQUEUE` has it wait, `CANCEL_NEW` cancels it.
        grace_period_seconds: how long a run that was let in may take until it runs.
    """

    limit: int
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    grace_period_seconds: int = 300


@dataclass(frozen=True)
class RunnerDeployment:
    """A deployment as code describes it; `apply` makes it so on the server.

    Attributes:
        name: unique for the flow.
        flow_name: of the flow.
        entrypoint: `file.py:flow` or `package.module:flow`, relative to `path`.
        path: folder from which runs are started.
        schedules: when runs are made.
        paused: no schedule makes a run; None: as it is, and not if it is new.
        parameters: of runs that do not say otherwise.
        parameter_schema: JSON schema of the flow's parameters.
        enforce_parameter_schema: parameters are checked when a run is created.
        description: for people.
        tags: of every run.
        fairness_key: whose turn a run takes, a template; empty: that of all without one. None: as it is.
        version: free text.
        concurrency_limit: runs at once; None: no limit.
        work_pool_name: whose workers run it; empty: whoever serves it.
        work_queue_name: of the pool; empty: the default one.
        job_variables: over the pool's template.
        is_durable: completed steps are not run again, so that a run that was lost is better taken up.
        storage: where runs fetch the code from; None: it is there.
    """

    name: str
    flow_name: str
    entrypoint: str
    path: str = ""
    schedules: tuple[Schedule, ...] = ()
    paused: bool | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    parameter_schema: Mapping[str, Any] = field(default_factory=dict[str, Any])
    enforce_parameter_schema: bool = True
    description: str = ""
    tags: tuple[str, ...] = ()
    version: str = ""
    concurrency_limit: ConcurrencyLimitConfig | None = None
    work_pool_name: str = ""
    work_queue_name: str = ""
    job_variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_durable: bool = False
    storage: Storage | None = None
    fairness_key: str | None = None

    @classmethod
    def from_flow(
        cls,
        flow: Flow[..., Any],
        name: str,
        *,
        interval: Intervals | None = None,
        cron: Texts | None = None,
        rrule: Texts | None = None,
        schedule: Schedule | None = None,
        schedules: Sequence[Schedule] | None = None,
        paused: bool | None = None,
        concurrency_limit: int | ConcurrencyLimitConfig | None = None,
        parameters: Mapping[str, Any] | None = None,
        description: str | None = None,
        tags: Sequence[str] = (),
        fairness_key: str | None = None,
        version: str | None = None,
        enforce_parameter_schema: bool = True,
        work_pool_name: str | None = None,
        work_queue_name: str | None = None,
        job_variables: Mapping[str, Any] | None = None,
        entrypoint_type: EntrypointType = "file",
    ) -> RunnerDeployment:
        """The deployment of a flow; the options are those of `Flow.to_deployment`.

        Raises:
            ValueError: another process could not load the flow, or more than one kind of schedule is given.
        """
        limit = concurrency_limit
        source = flow.source
        return cls(
            name=name,
            flow_name=flow.name,
            entrypoint=source.entrypoint if source else _entrypoint(flow, entrypoint_type),
            path="" if source else str(Path.cwd()),
            schedules=_schedules(interval, cron, rrule, schedule, schedules),
            paused=paused,
            parameters=dict(parameters or {}),
            parameter_schema=flow.parameters,
            enforce_parameter_schema=enforce_parameter_schema,
            description=(flow.description if description is None else description) or "",
            tags=tuple(tags),
            fairness_key=fairness_key,
            version=(flow.version if version is None else version) or "",
            concurrency_limit=ConcurrencyLimitConfig(limit) if isinstance(limit, int) else limit,
            work_pool_name=work_pool_name or "",
            work_queue_name=work_queue_name or "",
            job_variables=dict(job_variables or {}),
            is_durable=bool(flow.durable),
            storage=source.storage if source else None,
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields of the message that count; the others stay as the server has them."""
        said = {"paused": self.paused, "fairness_key": self.fairness_key}
        return (*_SAID, *(name for name, value in said.items() if value is not None))

    def to_message(self) -> Deployment:
        """The deployment as the server takes it.

        Raises:
            ValueError: its storage has credentials, which everybody could read in it.
        """
        from pydantic_core import to_json

        message = Deployment(
            flow_name=self.flow_name,
            name=self.name,
            description=self.description,
            version=self.version,
            tags=self.tags,
            fairness_key=self.fairness_key or "",
            paused=bool(self.paused),
            schedules=[schedule.to_message() for schedule in self.schedules],
            parameters=to_json(dict(self.parameters)).decode(),
            parameter_schema=json.dumps(dict(self.parameter_schema)),
            skip_parameter_check=not self.enforce_parameter_schema,
            path=self.path,
            entrypoint=self.entrypoint,
            work_pool=self.work_pool_name,
            work_queue=self.work_queue_name,
        )
        if self.storage is not None:
            message.pull_steps.steps.add().update(self.storage.to_pull_step())
        if self.is_durable:
            message.on_lost = LOST_ATTEMPT_POLICY_RESCHEDULE
        if self.job_variables:
            message.job_variables.update(dict(self.job_variables))
        if self.concurrency_limit is not None:
            limit = self.concurrency_limit
            message.concurrency.limit = limit.limit
            strategy = f"COLLISION_STRATEGY_{limit.collision_strategy}"
            message.concurrency.collision_strategy = CollisionStrategy.Value(strategy)
            message.concurrency.grace.FromSeconds(limit.grace_period_seconds)
        return message

    async def apply(self, work_pool_name: str | None = None) -> str:
        """Make the deployment on the server what this says.

        Args:
            work_pool_name: instead of the deployment's own.

        Returns:
            Its id.
        """
        wanted = self if work_pool_name is None else replace(self, work_pool_name=work_pool_name)
        async with get_client() as client:
            answer = await client.apply_deployment(wanted.to_message(), wanted.paths)
        return answer.deployment.id


class Runner:
    """Runs the runs of its deployments, each in a process of its own.

    Args:
        name: what people see; None: made up.
        limit: runs at once; None: as many as there are.
        pause_on_shutdown: pause the deployments when it leaves, unless somebody else serves them.
    """

    def __init__(
        self, name: str | None = None, *, limit: int | None = DEFAULT_LIMIT, pause_on_shutdown: bool = True
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"'limit' must be at least 1, got {limit}")
        self.name = name or ""
        self.limit = limit
        self.pause_on_shutdown = pause_on_shutdown
        self.deployment_ids: list[str] = []
        self._service: Any = None

    async def add_flow(self, flow: Flow[..., Any], name: str | None = None, **options: Any) -> str:
        """Register a deployment of a flow; the options are those of `Flow.to_deployment`.

        Returns:
            Its id.
        """
        return await self.add_deployment(flow.to_deployment(name or flow.name, **options))

    async def add_deployment(self, deployment: RunnerDeployment) -> str:
        """Register a deployment; its id.

        Raises:
            ValueError: it has a work pool, whose workers run it.
        """
        if deployment.work_pool_name:
            raise ValueError(
                f"'{deployment.name}' is for workers of pool {deployment.work_pool_name}: apply it instead"
            )
        if deployment.paused is None:
            # Whoever served it before has paused it when it left.
            deployment = replace(deployment, paused=False)
        deployment_id = await deployment.apply()
        self.deployment_ids.append(deployment_id)
        return deployment_id

    async def start(self, *, run_once: bool = False, tell: Callable[[str], None] | None = None) -> None:
        """Take runs until told to stop; SIGINT and SIGTERM let those that run end first.

        Args:
            run_once: take what is there now, and return.
            tell: takes lines for whoever looks; None: they are printed on standard error.
        """
        from headrace_workers.lines import LineWriter
        from headrace_workers.process.worker import ProcessWorker
        from headrace_workers.service import WorkerOptions, WorkerService

        if not self.deployment_ids:
            raise ConfigurationError("A runner without a deployment has nothing to run: add one first.")
        writer = None if tell is not None else LineWriter()
        options = WorkerOptions(
            name=self.name, deployment_ids=self.deployment_ids, limit=self.limit, run_once=run_once
        )
        service = WorkerService(options, ProcessWorker(), get_current_settings(), tell or writer or print)
        self._service = service
        try:
            await service.run()
        finally:
            self._service = None
            if self.pause_on_shutdown and not run_once:
                try:
                    await self._pause()
                except ServiceError as error:
                    print(f"The deployments could not be paused: {error.message}", file=sys.stderr)
            if writer is not None:
                writer.close()

    def stop(self) -> None:
        """Take nothing new, and return from `start` when nothing runs any more."""
        if self._service is not None:
            self._service.leave()

    async def _pause(self) -> None:
        """Let no schedule make runs that nobody would take."""
        async with get_client() as client:
            statuses = [WorkerStatus.WORKER_STATUS_ONLINE]
            others = [worker async for worker in client.iter_workers(statuses=statuses)]
            served = {deployment_id for worker in others for deployment_id in worker.deployment_ids}
            for deployment_id in self.deployment_ids:
                if deployment_id not in served:
                    await client.pause_deployment(deployment_id)


async def aserve(
    *deployments: RunnerDeployment,
    pause_on_shutdown: bool = True,
    print_starting_message: bool = True,
    limit: int | None = None,
) -> None:
    """`serve`, for code on an event loop."""
    runner = Runner(limit=limit, pause_on_shutdown=pause_on_shutdown)
    for deployment in deployments:
        await runner.add_deployment(deployment)
    if print_starting_message:
        for deployment in deployments:
            name = f"{deployment.flow_name}/{deployment.name}"
            print(f"Serving {name}. Ctrl-C stops it.", file=sys.stderr)
    await runner.start()


def serve(
    *deployments: RunnerDeployment,
    pause_on_shutdown: bool = True,
    print_starting_message: bool = True,
    limit: int | None = None,
) -> None:
    """Serve deployments from this process until it is told to stop.

    Args:
        deployments: made with `Flow.to_deployment`.
        pause_on_shutdown: pause them at the end, unless another process serves them too.
        print_starting_message: say what is served.
        limit: runs at once, of all of them together; None: as many as there are.

    Raises:
        RuntimeError: an event loop runs here: await `aserve`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("serve() blocks, and an event loop runs here: await headrace.runner.aserve().")
    asyncio.run(
        aserve(
            *deployments,
            pause_on_shutdown=pause_on_shutdown,
            print_starting_message=print_starting_message,
            limit=limit,
        )
    )


def _entrypoint(flow: Flow[..., Any], kind: EntrypointType) -> str:
    """Where another process finds the flow.

    Raises:
        ValueError: it does not find it.
    """
    fn = inspect.unwrap(flow.fn)
    module = inspect.getmodule(fn)
    names = [name for name, value in vars(module).items() if value is flow] if module else []
    if not isinstance(fn, FunctionType) or "<locals>" in fn.__qualname__ or "<lambda>" in fn.__qualname__:
        names = []
    if not names or module is None:
        raise ValueError(
            f"Flow '{flow.name}' is not a function at the top of a module, so the processes of its runs "
            "cannot find it."
        )
    if kind == "module":
        if module.__name__ == "__main__":
            raise ValueError(
                f"Flow '{flow.name}' is in the program itself, which is no module: use its file."
            )
        return f"{module.__name__}:{names[0]}"
    file = getattr(module, "__file__", None)
    if file is None:
        raise ValueError(f"Flow '{flow.name}' is not in a file: put it into one.")
    path = Path(file).resolve()
    folder = Path.cwd()
    return f"{path.relative_to(folder) if path.is_relative_to(folder) else path}:{names[0]}"


def _schedules(
    interval: Intervals | None,
    cron: Texts | None,
    rrule: Texts | None,
    schedule: Schedule | None,
    schedules: Sequence[Schedule] | None,
) -> tuple[Schedule, ...]:
    options = {
        "interval": interval,
        "cron": cron,
        "rrule": rrule,
        "schedule": schedule,
        "schedules": schedules,
    }
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"Only one of {', '.join(options)} can be given, not {' and '.join(given)}")
    if interval is not None:
        parts = [interval] if isinstance(interval, (timedelta, int, float)) else interval
        spans = [part if isinstance(part, timedelta) else timedelta(seconds=part) for part in parts]
        return tuple(Schedule(interval=span) for span in spans)
    if cron is not None:
        return tuple(Schedule(cron=text) for text in ([cron] if isinstance(cron, str) else cron))
    if rrule is not None:
        return tuple(Schedule(rrule=text) for text in ([rrule] if isinstance(rrule, str) else rrule))
    return (schedule,) if schedule is not None else tuple(schedules or ())
