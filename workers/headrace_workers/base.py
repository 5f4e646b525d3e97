"""What a type of worker is: a class that can start and end the infrastructure of one run."""

from __future__ import annotations

import builtins
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, Self, TypeVar, cast

from google.protobuf.json_format import MessageToDict
from pydantic import BaseModel, ConfigDict, Field

from headrace.cli.executing import CODE_VARIABLES
from headrace.core.job_templates import base_job_template
from headrace.core.job_variables import job_configuration
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_RESCHEDULE
from headrace.v1.worker_pb2 import WorkerCapability
from headrace.v1.worker_service_pb2 import Assignment

__all__ = [
    "BaseJobConfiguration",
    "BaseWorker",
    "BaseWorkerResult",
    "WorkerFacts",
    "default_template",
    "json_object",
]

DEFAULT_COMMAND: Final = "headrace flow-run execute"
LABEL_PREFIX: Final = "headrace.dev/"


class BaseJobConfiguration(BaseModel):
    """What is needed to start one run: the pool's `job_configuration` with its placeholders filled.

    A worker type adds fields of its own in a subclass; what a template has besides is passed over.

    Attributes:
        name: of the job; the run's name unless somebody says otherwise.
        env: environment variables, those that the run needs included.
        labels: of the job.
        command: what starts the run.
    """

    model_config = ConfigDict(extra="ignore")

    name: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    command: str = DEFAULT_COMMAND

    @property
    def is_default_command(self) -> bool:
        """Whether nobody has asked for another command."""
        return self.command == DEFAULT_COMMAND


