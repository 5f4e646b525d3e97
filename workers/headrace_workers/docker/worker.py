"""Each run in a container of its own, which goes on whatever becomes of the worker."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

from aiodocker.exceptions import DockerError

from headrace.docker.engine import open_engine
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.actions import FoundInfrastructure
from headrace_workers.docker.configuration import (
    AUTO_REMOVE,
    DockerJobConfiguration,
    container_body,
    container_name,
)
from headrace_workers.docker.engine import answers, read_output
from headrace_workers.docker.images import provide_image
from headrace_workers.infrastructure.labels import WORK_POOL, attempt_of
from headrace_workers.infrastructure.output import LogLine
from headrace_workers.infrastructure.worker import (
    EngineUnavailable,
    InfrastructureEnd,
    InfrastructureWorker,
)

__all__ = ["DockerWorker"]

_CONFLICT: Final = 409
_KILLED: Final = 137
_NAMES: Final = 100
"""How many containers of one name are counted up to."""
_MOST_FOUND: Final = 1000
_NOT_RUNNING: Final = frozenset({304, 409})


class DockerWorker(InfrastructureWorker[DockerJobConfiguration]):
    """Runs each flow run in a container, by any engine that speaks Docker's API."""

    type: ClassVar[str] = "docker"
    job_configuration = DockerJobConfiguration

    def __init__(self) -> None:
        super().__init__()
        self._docker: Any = None  # the library says its types in part only
        self._has_searched = False

    async def __aenter__(self) -> Self:
        self._docker = await open_engine()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._docker is not None:
            await self._docker.close()
        await super().__aexit__(*error)

    @property
    def _engine(self) -> Any:
        assert self._docker is not None, "it is used before it is entered"
        return self._docker

    def configure(self, assignment: Assignment, template: Mapping[str, Any]) -> DockerJobConfiguration:
        configuration = super().configure(assignment, template)
        configuration.reach_engine_host()
        return configuration

    async def create(self, configuration: DockerJobConfiguration, assignment: Assignment) -> str:
        await provide_image(self._engine, configuration, self.facts.tell)
        container_id = await self._make(configuration)
        container = self._engine.containers.container(container_id)
        try:
            for network in configuration.networks[configuration.network_mode is None :]:
                found = await self._engine.networks.get(network)
                await found.connect({"Container": container_id})
            await container.start()
        except BaseException:
            with contextlib.suppress(DockerError):  # what went wrong first is what is told
                await container.delete(force=True, v=True)
            raise
        return container_id

    async def _make(self, configuration: DockerJobConfiguration) -> str:
        """Create it under the first name that is free."""
        body = container_body(configuration)
        for number in range(_NAMES):
            name = container_name(configuration, number)
            try:
                return str((await self._engine.containers.create(body, name=name)).id)
            except DockerError as error:
                is_taken = error.status == _CONFLICT or "already in use" in error.message
                if name is None or not is_taken:
                    raise
        return str((await self._engine.containers.create(body)).id)

    async def watch(self, infrastructure_id: str, configuration: DockerJobConfiguration) -> InfrastructureEnd:
        container = self._engine.containers.container(infrastructure_id)
        with answers(infrastructure_id):
            state = (await container.show())["State"]
            if state["Status"] != "created":
                await container.wait()
                state = (await container.show())["State"]
        return _end_of(state, configuration)

    async def read_logs(
        self, infrastructure_id: str, configuration: DockerJobConfiguration, since_ns: int | None
    ) -> AsyncIterator[Sequence[LogLine]]:
        with answers(infrastructure_id):
            async for lines in read_output(self._engine, infrastructure_id, since_ns):
                yield lines
            shown = await self._engine.containers.container(infrastructure_id).show()
        if shown["State"].get("Running"):
            raise EngineUnavailable("The container engine has ended the output of a container that runs.")

    async def stop(
        self, infrastructure_id: str, configuration: DockerJobConfiguration | None, grace_seconds: float
    ) -> None:
        container = self._engine.containers.container(infrastructure_id)
        with answers(infrastructure_id):
            try:
                if grace_seconds > 0:
                    await container.stop(t=math.ceil(grace_seconds))
                else:
                    await container.kill()
            except DockerError as error:
                if error.status not in _NOT_RUNNING and (await container.show())["State"].get("Running"):
                    raise

    async def clean_up(self, infrastructure_id: str, configuration: DockerJobConfiguration | None) -> None:
        container = self._engine.containers.container(infrastructure_id)
        with answers(infrastructure_id):
            shown = await container.show()
            # One that was created and never started is of use to nobody.
            if AUTO_REMOVE in shown["Config"]["Labels"] or shown["State"]["Status"] == "created":
                await container.delete(v=True, force=True)

    async def find(self) -> Sequence[FoundInfrastructure]:
        """All of the pool's. Those that have ended and stay are named once: by then their end is known."""
        filters = {"label": [f"{WORK_POOL}={self.facts.work_pool}"]}
        with answers(""):
            listed = await self._engine.containers.list(all=1, filters=json.dumps(filters))
        found: list[FoundInfrastructure] = []
        for container in listed[:_MOST_FOUND]:  # the newest come first
            said: dict[str, Any] = container._container
            labels: dict[str, str] = said.get("Labels") or {}
            is_kept = said.get("State") in ("exited", "dead", "stopped") and AUTO_REMOVE not in labels
            attempt = attempt_of(labels)
            if attempt is not None and not (is_kept and self._has_searched):
                found.append(FoundInfrastructure(attempt, container.id))
        self._has_searched = True
        return found


def _end_of(state: Mapping[str, Any], configuration: DockerJobConfiguration) -> InfrastructureEnd:
    if state["Status"] == "created":
        return InfrastructureEnd(None, "The container was made and never started.", never_started=True)
    exit_code, limit = int(state["ExitCode"]), configuration.mem_limit
    reason = str(state.get("Error") or "")
    if state.get("OOMKilled"):
        reason = f"The container used up its memory{f' limit of {limit}' if limit else ''} and was killed"
    elif limit and exit_code == _KILLED:
        # Not every engine is told by the kernel.
        reason = f"The container was killed, probably because it used up its memory limit of {limit}"
    return InfrastructureEnd(exit_code, reason)
