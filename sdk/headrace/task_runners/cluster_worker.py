"""What runs in a worker of a cluster: one task run, recorded through the process that submitted it.

A worker on another machine than that process records with a recorder of its own, over gRPC.
"""

from __future__ import annotations

import pickle
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from headrace.client import get_client
from headrace.core.errors import ConfigurationError, ServiceError
from headrace.core.ids import new_id
from headrace.exceptions import HeadraceException
from headrace.execution.processes.lines import dial
from headrace.execution.processes.messages import Channel, Ended, Job, Left, Refused
from headrace.execution.processes.remote import Parent, RemoteRecorder
from headrace.execution.processes.shipping import packed_error
from headrace.recorder import get_recorder
from headrace.recorder.process import recording_through
from headrace.settings import get_current_settings, use_carried_settings
from headrace.task_runners.base import logger
from headrace.task_runners.jobs import JobExecution

__all__ = ["LEFT_BYTES", "ClusterJob", "NotExpected", "Report", "work"]

LEFT_BYTES: Final = 64 * 1024
"""Results above this size stay on the cluster until somebody asks for them."""
_SAFE_SECONDS: Final = 30.0
"""How long the end of a task run waits until a server has everything that it recorded."""

Report: TypeAlias = tuple[Ended | Refused | None, bytes | None]
"""How the job ended, unless that was said on the line, and the result if it stays on the cluster."""


class NotExpected(HeadraceException):
    """The job has been taken before, or its flow run has ended: it must not run (again)."""


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """What a cluster is asked to do.

    Attributes:
        job: the task run.
        line: where the process that submitted it listens, on its machine.
        path: where that process finds modules.
    """

    job: Job
    line: str
    path: Sequence[str]


def work(packed_job: bytes, *parts: bytes) -> Report:
    """Run a job.

    Args:
        packed_job: a pickled `ClusterJob`.
        parts: the results that its arguments only name, pickled.

    Raises:
        NotExpected: it must not run.
    """
    given: ClusterJob = pickle.loads(packed_job)
    channel = dial(given.line)
    if channel is None:
        return _split(_on_its_own(given.job, parts))
    sys.path.extend(entry for entry in given.path if entry not in sys.path)
    return None, _on_the_line(channel, given.job, parts)


def _split(outcome: Ended | Refused) -> Report:
    """The outcome, without a result that is large, and that result."""
    if (
        isinstance(outcome, Ended)
        and outcome.state.is_completed()
        and isinstance(outcome.data, bytes)
        and len(outcome.data) > LEFT_BYTES
    ):
        return replace(outcome, data=Left(len(outcome.data))), outcome.data
    return outcome, None


def _on_the_line(channel: Channel, job: Job, parts: Sequence[bytes]) -> bytes | None:
    def next_key(run_id: str, key: str) -> str:
        answer: str = parent.ask("next_key", run_id, key).result()
        return answer

    def gone() -> None:
        execution.lose("The process of its flow run is gone.")
        execution.cancel()

    execution = JobExecution(next_key)
    parent = Parent(
        channel,
        on_job=_no_other_job,
        on_cancel=execution.cancel,
        on_interrupt=execution.interrupt,
        on_gone=gone,
    )
    parent.listen()
    try:
        is_expected = parent.ask("take", job.run.id).result()
    except OSError:
        is_expected = False
    if not is_expected:
        raise NotExpected(f"Task run '{job.run.name}' was taken before, or its flow run has ended.")
    with recording_through(RemoteRecorder(parent, execution.lose)):
        outcome, left = _split(execution.run(job, parts))
    parent.send_last(outcome)
    return left


def _no_other_job(_: object) -> None:
    raise AssertionError("a worker of a cluster gets its jobs from the cluster")


def _on_its_own(job: Job, parts: Sequence[bytes]) -> Ended | Refused:
    """Run a job whose flow run is on another machine, recording to the server that both can reach."""
    context = {**job.context, "settings": _settings_here(job.context)}
    with use_carried_settings(context["settings"]):
        refusal = _missing_server(job.run.id)
        if refusal is not None:
            return Refused(packed_error(refusal))
        # Numbers would not be unique: nobody counts for all machines.
        outcome = JobExecution(lambda run_id, key: new_id()).run(replace(job, context=context), parts)
        if not get_recorder().flush(_SAFE_SECONDS):
            logger.warning("The server has not taken all records of task run '%s' yet.", job.run.name)
        return outcome


def _settings_here(context: Mapping[str, Any]) -> Any:
    """The settings of the submission, with the folder of this machine."""
    loaded = context["settings"]
    return replace(loaded, settings=replace(loaded.settings, home=get_current_settings().home))


def _missing_server(run_id: str) -> Exception | None:
    """Why what happens here would not get on the record of the run."""
    address = get_current_settings().api_url
    if address == "off":
        return None
    if address == "auto":
        return ConfigurationError(
            f"The worker on '{socket.gethostname()}' is not on the machine of its flow run, and settings name"
            " no server that both can reach: set HEADRACE_API_URL to its address."
        )
    try:
        with get_client(sync_client=True) as client:
            client.get_run(run_id)
    except ServiceError as error:
        # Nobody answers, or somebody who has never heard of the run.
        return error
    return None
