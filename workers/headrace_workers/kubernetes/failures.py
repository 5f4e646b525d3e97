"""What clusters and pods say, in words that name what is wrong and what helps: pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from headrace_workers.infrastructure.worker import InfrastructureEnd
from headrace_workers.kubernetes.objects import Object, part, parts

__all__ = [
    "Refused",
    "explain_refusal",
    "hopeless",
    "how_ended",
    "has_started",
    "is_finished",
    "is_settled",
    "why_pending",
]

_HOPELESS: Final = ("ErrImageNeverPull", "InvalidImageName")
"""Reasons for which a container waits that no waiting changes."""
_DETAILS: Final = {
    "Evicted": "The pod was evicted",
    "NodeLost": "The node of the pod was lost",
    "Preempting": "The pod had to make room for one of a higher priority",
    "Terminated": "The node was shut down",
}
_DEADLINE: Final = "DeadlineExceeded"


class Refused(Exception):
    """The cluster has answered, and has not done what was asked.

    Attributes:
        code: HTTP status.
        reason: in the cluster's one word, e.g. `AlreadyExists`.
    """

    def __init__(self, message: str, code: int, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason

    @property
    def is_expired(self) -> bool:
        """Whether a version was asked for that the cluster has forgotten."""
        return self.code == 410


def explain_refusal(code: int, status: Object, verb: str, resource: str, group: str, namespace: str) -> str:
    """A sentence for an answer that is no success.

    Args:
        code: HTTP status.
        status: the `Status` object of the answer; empty if there was none.
        verb: what was asked for, as roles call it.
        resource: of what, with its subresource.
        group: API group of the resource.
        namespace: where; empty: in all.
    """
    said = str(status.get("message") or f"HTTP {code}")
    doing = f"{verb} {resource}" + (f" in the namespace '{namespace}'" if namespace else "")
    if code == 401:
        return f"The cluster does not accept the worker's credentials (401 on {doing}): {said}."
    if code == 403 and " cannot " in said:
        rule = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
        where = f"a Role in the namespace '{namespace}'" if namespace else "a ClusterRole"
        words = f"The worker's account may not {doing} (403): {said}."
        return f"{words} It needs {where} with the rule {json.dumps(rule)}."
    if code == 422:
        causes = parts(status, "details", "causes")
        listed = "; ".join(f"{cause.get('field')}: {cause.get('message')}" for cause in causes)
        return f"The cluster finds the job manifest not valid (422): {listed or said}."
    return f"The cluster has refused to {doing} ({code}): {said.rstrip('.')}."


def hopeless(pods: Sequence[Object]) -> str:
    """Why the newest pod will never start; empty: it may."""
    for waiting in _waiting(pods[-1:]):
        if waiting.get("reason") in _HOPELESS:
            return f"The pod cannot start: {_named(waiting)}."
    return ""


def why_pending(pods: Sequence[Object], events: Sequence[Object]) -> str:
    """Why no pod has started, as far as that is known.

    Args:
        pods: of the job, the newest last.
        events: of the job and its pods, the newest last.
    """
    for waiting in _waiting(pods[-1:]):
        if waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
            return _named(waiting)
    for condition in _conditions(pods[-1:]):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _named(condition)
    warnings = [event for event in events if event.get("type") == "Warning"]
    if warnings:
        return _named(warnings[-1])
    return "the cluster gives no reason" if pods else "the cluster has made no pod"


def how_ended(job: Object | None, pods: Sequence[Object], container: str) -> InfrastructureEnd | None:
    """How a job has ended; None: it has not.

    Args:
        job: as the cluster has it; None: it is being removed.
        pods: of the job, the newest last, those included that are gone.
        container: name of the one that the run is in.
    """
    finished = None if job is None else _finish(job)
    if finished is None and job is not None:
        return None
    if finished is not None and finished["type"] == "Complete":
        return InfrastructureEnd(0)
    if finished is not None and finished.get("reason") == _DEADLINE:
        return InfrastructureEnd(None, "The job took longer than it may: job_watch_timeout_seconds.")
    for pod in reversed(pods):
        if (end := _of_pod(pod, container)) is not None:
            return end
    if finished is None:
        return None
    said = _named(finished)
    if not pods or all(not has_started(pod) for pod in pods):
        return InfrastructureEnd(
            None, f"The job has failed before its pod began: {said}.", never_started=True
        )
    return InfrastructureEnd(None, f"The job has failed, and its pod is gone: {said}.")


def is_settled(job: Object | None, pods: Sequence[Object]) -> bool:
    """Whether `how_ended` has said its last word: what happened to the pod may be seen later than that of
    its job."""
    finished = None if job is None else _finish(job)
    if finished is not None and (finished["type"] == "Complete" or finished.get("reason") == _DEADLINE):
        return True
    return bool(pods) and part(pods[-1], "status").get("phase") in ("Succeeded", "Failed")


def is_finished(job: Object) -> bool:
    """Whether the job has ended, in whichever way."""
    return _finish(job) is not None


def _finish(job: Object) -> Object | None:
    return next((c for c in _conditions([job]) if c["type"] in ("Complete", "Failed")), None)


def _of_pod(pod: Object, container: str) -> InfrastructureEnd | None:
    status = part(pod, "status")
    why = ""
    if reason := status.get("reason"):
        why = _sentence(_DETAILS.get(reason, f"The pod has failed ({reason})"), status.get("message"))
    elif disrupted := next((c for c in _conditions([pod]) if c.get("type") == "DisruptionTarget"), None):
        why = _sentence(
            f"The pod was ended by the cluster ({disrupted.get('reason')})", disrupted.get("message")
        )
    for one in parts(status, "containerStatuses"):
        ended = part(one, "state", "terminated")
        if one.get("name") != container or not ended:
            continue
        if ended.get("reason") == "OOMKilled":
            why = "The container has used up its memory limit (OOMKilled)."
        elif ended.get("reason") in ("StartError", "ContainerCannotRun"):
            words = f"The container could not be started ({ended['reason']}): {ended.get('message')}."
            return InfrastructureEnd(int(ended["exitCode"]), words, never_started=True)
        return InfrastructureEnd(int(ended["exitCode"]), why)
    return InfrastructureEnd(None, why) if why else None


def has_started(pod: Object) -> bool:
    """Whether a container of the pod runs, or has run."""
    return part(pod, "status").get("phase") not in (None, "Pending")


def _waiting(pods: Sequence[Object]) -> Iterator[Object]:
    for pod in pods:
        status = part(pod, "status")
        for one in [*parts(status, "initContainerStatuses"), *parts(status, "containerStatuses")]:
            if waiting := part(one, "state", "waiting"):
                yield waiting


def _conditions(items: Sequence[Object]) -> Iterator[Object]:
    for item in items:
        for condition in parts(item, "status", "conditions"):
            if condition.get("status") == "True" or condition.get("type") == "PodScheduled":
                yield condition


def _named(thing: Object) -> str:
    """`Reason: message` of whatever has these."""
    reason, message = thing.get("reason") or "no reason", str(thing.get("message") or "").strip()
    return f"{reason}: {message.rstrip('.')}" if message else str(reason)


def _sentence(start: str, message: object) -> str:
    text = str(message or "").strip().rstrip(".")
    return f"{start}: {text}." if text else f"{start}."
