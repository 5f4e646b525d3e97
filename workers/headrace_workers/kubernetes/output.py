"""What the pods of a job print."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

from headrace_workers.infrastructure.output import LogLine
from headrace_workers.infrastructure.worker import EngineUnavailable
from headrace_workers.kubernetes.api import Cluster
from headrace_workers.kubernetes.failures import Refused, is_finished
from headrace_workers.kubernetes.objects import Object, part, parts
from headrace_workers.kubernetes.view import View

__all__ = ["follow_job", "parse_line"]

_LOOK_AGAIN_SECONDS: Final = 2.0
"""A log that has ended while the pod runs is asked for again after this time."""
_TIMED: Final = re.compile(
    r"(?P<second>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))?(?P<zone>Z|[+-]\d\d:\d\d) "
    r"(?P<text>.*)",
    re.DOTALL,
)


async def follow_job(
    cluster: Cluster, view: View, job_uid: str, container: str, since_ns: int | None
) -> AsyncGenerator[Sequence[LogLine]]:
    """What all pods of a job print, one after the other, until the job has ended.

    Args:
        cluster: where it is.
        view: has it.
        job_uid: which.
        container: in its pods.
        since_ns: lines from this instant on; None: all.

    Raises:
        EngineUnavailable: it is not known what else there is.
    """
    done: set[str] = set()
    has_waited = False
    while True:
        waiting = [pod for pod in view.pods(job_uid) if pod["metadata"]["uid"] not in done]
        pod = next((pod for pod in waiting if _state(pod, container)), None)
        if pod is None:
            is_over = _is_over(view, job_uid)
            if is_over and (has_waited or (done and not waiting)):
                return
            # Jobs and pods are watched apart: the news of the pod may come after that of the job.
            await view.changed(job_uid, _LOOK_AGAIN_SECONDS if is_over else None)
            has_waited = is_over
            continue
        async with aclosing(_follow_pod(cluster, view, job_uid, pod, container, since_ns)) as parts:
            async for lines in parts:
                yield lines
        done.add(pod["metadata"]["uid"])


def _is_over(view: View, job_uid: str) -> bool:
    job = view.job(job_uid)
    if job is None:
        return view.was_removed(job_uid)
    return is_finished(job)


def _state(pod: Object, container: str) -> str:
    """`running` or `terminated`; empty: it has not started."""
    for one in parts(pod, "status", "containerStatuses"):
        if one.get("name") == container:
            return next((state for state in ("running", "terminated") if state in part(one, "state")), "")
    return ""


async def _follow_pod(
    cluster: Cluster, view: View, job_uid: str, pod: Object, container: str, since_ns: int | None
) -> AsyncGenerator[Sequence[LogLine]]:
    metadata = pod["metadata"]
    while True:
        try:
            parts = cluster.read_log(metadata["namespace"], metadata["name"], container, _second(since_ns))
            async with aclosing(parts) as some:
                async for raw in some:
                    lines = [
                        line for line in map(parse_line, raw) if since_ns is None or _from(line, since_ns)
                    ]
                    if lines:
                        since_ns = max([since_ns or 0, *(line.time_ns + 1 for line in lines if line.time_ns)])
                        yield lines
        except Refused as error:
            if error.code == 404:
                return
            if error.code != 400:  # not there yet, for all that is known
                raise EngineUnavailable(str(error)) from error
        now = next((p for p in view.pods(job_uid) if p["metadata"]["uid"] == metadata["uid"]), None)
        if now is None or _state(now, container) == "terminated":
            return
        # The connection has ended, or the node says so before the pod does.
        await view.changed(job_uid, _LOOK_AGAIN_SECONDS)


def _from(line: LogLine, since_ns: int) -> bool:
    return line.time_ns is None or line.time_ns >= since_ns


def _second(since_ns: int | None) -> str:
    if since_ns is None:
        return ""
    return datetime.fromtimestamp(since_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_line(raw: bytes) -> LogLine:
    """A line of a log with times, `2026-01-31T12:00:00.123456789Z text`, in the time zone of its node."""
    line = raw.decode(errors="backslashreplace")
    found = _TIMED.fullmatch(line)
    if found is None:
        return LogLine(line)
    second = datetime.fromisoformat(found["second"] + found["zone"].replace("Z", "+00:00"))
    nanos = int((found["fraction"] or "0")[:9].ljust(9, "0"))
    return LogLine(found["text"].rstrip("\r"), time_ns=int(second.timestamp()) * 10**9 + nanos)
