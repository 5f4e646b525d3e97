"""Deployments and their versions: from messages to rows and back."""

from __future__ import annotations

import json

from headrace.v1.deployment_pb2 import DEPLOYMENT_STATUS_NOT_READY, Deployment, DeploymentVersion
from headrace_services.storage.declared_rows import DeploymentRow, DeploymentVersionRow
from headrace_services.storage.instants import set_micros

__all__ = ["declared", "deployment_message", "set_declared", "set_queue", "version_message"]


def declared(row: DeploymentRow) -> Deployment:
    """What was declared, without schedules: the names, and everything that a request can say."""
    deployment = Deployment.FromString(row.spec)
    deployment.paused = row.is_paused
    return deployment


def set_declared(row: DeploymentRow, wanted: Deployment) -> None:
    """Make the row say what `wanted` does; schedules have rows of their own."""
    row.is_paused = wanted.paused
    row.work_pool, row.work_queue = wanted.work_pool or None, wanted.work_queue or None
    row.concurrency_limit = wanted.concurrency.limit if wanted.HasField("concurrency") else None
    row.tags = json.dumps(list(wanted.tags), ensure_ascii=False) if wanted.tags else None
    spec = Deployment()
    spec.CopyFrom(wanted)
    spec.ClearField("paused")
    spec.ClearField("schedules")
    row.spec = spec.SerializeToString(deterministic=True)


def set_queue(row: DeploymentRow, queue: str) -> None:
    """The deployment's queue has another name now; empty: its runs go into the pool's default one."""
    spec = Deployment.FromString(row.spec)
    spec.work_queue = queue
    row.work_queue = queue or None
    row.spec = spec.SerializeToString(deterministic=True)


def deployment_message(row: DeploymentRow) -> Deployment:
    """The deployment as it is shown, without its schedules."""
    deployment = declared(row)
    deployment.id = row.id
    deployment.flow_id = row.flow_id
    deployment.status = DEPLOYMENT_STATUS_NOT_READY
    deployment.created_by, deployment.updated_by = row.created_by, row.updated_by
    deployment.version_number, deployment.version_id = row.version_number, row.version_id
    deployment.etag = str(row.version)
    set_micros(deployment.create_time, row.create_time)
    set_micros(deployment.update_time, row.update_time)
    return deployment


def version_message(row: DeploymentVersionRow) -> DeploymentVersion:
    """The version as it is shown."""
    version = DeploymentVersion.FromString(row.body)
    version.id, version.deployment_id = row.id, row.deployment_id
    version.number, version.digest, version.created_by = row.number, row.digest, row.created_by
    set_micros(version.create_time, row.create_time)
    return version
