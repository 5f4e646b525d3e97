"""Messages of the worker stream, from and to what storage knows."""

from __future__ import annotations

import json

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson, ParseDict

from headrace.core import limits
from headrace.core.errors import FieldsInvalid, ProtocolUnsupported
from headrace.core.job_variables import merge_job_variables
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.worker_pb2 import Worker
from headrace.v1.worker_service_pb2 import Assignment, PoolSnapshot, WorkerHello
from headrace_services.domain.claims import RouteKind
from headrace_services.domain.deployment_checks import job_variables_of
from headrace_services.storage.claiming import Claimed
from headrace_services.storage.declared_rows import WorkPoolRow
from headrace_services.storage.worker_commands import WorkerIdentity

__all__ = ["assignment_of", "identity_of", "pool_snapshot", "set_seconds"]


def set_seconds(duration: Duration, seconds: float) -> None:
    """Make `duration` say `seconds`."""
    duration.FromMicroseconds(int(seconds * 1e6))


def identity_of(hello: WorkerHello, session_id: str) -> WorkerIdentity:
    """What a hello says of its worker.

    Raises:
        ProtocolUnsupported: it speaks no version that this server does.
        FieldsInvalid: it is unclear what it serves.
    """
    if not hello.protocol_min <= limits.PROTOCOL_MAX or hello.protocol_max < limits.PROTOCOL_MIN:
        raise ProtocolUnsupported(
            f"The worker speaks versions {hello.protocol_min} to {hello.protocol_max} of the protocol, this "
            f"server {limits.PROTOCOL_MIN} to {limits.PROTOCOL_MAX}. Upgrade the older of the two.",
            facts={"protocol_min": str(limits.PROTOCOL_MIN), "protocol_max": str(limits.PROTOCOL_MAX)},
        )
    kinds = {
        RouteKind.WORK_POOL: bool(hello.work_pool),
        RouteKind.TASK: bool(hello.task_keys),
        RouteKind.DEPLOYMENT: bool(hello.deployment_ids),
    }
    said = [kind for kind, is_said in kinds.items() if is_said]
    if len(said) != 1:
        raise FieldsInvalid.of(
            "hello.work_pool", "exactly one of work_pool, task_keys and deployment_ids must be set"
        )
    worker = Worker(
        id=hello.worker_id.lower(),
        name=hello.name or hello.worker_id.lower(),
        work_pool=hello.work_pool,
        type=hello.type,
        work_queues=hello.work_queues,
        task_keys=hello.task_keys,
        deployment_ids=hello.deployment_ids,
        labels=hello.labels,
        capabilities=hello.capabilities,
        slots=hello.slots,
        sdk=hello.sdk,
    )
    return WorkerIdentity(session_id, said[0], worker, [held.attempt for held in hello.held])


def assignment_of(claimed: Claimed, server_time: int) -> Assignment:
    """The message that hands a run over."""
    run, deployment = claimed.run, claimed.deployment
    assignment = Assignment(
        assignment_id=claimed.assignment_id,
        attempt=AttemptRef(run_id=run.id, attempt=run.attempt, fence=run.fence),
        run=run,
        on_lost=claimed.on_lost,  # type: ignore[arg-type]  # the number is the wire's own
        infrastructure_id=claimed.infrastructure_id,
    )
    if deployment is not None:
        _describe(assignment, deployment)
    layers = [job_variables_of(said) for said in (deployment, run) if said is not None]
    if any(layers):
        assignment.job_variables.update(merge_job_variables(*layers))
    assignment.start_time.FromMicroseconds(claimed.start_time)
    assignment.server_time.FromMicroseconds(server_time)
    return assignment


def _describe(assignment: Assignment, deployment: Deployment) -> None:
    """How to get and run the code, as the deployment has it."""
    assignment.entrypoint = deployment.entrypoint
    assignment.deployment_name = deployment.name
    assignment.path = deployment.path
    if deployment.HasField("pull_steps"):
        steps = [json.loads(MessageToJson(step)) for step in deployment.pull_steps.steps]
        assignment.pull_steps = json.dumps(steps)
    assignment.environment.update(deployment.environment)


def pool_snapshot(pool: WorkPoolRow) -> PoolSnapshot:
    """What a worker is told of its pool."""
    snapshot = PoolSnapshot(paused=pool.is_paused, etag=str(pool.version))
    if pool.concurrency_limit is not None:
        snapshot.concurrency_limit = pool.concurrency_limit
    if pool.base_job_template:
        ParseDict(json.loads(pool.base_job_template), snapshot.base_job_template)
    return snapshot
