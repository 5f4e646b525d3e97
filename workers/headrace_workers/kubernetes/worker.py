"""Each run as a job of a Kubernetes cluster, which goes on whatever becomes of the worker."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, Self

from headrace.docker.names import default_image
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.actions import FoundInfrastructure
from headrace_workers.infrastructure.labels import WORK_POOL, attempt_of
from headrace_workers.infrastructure.output import LogLine
from headrace_workers.infrastructure.worker import (
    EngineUnavailable,
    InfrastructureEnd,
    InfrastructureGone,
    InfrastructureWorker,
)
from headrace_workers.kubernetes.api import Cluster
from headrace_workers.kubernetes.clusters import Clusters
from headrace_workers.kubernetes.configuration import KubernetesJobConfiguration
from headrace_workers.kubernetes.failures import (
    Refused,
    has_started,
    hopeless,
    how_ended,
    is_finished,
    is_settled,
    why_pending,
)
from headrace_workers.kubernetes.manifest import SETTLED_LABEL, job_manifest, job_name, main_container
from headrace_workers.kubernetes.objects import Object, part
from headrace_workers.kubernetes.output import follow_job
from headrace_workers.kubernetes.view import View

__all__ = ["KubernetesWorker"]

CREATE_SECONDS: Final = 300.0
"""How long a job is tried to be made while the cluster does not answer."""
SETTLE_SECONDS: Final = 5.0
"""How much later than the end of a job the end of its pod may be seen."""
REMOVAL_SECONDS: Final = 60.0
"""How much longer than its grace a job may take to be gone."""
_LOCAL: Final = ("localhost", "127.", "[::1]", "0.0.0.0")


class _Where(NamedTuple):
    """A job's infrastructure id, taken apart."""

    uid: str
    namespace: str
    name: str

    @classmethod
    def of(cls, infrastructure_id: str) -> _Where:
        parts = infrastructure_id.split(":")
        if len(parts) != 3:
            raise InfrastructureGone(f"'{infrastructure_id}' is no job of a cluster.")
        return cls(*parts)

    def __str__(self) -> str:
        return f"job '{self.name}' in the namespace '{self.namespace}'"


