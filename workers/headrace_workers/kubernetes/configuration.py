"""What a run on Kubernetes is started with."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from headrace_workers.infrastructure.worker import InfrastructureJobConfiguration

__all__ = ["KubernetesJobConfiguration"]


class KubernetesJobConfiguration(InfrastructureJobConfiguration):
    """The pool's template with its placeholders filled.

    Attributes:
        namespace: of the job.
        job_manifest: the job itself.
        cluster_config: a kubeconfig; None: the worker's own cluster.
        job_watch_timeout_seconds: how long the job may take altogether; None: as long as it likes.
        pod_watch_timeout_seconds: how long its pod may take to start.
    """

    namespace: str = Field(default="default", min_length=1)
    job_manifest: dict[str, Any] = Field(default_factory=dict[str, Any])
    cluster_config: dict[str, Any] | None = None
    job_watch_timeout_seconds: int | None = Field(default=None, ge=0)
    pod_watch_timeout_seconds: float = Field(default=60, gt=0)
