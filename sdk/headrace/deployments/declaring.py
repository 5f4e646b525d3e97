"""Deployments as code describes them, before a server hears of them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from headrace.client import get_client
from headrace.schedules import Schedule
from headrace.v1.deployment_pb2 import CollisionStrategy, Deployment
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_RESCHEDULE

if TYPE_CHECKING:
    from headrace.deployments.sources import Source, Storage
    from headrace.flows import Flow

__all__ = ["ConcurrencyLimitConfig", "EntrypointType", "Intervals", "RunnerDeployment", "Texts"]

Intervals: TypeAlias = "timedelta | float | Sequence[timedelta | float]"
Texts: TypeAlias = "str | Sequence[str]"
EntrypointType: TypeAlias = Literal["file", "module"]

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

    @classmethod
    async def afrom_storage(
        cls, storage: Source, entrypoint: str, name: str, **options: Any
    ) -> RunnerDeployment:
        """`from_storage`, for code on an event loop."""
        from headrace.deployments.sources import load_flow_from_source

        return cls.from_flow(await load_flow_from_source(storage, entrypoint), name, **options)

    @classmethod
    def from_storage(cls, storage: Source, entrypoint: str, name: str, **options: Any) -> RunnerDeployment:
        """The deployment of a flow whose code is elsewhere, and is fetched anew for each run.

        Args:
            storage: as `Flow.from_source` takes it.
            entrypoint: `path/file.py:flow` or `package.module:flow`, relative to the top of the code.
            name: unique for the flow.
            options: those of `Flow.to_deployment`.

        Raises:
            ValueError, OSError, HeadraceException: as `Flow.from_source` and `from_flow`.
        """
        from headrace.execution.background import dispatched

        return dispatched(cls.afrom_storage(storage, entrypoint, name, **options))

    @classmethod
    def from_entrypoint(cls, entrypoint: str, name: str, **options: Any) -> RunnerDeployment:
        """The deployment of the flow at `path/file.py:flow`, or `package.module:flow`, of this machine.

        Args:
            entrypoint: relative to the current folder.
            name: unique for the flow.
            options: those of `Flow.to_deployment`.

        Raises:
            MissingFlowError: there is no such flow.
            ValueError: as `from_flow`.
        """
        from headrace.flows import load_flow_from_entrypoint

        return cls.from_flow(load_flow_from_entrypoint(entrypoint), name, **options)

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

    async def aapply(self, work_pool_name: str | None = None) -> str:
        """`apply`, for code on an event loop."""
        wanted = self if work_pool_name is None else replace(self, work_pool_name=work_pool_name)
        async with get_client() as client:
            answer = await client.apply_deployment(wanted.to_message(), wanted.paths)
        return answer.deployment.id

    def apply(self, work_pool_name: str | None = None) -> str:
        """Make the deployment on the server what this says; to be awaited where an event loop runs.

        Args:
            work_pool_name: instead of the deployment's own.

        Returns:
            Its id.

        Raises:
            ServiceError: the server refuses it, or does not answer.
        """
        from headrace.execution.background import dispatched

        return dispatched(self.aapply(work_pool_name))


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