@dataclass(frozen=True, slots=True)
class BaseWorkerResult:
    """How the infrastructure of a run has ended.

    Attributes:
        status_code: exit code; None: not known.
        message: in words, what is known of the end.
        never_started: no code of the user has run, so that the run can be started again without harm.
    """

    status_code: int | None = None
    message: str = ""
    never_started: bool = False


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a worker process tells its worker class.

    Attributes:
        name: of the worker.
        work_pool: its pool; empty for a process that serves its own deployments.
        environment: what every run needs to reach the server.
        tell: shows a line to whoever looks at the worker.
        server_address: `host:port` of the server that the worker is connected to; empty: not connected yet.
    """

    name: str = ""
    work_pool: str = ""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    tell: Callable[[str], None] = print
    server_address: Callable[[], str] = str


C = TypeVar("C", bound=BaseJobConfiguration)


class BaseWorker(ABC, Generic[C]):
    """A type of worker. One instance lives as long as the worker process: `async with` it.

    Everything that has to do with the server is done elsewhere. A subclass says how a run is started and
    ended. Its methods run on the event loop that also carries the heartbeats, so they must not block.

    Attributes:
        type: what pools of this kind are called.
        job_configuration: what a run is started with.
        capabilities: what else it can do.
        facts: set before `__aenter__`.
    """

    type: ClassVar[str]
    job_configuration: ClassVar[builtins.type[BaseJobConfiguration]] = BaseJobConfiguration
    capabilities: ClassVar[tuple[WorkerCapability.ValueType, ...]] = ()

    def __init__(self) -> None:
        self.facts = WorkerFacts()

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """The template of a new pool: the fields of `job_configuration` that it has beside everybody's."""
        return default_template(cls.type, cls.job_configuration)

    async def __aenter__(self) -> Self:
        """Get ready; the first run may be assigned when this returns."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """No run is left."""

    def configure(self, assignment: Assignment, template: Mapping[str, Any]) -> C:
        """What the run is started with.

        Args:
            assignment: the run, and what its deployment says.
            template: the pool's base job template; empty: the type's own.

        Raises:
            ValueError: the variables do not fit the template, or the result does not fit `job_configuration`.
        """
        job = job_configuration(
            template or self.get_default_base_job_template(),
            json_object(assignment.job_variables),
            context={
                "flow": {"name": assignment.run.flow_name},
                "flow_run": {"id": assignment.run.id, "name": assignment.run.name},
                "deployment": {"name": assignment.deployment_name},
            },
            default_command=DEFAULT_COMMAND,
            base_env={**self.base_environment(), **assignment.environment, **run_environment(assignment)},
            base_labels=self._labels(assignment),
        )
        return cast("C", self.job_configuration.model_validate(job))

    def base_environment(self) -> Mapping[str, str]:
        """What every run needs to reach the server."""
        return self.facts.environment

    def _labels(self, assignment: Assignment) -> dict[str, str]:
        run = assignment.run
        labels = {
            "flow-run-id": run.id,
            "attempt": str(assignment.attempt.attempt),
            "fence": str(assignment.attempt.fence),
            "flow-run-name": run.name,
            "flow-name": run.flow_name,
            "deployment-name": assignment.deployment_name,
            "work-pool-name": self.facts.work_pool,
            "worker-name": self.facts.name,
        }
        return {LABEL_PREFIX + name: text for name, text in labels.items() if text}

    @abstractmethod
    async def run(
        self, configuration: C, assignment: Assignment, started: Callable[[str], None]
    ) -> BaseWorkerResult:
        """Start the infrastructure of a run, and see it through to its end.

        It may be cancelled at any time after `kill_infrastructure`, and then has nothing to do.

        Args:
            configuration: what to start it with.
            assignment: the run, with everything that the server said of it.
            started: to be called once with the id of the infrastructure, as soon as it is there.

        Raises:
            Exception: it could not be started; the run is given back or crashed, with the error's text.
        """

    @abstractmethod
    async def kill_infrastructure(
        self, infrastructure_id: str, configuration: C, grace_seconds: float
    ) -> None:
        """End the infrastructure of a run; `run` returns when it is gone.

        Args:
            infrastructure_id: what `run` has called `started` with.
            configuration: what it was started with.
            grace_seconds: how long it may take to end by itself; 0: it is ended now.
        """

    async def cancel_gently(self, infrastructure_id: str, configuration: C, reason: str) -> None:
        """Tell the run's process that it is being cancelled, where there is a way besides the server's."""

    async def adopt(
        self, configuration: C, assignment: Assignment, infrastructure_id: str
    ) -> BaseWorkerResult:
        """See a run through that goes on in infrastructure of a former worker process.

        Only types with WORKER_CAPABILITY_SURVIVES_RESTART are asked to: see
        `headrace_workers.infrastructure`.
        """
        raise NotImplementedError(f"Runs of {self.type} workers end with their worker.")

    async def teardown(self, infrastructure_id: str) -> bool:
        """Remove what may be left of a run that this process did not start.

        Only types with WORKER_CAPABILITY_TEARDOWN are asked to.

        Returns:
            Whether it was here, and nothing of it runs any more.
        """
        return False


def run_environment(assignment: Assignment) -> dict[str, str]:
    """The variables by which a process knows what it executes: attempt, run and where the code is."""
    attempt = assignment.attempt
    variables = {
        "HEADRACE__FLOW_RUN_ID": attempt.run_id,
        "HEADRACE__ATTEMPT": str(attempt.attempt),
        "HEADRACE__FENCE": str(attempt.fence),
    }
    if assignment.on_lost == LOST_ATTEMPT_POLICY_RESCHEDULE:
        variables["HEADRACE__ON_LOST"] = "reschedule"
    for name, variable in CODE_VARIABLES.items():
        if text := getattr(assignment, name):
            variables[variable] = text
    if assignment.run.traceparent:
        variables["TRACEPARENT"] = assignment.run.traceparent
    if assignment.attempt_credential:
        variables["HEADRACE__ATTEMPT_CREDENTIAL"] = assignment.attempt_credential
    return variables


def default_template(type: str, configuration: type[BaseJobConfiguration]) -> dict[str, Any]:
    """The common template, with a variable for each further field of `configuration`."""
    template = base_job_template(type)
    schema = configuration.model_json_schema()
    known = template["variables"]["properties"]
    for name, field_schema in schema.get("properties", {}).items():
        if name not in template["job_configuration"]:
            template["job_configuration"][name] = f"{{{{ {name} }}}}"
            known.setdefault(name, field_schema)
    if "$defs" in schema:
        template["variables"].setdefault("$defs", {}).update(schema["$defs"])
    checked: dict[str, Any] = json.loads(json.dumps(template))
    return checked


def json_object(struct: Any) -> dict[str, Any]:
    """The JSON object of a struct; whole numbers are integers again."""
    found: Any = _whole(MessageToDict(struct))
    return cast("dict[str, Any]", found)


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_whole(item) for item in cast("list[Any]", value)]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
