"""What one namespace has of a pool's jobs and pods, kept up to date by watches that never give up."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Final

from headrace_workers.infrastructure.worker import EngineUnavailable
from headrace_workers.kubernetes.api import Cluster
from headrace_workers.kubernetes.failures import Refused
from headrace_workers.kubernetes.objects import Object, parts

__all__ = ["View"]

_REMEMBERED: Final = 1000
"""Objects that are gone, and whose last status is kept."""
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 30.0
_SHORT_SECONDS: Final = 1.0


class _Mirror:
    """The objects of one kind: listed once, then watched from that version on, and listed again when the
    cluster has forgotten the version, or was away.

    Args:
        cluster: where.
        resource: their kind.
        namespace: theirs; empty: all.
        labels: selector.
        changed: told of each that has changed; of None when it may be any.
    """

    def __init__(
        self,
        cluster: Cluster,
        resource: str,
        namespace: str,
        labels: str,
        changed: Callable[[Object | None], None],
    ) -> None:
        self._cluster = cluster
        self._resource, self._namespace, self._labels = resource, namespace, labels
        self._changed = changed
        self._version = ""
        self.items: dict[str, Object] = {}
        self.removed: OrderedDict[str, Object] = OrderedDict()
        self.trouble: str | None = None
        self.has_looked = False

    async def run(self) -> None:
        """For ever."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                pause = _FIRST_PAUSE_SECONDS
            except (Refused, EngineUnavailable) as error:
                self._version = ""
                if isinstance(error, Refused) and error.is_expired:
                    continue
                self.trouble = str(error)
                self._changed(None)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _list(self) -> None:
        found, self._version = await self._cluster.list_all(
            self._resource, self._namespace, labels=self._labels
        )
        self.has_looked = True
        before, self.items = self.items, {item["metadata"]["uid"]: _slim(item) for item in found}
        for uid in before.keys() - self.items.keys():
            self._remove(before[uid])
        self.trouble = None
        self._changed(None)

    async def _watch(self) -> None:
        began = asyncio.get_running_loop().time()
        watch = self._cluster.watch(self._resource, self._namespace, self._version, labels=self._labels)
        async with aclosing(watch) as events:
            async for event in events:
                item: Object = event["object"]
                self._version = item["metadata"]["resourceVersion"]
                if event["type"] == "BOOKMARK":
                    continue
                item = _slim(item)
                if event["type"] == "DELETED":
                    self.items.pop(item["metadata"]["uid"], None)
                    self._remove(item)
                else:
                    self.items[item["metadata"]["uid"]] = item
                self._changed(item)
        if asyncio.get_running_loop().time() - began < _SHORT_SECONDS:
            # Whoever is in between may end each watch at once.
            await asyncio.sleep(_FIRST_PAUSE_SECONDS)

    def _remove(self, item: Object) -> None:
        self.removed[item["metadata"]["uid"]] = item
        while len(self.removed) > _REMEMBERED:
            self.removed.popitem(last=False)


def _slim(item: Object) -> Object:
    """What is looked at: an object's spec, and who has changed it, need not be kept."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    return {"metadata": metadata, "status": item.get("status") or {}}


def _owners(item: Object) -> list[str]:
    return [owner["uid"] for owner in parts(item, "metadata", "ownerReferences")]


class View:
    """Jobs and pods with certain labels.

    Args:
        cluster: where.
        namespace: in it; empty: all.
        job_labels: selector of the jobs.
        pod_labels: selector of the pods.
    """

    def __init__(self, cluster: Cluster, namespace: str, *, job_labels: str, pod_labels: str) -> None:
        self._news: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._jobs = _Mirror(cluster, "jobs", namespace, job_labels, self._job_changed)
        self._pods = _Mirror(cluster, "pods", namespace, pod_labels, self._pod_changed)
        self._tasks = [asyncio.ensure_future(mirror.run()) for mirror in (self._jobs, self._pods)]

    async def close(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _job_changed(self, job: Object | None) -> None:
        self._tell(None if job is None else [job["metadata"]["uid"]])

    def _pod_changed(self, pod: Object | None) -> None:
        self._tell(None if pod is None else _owners(pod))

    def _tell(self, jobs: list[str] | None) -> None:
        for uid in list(self._news) if jobs is None else [*jobs, ""]:
            if (event := self._news.pop(uid, None)) is not None:
                event.set()

    async def changed(self, job_uid: str = "", timeout_seconds: float | None = None) -> None:
        """Wait until something about a job has changed, or about any, or the time is up."""
        try:
            await asyncio.wait_for(self._news[job_uid].wait(), timeout_seconds)
        except TimeoutError:
            pass

    async def ready(self) -> None:
        """Wait until everything was seen once.

        Raises:
            EngineUnavailable: it may not be up to date, and why.
        """
        while self.trouble is None and not (self._jobs.has_looked and self._pods.has_looked):
            await self.changed()
        if self.trouble is not None:
            raise EngineUnavailable(self.trouble)

    @property
    def trouble(self) -> str | None:
        """Why it may not be up to date; None: it is."""
        return self._jobs.trouble or self._pods.trouble

    def job(self, uid: str) -> Object | None:
        """The job as it was last seen; None: it is not there, or not yet."""
        return self._jobs.items.get(uid)

    def jobs(self) -> Iterable[Object]:
        """All that are there."""
        return list(self._jobs.items.values())

    def was_removed(self, uid: str) -> bool:
        """Whether the job was there, and is not any more."""
        return uid in self._jobs.removed

    def pods(self, job_uid: str) -> list[Object]:
        """Pods of a job that are there, the newest last."""
        return _sorted(pod for pod in self._pods.items.values() if job_uid in _owners(pod))

    def all_pods(self, job_uid: str) -> list[Object]:
        """The same, with those that are gone, as they were last."""
        removed = (pod for pod in self._pods.removed.values() if job_uid in _owners(pod))
        return _sorted([*removed, *self.pods(job_uid)])


def _sorted(pods: Iterable[Object]) -> list[Object]:
    return sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))
