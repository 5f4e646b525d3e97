"""What users declare, as rows: work pools, work queues, deployments and their versions."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_services.storage.entities import Entity, column

__all__ = ["DeploymentRow", "DeploymentVersionRow", "WorkPoolRow", "WorkQueueRow"]


@dataclass(slots=True)
class WorkPoolRow(Entity):
    """One work pool. Whoever changes one of its queues locks it first."""

    TABLE = "work_pools"
    KEY = ("id",)

    id: str = column("uuid")
    name: str = column("text")
    type: str = column("text")
    description: str = column("text")
    is_paused: bool = column("bool")
    concurrency_limit: int | None = column("int")
    base_job_template: str = column("text")
    """JSON text."""
    create_time: int = column("bigint")
    update_time: int = column("bigint")
    version: int = column("bigint", default=1)
    has_key_limits: bool = column("bool", default=False)
    """Some fairness key has a limit in this pool."""


@dataclass(slots=True)
class WorkQueueRow(Entity):
    """One work queue. Its priority is unique in the pool, which its pool's lock takes care of."""

    TABLE = "work_queues"
    KEY = ("id",)

    id: str = column("uuid")
    pool_id: str = column("uuid")
    name: str = column("text")
    description: str = column("text")
    priority: int = column("int")
    is_paused: bool = column("bool")
    is_default: bool = column("bool")
    concurrency_limit: int | None = column("int")
    create_time: int = column("bigint")
    update_time: int = column("bigint")
    version: int = column("bigint", default=1)


@dataclass(slots=True)
class DeploymentRow(Entity):
    """One deployment, as its current version says."""

    TABLE = "deployments"
    KEY = ("id",)

    id: str = column("uuid")
    flow_id: str = column("uuid")
    flow_name: str = column("text")
    name: str = column("text")
    is_paused: bool = column("bool")
    work_pool: str | None = column("text")
    work_queue: str | None = column("text")
    concurrency_limit: int | None = column("int")
    tags: str | None = column("text")
    """A JSON list; None: none."""
    version_id: str = column("uuid")
    version_number: int = column("bigint")
    create_time: int = column("bigint")
    update_time: int = column("bigint")
    created_by: str = column("text")
    updated_by: str = column("text")
    spec: bytes = column("bytea")
    """headrace.v1.Deployment, without schedules, `paused` and what is output only."""
    version: int = column("bigint", default=1)


@dataclass(slots=True)
class DeploymentVersionRow(Entity):
    """What a deployment was. Never changed."""

    TABLE = "deployment_versions"
    KEY = ("id",)

    id: str = column("uuid")
    deployment_id: str = column("uuid")
    number: int = column("bigint")
    digest: str = column("text")
    create_time: int = column("bigint")
    created_by: str = column("text")
    body: bytes = column("bytea")
    """headrace.v1.DeploymentVersion: the deployment and the changes."""
