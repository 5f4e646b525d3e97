"""A Kubernetes worker without a stream, on a cluster of the tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from headrace.core.ids import new_id
from headrace.v1.run_pb2 import AttemptRef, Run
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.base import WorkerFacts
from headrace_workers.infrastructure.labels import WORK_POOL
from headrace_workers.infrastructure.worker import InfrastructureEnd
from headrace_workers.kubernetes.configuration import KubernetesJobConfiguration
from headrace_workers.kubernetes.manifest import label_value
from headrace_workers.kubernetes.worker import KubernetesWorker
from tests.support.kubernetes.cluster import StubCluster
from tests.support.kubernetes.store import Object

__all__ = ["Bench", "Handed", "assigned", "bench_on", "eventually"]

T = TypeVar("T")


async def eventually(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """What `condition` gives once that is true.

    Raises:
        TimeoutError: it was not in time.
    """
    async with asyncio.timeout(seconds):
        while not (found := condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # what is waited for happens in other processes
        return found


def assigned(
    variables: dict[str, Any], name: str = "brisk otter", fence: int = 1, run_id: str = ""
) -> Assignment:
    """A run as a worker is given it."""
    run_id = run_id or new_id()
    attempt = AttemptRef(run_id=run_id, attempt=1, fence=fence)
    assignment = Assignment(attempt=attempt, run=Run(id=run_id, name=name, flow_name="a flow"))
    assignment.job_variables.update(variables)
    return assignment


@dataclass
class Handed:
    """One run that the worker has started."""

    bench: Bench
    assignment: Assignment
    configuration: KubernetesJobConfiguration
    id: str
    lines: list[str] = field(default_factory=list)

    @property
    def uid(self) -> str:
        return self.id.split(":")[0]

    async def end(self) -> InfrastructureEnd:
        async with asyncio.timeout(60):
            return await self.bench.worker.watch(self.id, self.configuration)

    async def printed(self, since_ns: int | None = None) -> list[str]:
        """All that it prints, once it has ended."""
        async with asyncio.timeout(60):
            async for lines in self.bench.worker.read_logs(self.id, self.configuration, since_ns):
                self.lines += [line.text for line in lines]
        return self.lines

    async def pod(self) -> Object:
        """Its newest pod, once its process runs."""
        cluster = self.bench.cluster

        def running() -> Object | None:
            own = [
                p
                for p in cluster.pods()
                if any(o["uid"] == self.uid for o in p["metadata"]["ownerReferences"])
            ]
            return next((pod for pod in own if cluster.pid_of(pod)), None)

        return await eventually(running) or {}

    def is_there(self) -> bool:
        """Whether the cluster has its job."""
        return any(job["metadata"]["uid"] == self.uid for job in self.bench.cluster.jobs())


@dataclass
class Bench:
    """One worker.

    Attributes:
        worker: entered.
        cluster: its own.
        told: lines for whoever looks at it.
    """

    worker: KubernetesWorker
    cluster: StubCluster
    told: list[str]

    @property
    def watches(self) -> int:
        """How many it has open: of jobs and of pods."""
        return self.cluster.watches(f"{WORK_POOL}={label_value(self.worker.facts.work_pool)}")

    async def hand(self, command: str | None, **variables: Any) -> Handed:
        """Have it start a command."""
        said = {"image": "flows:1", **({} if command is None else {"command": command}), **variables}
        assignment = assigned(said)
        configuration = self.worker.configure(assignment, {})
        identifier = await self.worker.create(configuration, assignment)
        return Handed(self, assignment, configuration, identifier)


@contextlib.asynccontextmanager
async def bench_on(cluster: StubCluster, pool: str) -> AsyncIterator[Bench]:
    """A worker of a pool; the environment says how it reaches the cluster."""
    told: list[str] = []
    worker = KubernetesWorker()
    environment = {"HEADRACE_API_URL": "headrace.example:4200", "HEADRACE_HOME": "/nowhere"}
    worker.facts = WorkerFacts("w", pool, environment, told.append)
    async with worker:
        yield Bench(worker, cluster, told)
