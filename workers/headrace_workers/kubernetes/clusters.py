"""The clusters that a worker has to do with, and what it sees of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from headrace.client import get_client
from headrace.core.errors import ConfigurationError, HeadraceException
from headrace.core.job_variables import job_configuration
from headrace_workers.base import json_object
from headrace_workers.infrastructure.labels import WORK_POOL
from headrace_workers.infrastructure.worker import EngineUnavailable
from headrace_workers.kubernetes.api import Cluster, connect
from headrace_workers.kubernetes.failures import Refused
from headrace_workers.kubernetes.manifest import SETTLED_LABEL, label_value
from headrace_workers.kubernetes.view import View

__all__ = ["Clusters"]

_NOBODY: Final = {"flow_run": {"name": "nobody"}}


class Clusters:
    """Connections, by kubeconfig, and views, by namespace.

    Attributes:
        work_pool: whose jobs are looked at.
    """

    def __init__(self) -> None:
        self.work_pool = ""
        self._clusters: dict[str, Cluster] = {}
        self._views: dict[tuple[str, str], View] = {}
        self._wide: dict[str, bool] = {}
        self._lock = asyncio.Lock()
        self._has_read_pool = False

    async def close(self) -> None:
        """Look at none any more."""
        for view in self._views.values():
            await view.close()
        for cluster in self._clusters.values():
            await cluster.close()

    async def get(self, kubeconfig: Mapping[str, Any] | None) -> Cluster:
        """The cluster of a kubeconfig; None: the worker's own.

        Raises:
            ConfigurationError: there is none.
        """
        key = json.dumps(kubeconfig, sort_keys=True)
        async with self._lock:
            if key not in self._clusters:
                self._clusters[key] = await connect(kubeconfig)
            return self._clusters[key]

    async def known(self) -> list[Cluster]:
        """Those of runs so far, and the pool's."""
        await self._read_pool()
        return list(self._clusters.values())

    async def views(self) -> list[View]:
        """Everything that is looked at: where runs were so far, and where the pool has them."""
        await self._read_pool()
        return list(self._views.values())

    async def view(self, cluster: Cluster, namespace: str) -> View:
        """What there is in a namespace: part of a view of all of them where the account may have that.

        Raises:
            EngineUnavailable: the cluster does not answer.
        """
        key = next(key for key, one in self._clusters.items() if one is cluster)
        async with self._lock:
            if key not in self._wide:
                self._wide[key] = await _may_see_all(cluster)
            namespace = "" if self._wide[key] else namespace
            if (key, namespace) not in self._views:
                pool = f"{WORK_POOL}={label_value(self.work_pool)}"
                jobs = f"{pool},!{SETTLED_LABEL}"
                self._views[key, namespace] = View(cluster, namespace, job_labels=jobs, pod_labels=pool)
            return self._views[key, namespace]

    async def _read_pool(self) -> None:
        """Look where the pool's own template has its runs; jobs of workers before this one may be there."""
        if self._has_read_pool:
            return
        try:
            async with get_client() as client:
                pool = await client.get_work_pool(self.work_pool)
        except HeadraceException:
            return  # asked again the next time
        template = json_object(pool.base_job_template)
        try:
            job = job_configuration(template, {}, context=_NOBODY, default_command="")
            cluster = await self.get(job.get("cluster_config"))
        except (ValueError, ConfigurationError):
            self._has_read_pool = True  # each run says where it belongs
            return
        await self.view(cluster, str(job.get("namespace") or cluster.namespace or "default"))
        self._has_read_pool = True


async def _may_see_all(cluster: Cluster) -> bool:
    """Whether the account may look at all namespaces at once.

    Raises:
        EngineUnavailable: nobody knows: what runs must not be taken for ended because of that.
    """
    for resource in ("jobs", "pods"):
        try:
            await cluster.list_all(resource, "", limit=1)
        except Refused as error:
            if error.code == 403:
                return False
            raise EngineUnavailable(str(error)) from error
    return True
