"""The job controller and the garbage collector: pods for jobs, what becomes of jobs, and their removal."""

from __future__ import annotations

import asyncio
import copy
import random
import string
from typing import Any

from tests.support.kubernetes.kubelet import Kubelet
from tests.support.kubernetes.store import Object, Store, now

__all__ = ["JobController", "suffix"]

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_RETRY_SECONDS = 0.05
"""Kubernetes waits 10 s and longer before it makes the next pod of a job."""
assert set(_LETTERS) <= set(string.ascii_lowercase + string.digits)


def suffix() -> str:
    """Five characters that make a name unique."""
    return "".join(random.choices(_LETTERS, k=5))


class JobController:
    """Sees to all jobs."""

    def __init__(self, store: Store, kubelet: Kubelet) -> None:
        self._store = store
        self._kubelet = kubelet
        self._counted: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        store.listeners.append(self._changed)

    def _changed(self, type: str, kind: str, item: Object) -> None:
        loop = asyncio.get_running_loop()
        if kind == "jobs" and type == "ADDED":
            loop.call_soon(self._begin, item)
        elif kind == "pods" and (item["status"].get("phase") in ("Succeeded", "Failed") or type == "DELETED"):
            loop.call_soon(self._pod_ended, item)
        if kind == "pods" and type == "DELETED":
            loop.call_soon(self._collect)

    def _later(self, seconds: float, what: Any, *arguments: Any) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            what(*arguments)

        task = asyncio.ensure_future(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _begin(self, job: Object) -> None:
        job["status"] = {"startTime": now()}
        if job["spec"].get("suspend"):
            return self._store.changed("jobs", job)
        if (seconds := job["spec"].get("activeDeadlineSeconds")) is not None:
            self._later(seconds, self._too_long, job)
        self._new_pod(job)
        return None

    def _is_live(self, job: Object) -> bool:
        metadata = job["metadata"]
        there = self._store.find("jobs", metadata["namespace"], metadata["name"]) is job
        return there and "deletionTimestamp" not in metadata and not job["status"].get("conditions")

    def _new_pod(self, job: Object) -> None:
        if not self._is_live(job):
            return
        metadata, template = job["metadata"], copy.deepcopy(job["spec"]["template"])
        given = template.get("metadata") or {}
        own = {"job-name": metadata["name"], "batch.kubernetes.io/job-name": metadata["name"]}
        owner = {"kind": "Job", "name": metadata["name"], "uid": metadata["uid"], "controller": True}
        pod: Object = {
            "metadata": {
                "name": f"{metadata['name'][:57]}-{suffix()}",
                "namespace": metadata["namespace"],
                "labels": {**(given.get("labels") or {}), **own, "controller-uid": metadata["uid"]},
                "annotations": given.get("annotations") or {},
                "ownerReferences": [owner],
            },
            "spec": {"terminationGracePeriodSeconds": 30, **template["spec"]},
            "status": {"phase": "Pending"},
        }
        job["status"]["active"] = 1
        self._store.add("pods", pod)
        self._store.changed("jobs", job)
        self._kubelet.start(pod)

    def _job_of(self, pod: Object) -> Object | None:
        for owner in pod["metadata"].get("ownerReferences") or []:
            job = self._store.find("jobs", pod["metadata"]["namespace"], owner["name"])
            if job is not None and job["metadata"]["uid"] == owner["uid"]:
                return job
        return None

    def _pod_ended(self, pod: Object) -> None:
        job, uid = self._job_of(pod), pod["metadata"]["uid"]
        if job is None or uid in self._counted or job["status"].get("conditions"):
            return None
        self._counted.add(uid)
        status: Object = job["status"]
        status.pop("active", None)
        if pod["status"].get("phase") == "Succeeded":
            status["succeeded"] = status.get("succeeded", 0) + 1
            return self._finish(
                job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
            )
        status["failed"] = status.get("failed", 0) + 1
        if status["failed"] > job["spec"].get("backoffLimit", 6):
            words = "Job has reached the specified backoff limit"
            return self._finish(job, "Failed", "BackoffLimitExceeded", words)
        self._store.changed("jobs", job)
        self._later(_RETRY_SECONDS, self._new_pod, job)
        return None

    def _finish(self, job: Object, type: str, reason: str, message: str) -> None:
        condition = {
            "type": type,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": now(),
        }
        job["status"]["conditions"] = [condition]
        if type == "Complete":
            job["status"]["completionTime"] = now()
        self._store.changed("jobs", job)
        if (seconds := job["spec"].get("ttlSecondsAfterFinished")) is not None:
            self._later(seconds, self.delete, job, "Background")

    def _too_long(self, job: Object) -> None:
        if self._is_live(job):
            for pod in self._pods(job):
                self._kubelet.delete(pod, None)
            self._finish(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")

    def _pods(self, job: Object) -> list[Object]:
        uid, namespace = job["metadata"]["uid"], job["metadata"]["namespace"]
        pods = self._store.all("pods", namespace)
        return [p for p in pods if any(o["uid"] == uid for o in p["metadata"]["ownerReferences"])]

    def delete(self, job: Object, policy: str) -> None:
        """As the API does.

        Args:
            job: which.
            policy: `Background`: the job now, its pods soon; `Foreground`: its pods, then the job; `Orphan`:
                the job alone.
        """
        if policy == "Orphan":
            for pod in self._pods(job):
                pod["metadata"]["ownerReferences"] = []
            return self._store.remove("jobs", job)
        if policy == "Foreground":
            job["metadata"] |= {"deletionTimestamp": now(), "finalizers": ["foregroundDeletion"]}
            self._store.changed("jobs", job)
        else:
            self._store.remove("jobs", job)
        self._collect()
        return None

    def _collect(self) -> None:
        """Pods without their job go, and jobs that waited for that."""
        jobs = {job["metadata"]["uid"]: job for job in self._store.all("jobs")}
        alive = {uid for uid, job in jobs.items() if "deletionTimestamp" not in job["metadata"]}
        for pod in list(self._store.all("pods")):
            owners = {owner["uid"] for owner in pod["metadata"]["ownerReferences"]}
            if owners and not owners & alive and "deletionTimestamp" not in pod["metadata"]:
                self._kubelet.delete(pod, None)
        for uid, job in jobs.items():
            if uid not in alive and not self._pods(job):
                self._store.remove("jobs", job)
