"""New runs, and further facts about runs."""

from __future__ import annotations

from typing import Final

from headrace.core.errors import FieldsInvalid, ObjectNotFound, ServiceError, StaleAttempt
from headrace.v1.run_pb2 import RUN_KIND_FLOW, RUN_KIND_TASK, Run
from headrace_services.domain.books import Books
from headrace_services.domain.effects import RetryType
from headrace_services.storage import steps
from headrace_services.storage.ops import RunOp
from headrace_services.storage.rows import (
    ROOT_FENCE,
    RunRow,
    encode_tags,
    flow_id_of,
    full_spec,
    split_spec,
    text,
)
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["load_full", "make_run", "stale_attempt", "update_from"]


_KINDS: Final = (RUN_KIND_FLOW, RUN_KIND_TASK)


def make_run(work: Work, op: RunOp, recorder_id: str | None) -> RunRow | ServiceError:
    """A new run, without a state, among the rows at hand."""
    source = op.run
    if source.kind not in _KINDS:
        return FieldsInvalid.of("run.kind", "must say whether it is a flow run or a task run")
    if op.id in work.deleted:
        return StaleAttempt(f"Run {op.id} was deleted.", facts={"run_id": op.id})
    root_id, owner_id = op.root_id, op.owner_id
    if op.parent_id and not root_id:
        parent = work.runs.get(op.parent_id)
        if parent is None:
            return ObjectNotFound.of("run", op.parent_id)
        root_id = parent.root_id
        owner_id = owner_id or parent.owner_id
    root_id = root_id or op.id
    owner_id = owner_id or root_id
    if owner_id != op.id:
        owner = work.runs.get(owner_id)
        if owner is None:
            return ObjectNotFound.of("run", owner_id)
        fence = source.fence or ROOT_FENCE
        if recorder_id is not None and owner.fence != fence:
            return stale_attempt(owner, fence)
    run = _blank_run(work, source)
    run.id, run.root_id, run.owner_id = op.id, root_id, owner_id
    run.parent_id = op.parent_id or None
    run.recorder_id = recorder_id
    work.runs[op.id] = run
    work.touch(run)
    return run


def _blank_run(work: Work, source: Run) -> RunRow:
    run = RunRow()
    run.kind = source.kind
    run.name = text(source.name)
    run.task_name = text(source.task_name) if source.task_name else None
    run.flow_id = _note_flow(work, source.flow_name) if source.flow_name else None
    run.deployment_id = source.deployment_id or None
    run.work_pool = source.work_pool or None
    run.work_queue = source.work_queue or None
    run.idempotency_key = run.create_digest = None
    run.tags = run.stored_tags = None
    if source.tags:
        run.tags = encode_tags(source)
    run.books = _NO_BOOKS
    run.state_name, run.state_id, run.state_seq = "", None, 0
    run.is_presumed = False
    run.attempt = source.attempt or 1
    run.fence = source.fence or ROOT_FENCE
    run.flow_run_count = 0
    run.retry_type, run.pause_keys = RetryType.NONE, ""
    run.create_time = work.now
    run.version = 0
    run.spec, run.full_spec = split_spec(source)
    run.body = None
    run.entered, run.is_history_known = [], False
    run.stored_version, run.stored_type = None, 0
    run.writes_spec = run.writes_full_spec = True
    run.requeue = None
    return run


_NO_BOOKS: Final = Books()


def _note_flow(work: Work, name: str) -> str:
    """The flow's id; it is made if it is not there."""
    name = text(name)
    id = flow_id_of(name)
    if id not in work.known_flows:
        work.known_flows.add(id)
        work.writes.flows[id] = name
    return id


def update_from(work: Work, run: RunRow, source: Run) -> Steps[None]:
    """Take over the facts that a further entry about a run brings."""
    if source.name:
        run.name = text(source.name)
    if source.tags:
        run.tags = encode_tags(source)
    if source.HasField("parameters"):
        yield from load_full(run)
        full = Run.FromString(run.full_spec or b"")
        full.parameters.CopyFrom(source.parameters)
        run.full_spec, run.writes_full_spec = full_spec(full), True
    if source.inputs or source.labels or source.step_key or source.flow_version:
        spec = Run.FromString(run.spec)
        spec.flow_version = source.flow_version or spec.flow_version
        spec.step_key = source.step_key or spec.step_key
        spec.step_committed |= source.step_committed
        if source.inputs:
            spec.ClearField("inputs")
            spec.inputs.extend(source.inputs)
        if source.labels:
            spec.ClearField("labels")
            spec.labels.update(source.labels)
        run.spec, run.writes_spec = spec.SerializeToString(), True


def load_full(run: RunRow) -> Steps[None]:
    """Make sure that `run.full_spec` is what the database has."""
    if run.stored_version is not None and run.full_spec is None:
        run.full_spec = yield from steps.load_full_spec(run.id)


def stale_attempt(owner: RunRow, fence: int) -> StaleAttempt:
    """The error for a write with `fence` to a run that `owner` owns."""
    return StaleAttempt(
        f"Run {owner.id} is owned by its attempt {owner.attempt} with fence {owner.fence}; "
        f"this write came with fence {fence}.",
        facts={"run_id": owner.id, "fence": str(owner.fence)},
    )