class KubernetesWorker(InfrastructureWorker[KubernetesJobConfiguration]):
    """Makes a job for each run and follows it: see `docs/kubernetes.md`."""

    type: ClassVar[str] = "kubernetes"
    job_configuration = KubernetesJobConfiguration

    def __init__(self) -> None:
        super().__init__()
        self._clusters = Clusters()
        self._warned: set[str] = set()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._clusters.work_pool = self.facts.work_pool
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._clusters.close()
        await super().__aexit__(*error)

    def configure(self, assignment: Assignment, template: Mapping[str, Any]) -> KubernetesJobConfiguration:
        configuration = super().configure(assignment, template)
        attempt = assignment.attempt
        metadata = part(configuration.job_manifest, "metadata")
        prefix = metadata.get("generateName") or metadata.get("name")
        configuration.job_manifest = job_manifest(
            configuration.job_manifest,
            name=job_name(str(prefix or configuration.name or "run"), attempt.run_id, attempt.fence),
            namespace=configuration.namespace,
            env=configuration.env,
            labels=configuration.labels,
            command=configuration.command,
            image=default_image(),
            deadline_seconds=configuration.job_watch_timeout_seconds,
        )
        address = configuration.env.get("HEADRACE_API_URL", "")
        if address.removeprefix("http://").startswith(_LOCAL):
            self._warn(
                f"Pods are told that the server is at {address}, which is each pod itself. "
                "Start the worker with an address that pods reach (HEADRACE_API_URL)."
            )
        return configuration

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self.facts.tell(f"Warning: {text}")

    # Making.

    async def create(self, configuration: KubernetesJobConfiguration, assignment: Assignment) -> str:
        cluster = await self._clusters.get(configuration.cluster_config)
        try:
            # Looked at before it is made, so that nothing of it is missed.
            await (await self._clusters.view(cluster, configuration.namespace)).ready()
        except EngineUnavailable as error:
            self._warn(str(error))
        job = await self._made(cluster, configuration.job_manifest)
        metadata: Object = job["metadata"]
        return f"{metadata['uid']}:{metadata['namespace']}:{metadata['name']}"

    async def _made(self, cluster: Cluster, manifest: Object) -> Object:
        """The job; asking twice makes it once, because its name is that of the attempt."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + CREATE_SECONDS, 0.2
        while True:
            try:
                return await cluster.create_job(manifest)
            except EngineUnavailable as error:
                if loop.time() > deadline:
                    raise
                self._warn(f"{error} Trying again.")
            except Refused as error:
                if error.code != 409:
                    raise
                if error.reason == "AlreadyExists":
                    return await self._ours(cluster, manifest, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10.0)

    async def _ours(self, cluster: Cluster, manifest: Object, refused: Refused) -> Object:
        """The job that is there already, if it is of this attempt: an answer of the cluster was lost."""
        metadata: Object = manifest["metadata"]
        job = await cluster.get_job(metadata["namespace"], metadata["name"])
        if attempt_of(job["metadata"].get("labels") or {}) != attempt_of(metadata["labels"]):
            raise refused
        return job

    # Following.

    async def watch(
        self, infrastructure_id: str, configuration: KubernetesJobConfiguration
    ) -> InfrastructureEnd:
        where = _Where.of(infrastructure_id)
        cluster = await self._clusters.get(configuration.cluster_config)
        view = await self._clusters.view(cluster, where.namespace)
        await view.ready()
        loop = asyncio.get_running_loop()
        container = main_container(configuration.job_manifest)["name"]
        pod_deadline = loop.time() + configuration.pod_watch_timeout_seconds
        settle_deadline: float | None = None
        while True:
            await view.ready()
            job, pods = await _current(cluster, view, where), view.all_pods(where.uid)
            end = how_ended(job, pods, container)
            if end is None and job is None and not view.pods(where.uid):
                raise InfrastructureGone(f"The {where} was removed by somebody before it had ended.")
            if end is not None and is_settled(job, pods):
                return end
            left: float | None = None
            if end is not None:
                settle_deadline = settle_deadline or loop.time() + SETTLE_SECONDS
                left = settle_deadline - loop.time()
                if left <= 0:
                    return end
            elif not any(has_started(pod) for pod in pods):
                left = pod_deadline - loop.time()
                why = hopeless(pods)
                if not why and left <= 0:
                    reason = why_pending(pods, await _events(cluster, where, pods))
                    waited = f"{configuration.pod_watch_timeout_seconds:g} s"
                    why = f"The pod did not start within {waited}: {reason}."
                if why:
                    await _remove(cluster, where, 0)
                    return InfrastructureEnd(None, why, never_started=True)
            await view.changed(where.uid, left if view.job(where.uid) is not None else 1.0)

    async def read_logs(
        self, infrastructure_id: str, configuration: KubernetesJobConfiguration, since_ns: int | None
    ) -> AsyncIterator[Sequence[LogLine]]:
        where = _Where.of(infrastructure_id)
        cluster = await self._clusters.get(configuration.cluster_config)
        view = await self._clusters.view(cluster, where.namespace)
        container = main_container(configuration.job_manifest)["name"]
        async for lines in follow_job(cluster, view, where.uid, container, since_ns):
            yield lines

    # Ending.

    async def stop(
        self, infrastructure_id: str, configuration: KubernetesJobConfiguration | None, grace_seconds: float
    ) -> None:
        where = _Where.of(infrastructure_id)
        cluster, job = await self._find_job(where, configuration)
        if not is_finished(job):
            await _remove(cluster, where, math.ceil(grace_seconds))

    async def clean_up(
        self, infrastructure_id: str, configuration: KubernetesJobConfiguration | None
    ) -> None:
        # A job that has ended by itself stays for people to see, as long as `finished_job_ttl` says.
        where = _Where.of(infrastructure_id)
        try:
            cluster, _ = await self._find_job(where, configuration)
            await cluster.label_job(where.namespace, where.name, {SETTLED_LABEL: "true"})
        except InfrastructureGone:
            return
        except Refused as error:
            if error.code != 404:
                raise EngineUnavailable(str(error)) from error

    async def _find_job(
        self, where: _Where, configuration: KubernetesJobConfiguration | None
    ) -> tuple[Cluster, Object]:
        """The cluster that has a job, and the job."""
        if configuration is not None:
            clusters = [await self._clusters.get(configuration.cluster_config)]
        else:
            clusters = await self._clusters.known()
        for cluster in clusters:
            try:
                job = await cluster.get_job(where.namespace, where.name)
            except Refused as error:
                if error.code != 404:
                    raise _not_done(error) from error
                continue
            if job["metadata"]["uid"] == where.uid:
                return cluster, job
        raise InfrastructureGone(f"There is no {where} any more.")

    async def find(self) -> Sequence[FoundInfrastructure]:
        found: list[FoundInfrastructure] = []
        for view in await self._clusters.views():
            await view.ready()
            for job in view.jobs():
                metadata, labels = part(job, "metadata"), part(job, "metadata", "labels")
                pool = part(metadata, "annotations").get(WORK_POOL, labels.get(WORK_POOL))
                attempt = attempt_of(labels)
                if attempt is not None and pool == self.facts.work_pool:
                    name = f"{metadata['uid']}:{metadata['namespace']}:{metadata['name']}"
                    found.append(FoundInfrastructure(attempt, name))
        return found


async def _current(cluster: Cluster, view: View, where: _Where) -> Object | None:
    """The job, or None if it is gone; the watch may not have come to it yet."""
    job = view.job(where.uid)
    if job is not None or view.was_removed(where.uid):
        return job
    try:
        job = await cluster.get_job(where.namespace, where.name)
    except Refused as error:
        if error.code == 404:
            return None
        raise EngineUnavailable(str(error)) from error
    return job if job["metadata"]["uid"] == where.uid else None


async def _events(cluster: Cluster, where: _Where, pods: Sequence[Object]) -> list[Object]:
    """Of the job and its newest pod, the newest last; none if the account may not read them."""
    found: list[Object] = []
    for uid in (where.uid, *(pod["metadata"]["uid"] for pod in pods[-1:])):
        try:
            items, _ = await cluster.list_all("events", where.namespace, fields=f"involvedObject.uid={uid}")
        except Refused:
            return found
        found += sorted(
            items, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or "")
        )
    return found


async def _remove(cluster: Cluster, where: _Where, grace_seconds: int) -> None:
    """Remove a job with its pods, and wait until they are gone.

    Raises:
        EngineUnavailable: they are not.
    """
    try:
        await cluster.delete_job(where.namespace, where.name, where.uid)
        pods, _ = await cluster.list_all("pods", where.namespace, labels=f"job-name={where.name}")
        for pod in pods:
            await _end_pod(cluster, pod["metadata"], grace_seconds)
        await _wait_until_gone(cluster, where, grace_seconds + REMOVAL_SECONDS)
    except Refused as error:
        if error.code != 404:
            raise _not_done(error) from error


async def _end_pod(cluster: Cluster, metadata: Object, grace_seconds: int) -> None:
    try:
        await cluster.delete_pod(metadata["namespace"], metadata["name"], metadata["uid"], grace_seconds)
    except Refused as error:
        if error.code not in (404, 409):
            raise


async def _wait_until_gone(cluster: Cluster, where: _Where, timeout_seconds: float) -> None:
    """Until a request for the job is refused with 404, or another has its name."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + timeout_seconds, 0.05
    while (await cluster.get_job(where.namespace, where.name))["metadata"]["uid"] == where.uid:
        if loop.time() > deadline:
            raise EngineUnavailable(f"The {where} is still being removed.")
        await asyncio.sleep(pause)
        pause = min(pause * 2, 2.0)


def _not_done(error: Refused) -> EngineUnavailable | InfrastructureGone:
    if error.code in (404, 409):
        return InfrastructureGone(str(error))
    return EngineUnavailable(str(error))
