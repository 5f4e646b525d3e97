"""Runs of deployments that somebody asks for."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any, Final

from headrace.core.ids import new_id
from headrace.core.names import slug
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest
from headrace.v1.run_pb2 import Run
from headrace.v1.run_service_pb2 import CONFLICT_POLICY_UNSPECIFIED
from headrace.v1.state_pb2 import STATE_TYPE_SCHEDULED, ScheduledDetails, State
from headrace_services.domain.deployments import run_of_deployment
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.deployment_codec import declared
from headrace_services.storage.entities import Lock
from headrace_services.storage.instants import micros, set_micros
from headrace_services.storage.run_commands import CreateRun
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work
from headrace_services.storage.work_pool_commands import ensure_queue, find_pool

__all__ = ["CreateDeploymentRun"]

_random: Final = random.Random()


class CreateDeploymentRun(CreateRun):
    """A run of a deployment is asked for.

    Args:
        request: what is asked, checked.
        row: the deployment that it was checked against.
        parameters: all of the run's parameters, checked.
        created_by: who asks.

    Answers with the run and whether it existed, or with None when the deployment has changed since.

    Raises:
        RequestIdReused: the run id was used by another request.
        ObjectNotFound: there is no such parent, or no such work pool.
    """

    def __init__(
        self,
        request: CreateDeploymentRunRequest,
        row: DeploymentRow,
        parameters: Mapping[str, Any],
        created_by: str,
    ) -> None:
        self._request = request
        self._row = row
        super().__init__(
            _run(request, row, parameters, created_by), request.idempotency_key, CONFLICT_POLICY_UNSPECIFIED
        )
        # What the server adds, such as a name, differs from try to try of one request.
        self._digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        self.has_moved = False

    def apply(self, work: Work) -> Steps[tuple[Run, bool]]:
        self.has_moved = False
        yield from work.rows.load(DeploymentRow, [(self._row.id,)], Lock.KEEP)
        row = work.rows.get(DeploymentRow, self._row.id)
        if work.runs.get(self._op.id) is None and (row is None or row.version != self._row.version):
            self.has_moved = True
            return Run(), False
        asked = self._request.work_queue
        if asked and self._row.work_pool:
            pool = yield from find_pool(work, self._row.work_pool)
            yield from ensure_queue(work, pool, asked)
        return (yield from super().apply(work))

    def _first_state(self, work: Work) -> State:
        state = State(id=new_id(), type=STATE_TYPE_SCHEDULED)
        set_micros(state.event_time, work.now)
        time = self._request.scheduled_time
        due = micros(time) if self._request.HasField("scheduled_time") else work.now
        set_micros(state.scheduled.scheduled_time, due)
        state.scheduled.cause = ScheduledDetails.CAUSE_CREATED
        return state


def _run(
    request: CreateDeploymentRunRequest, row: DeploymentRow, parameters: Mapping[str, Any], created_by: str
) -> Run:
    run = run_of_deployment(declared(row), row.version_id, parameters)
    run.deployment_id = row.id
    run.id = request.run_id or new_id()
    # It is started on its own, wherever it was asked for: its fence is its own.
    run.owner_run_id = run.id
    run.name = request.name or slug(_random)
    run.parent_run_id = request.parent_run_id
    run.tags.extend(tag for tag in request.tags if tag not in run.tags)
    run.labels.update(request.labels)
    if request.HasField("job_variables"):
        run.job_variables.CopyFrom(request.job_variables)
    if request.HasField("priority"):
        run.priority = request.priority
    if request.work_queue:
        run.work_queue = request.work_queue
    run.inputs.extend(request.inputs)
    run.traceparent = request.traceparent
    run.created_by = created_by
    return run
