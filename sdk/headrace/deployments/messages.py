"""Entries of a project file as the messages that the server takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.core.schedules import CronRule, IntervalRule, RRuleRule, Rule, ScheduleInvalid
from headrace.core.schedules.messages import set_rule
from headrace.core.schedules.walls import first_instant, zone_of
from headrace.deployments.project import DeploymentEntry, ProjectError, ScheduleEntry
from headrace.deployments.versions import CodeVersion
from headrace.v1 import deployment_pb2 as pb
from headrace.v1 import run_pb2
from headrace.v1 import schedule_pb2 as schedules

__all__ = ["FlowFacts", "deployment_message", "schedule_message"]

_OVERLAPS: Final = {
    "allow": schedules.OVERLAP_MODE_ALLOW,
    "skip": schedules.OVERLAP_MODE_SKIP,
    "queue": schedules.OVERLAP_MODE_QUEUE,
    "cancel_old": schedules.OVERLAP_MODE_CANCEL_OLD,
}
_CATCH_UPS: Final = {
    "skip": schedules.CATCH_UP_MODE_SKIP,
    "latest": schedules.CATCH_UP_MODE_LATEST,
    "all": schedules.CATCH_UP_MODE_ALL,
}
_COLLISIONS: Final = {
    "ENQUEUE": pb.COLLISION_STRATEGY_ENQUEUE,
    "CANCEL_NEW": pb.COLLISION_STRATEGY_CANCEL_NEW,
}
_LOST: Final = {
    "crash": run_pb2.LOST_ATTEMPT_POLICY_CRASH,
    "reschedule": run_pb2.LOST_ATTEMPT_POLICY_RESCHEDULE,
}


@dataclass(frozen=True, slots=True)
class FlowFacts:
    """What is read off the flow itself.

    Attributes:
        name: of the flow.
        entrypoint: where it is, as a worker finds it.
        parameter_schema: JSON schema of its parameters.
        description: its docstring.
        version: of the code.
        is_durable: completed steps are not run again, so that a run that was lost is better taken up.
    """

    name: str
    entrypoint: str
    parameter_schema: dict[str, Any]
    description: str
    version: CodeVersion
    is_durable: bool = False


def deployment_message(
    entry: DeploymentEntry, flow: FlowFacts, pull_steps: Sequence[dict[str, Any]] | None, path: str
) -> tuple[pb.Deployment, list[str]]:
    """The deployment, and the fields of it that the entry sets: others stay as they are on the server.

    Raises:
        ProjectError: something in the entry has no meaning, e.g. a cron expression.
    """
    said = pb.Deployment(
        flow_name=entry.flow_name or flow.name,
        name=entry.name or "",
        entrypoint=flow.entrypoint,
        path=path,
        parameter_schema=json.dumps(flow.parameter_schema),
        description=entry.description if entry.description is not None else flow.description,
        version=entry.version or flow.version["version"],
        version_info=flow.version,
        parameters=json.dumps(entry.parameters) if entry.parameters else "",
        skip_parameter_check=not entry.enforce_parameter_schema,
        work_pool=entry.work_pool.name or "",
        work_queue=entry.work_pool.work_queue_name or "",
    )
    paths = ["entrypoint", "path", "parameter_schema", "description", "version", "version_info", "parameters"]
    paths += ["skip_parameter_check", "work_pool", "work_queue", "job_variables", "pull_steps"]
    said.job_variables.update(entry.work_pool.job_variables)
    if pull_steps is not None:
        said.pull_steps.SetInParent()
        for step in pull_steps:
            said.pull_steps.steps.append(ParseDict(step, Struct()))
    if flow.is_durable and entry.on_lost is None:
        said.on_lost = run_pb2.LOST_ATTEMPT_POLICY_RESCHEDULE
        paths.append("on_lost")
    return said, paths + _set_options(entry, said)


def _set_options(entry: DeploymentEntry, said: pb.Deployment) -> list[str]:
    """Write what the entry names, and say which fields those are."""
    paths: list[str] = []
    for name in ("tags", "labels", "environment", "required_labels"):
        value = getattr(entry, name)
        if value is not None:
            field = getattr(said, name)
            field.extend(value) if name == "tags" else field.update(value)
            paths.append(name)
    for name in ("paused", "max_lost_attempts", "fairness_key", "priority"):
        value = getattr(entry, name)
        if value is not None:
            setattr(said, name, value)
            paths.append(name)
    if entry.on_lost is not None:
        said.on_lost = _LOST[entry.on_lost]
        paths.append("on_lost")
    if "concurrency_limit" in entry.model_fields_set:
        paths.append("concurrency")
        if entry.concurrency_limit is not None:
            limit = entry.concurrency_limit
            said.concurrency.limit = limit.limit
            said.concurrency.collision_strategy = _COLLISIONS[limit.collision_strategy]
            if limit.grace_period_seconds is not None:
                said.concurrency.grace.seconds = limit.grace_period_seconds
    if entry.overlap is not None:
        said.overlap.CopyFrom(_overlap(entry.overlap))
        paths.append("overlap")
    if entry.schedules is not None:
        said.schedules.extend(schedule_message(one) for one in entry.schedules)
        paths.append("schedules")
    return paths


def schedule_message(entry: ScheduleEntry) -> schedules.Schedule:
    """The schedule of an entry.

    Raises:
        ProjectError: its rule cannot be kept, or its zone or an instant is none.
    """
    said = schedules.Schedule(
        slug=entry.slug or "",
        replaces=entry.replaces or "",
        paused=not entry.active,
        parameters=json.dumps(entry.parameters) if entry.parameters else "",
        max_scheduled_runs=entry.max_scheduled_runs or 0,
    )
    try:
        set_rule(said, _rule(entry))
        if entry.interval is not None and entry.anchor_date is None:
            said.interval.anchor = ""  # the creation's: deployed again, it is the same schedule
        for name in ("start", "end"):
            text = getattr(entry, name)
            if text is not None:
                getattr(said, name).CopyFrom(_instant(name, text, entry.timezone or "UTC"))
    except ScheduleInvalid as error:
        raise ProjectError(str(error)) from error
    if entry.jitter is not None:
        said.jitter.FromTimedelta(entry.jitter)
    if entry.overlap is not None:
        said.overlap.CopyFrom(_overlap(entry.overlap))
    if entry.catch_up is not None:
        said.catch_up.mode = _CATCH_UPS[entry.catch_up.mode]
        said.catch_up.max_runs = entry.catch_up.max_runs if entry.catch_up.mode == "all" else 0
        said.catch_up.include_paused = entry.catch_up.include_paused
        if entry.catch_up.window is not None:
            said.catch_up.window.FromTimedelta(entry.catch_up.window)
    return said


def _rule(entry: ScheduleEntry) -> Rule:
    zone = entry.timezone or "UTC"
    if entry.cron is not None:
        return CronRule(entry.cron, zone, entry.day_or, entry.dst_policy)
    if entry.rrule is not None:
        return RRuleRule(entry.rrule, zone)
    assert entry.interval is not None
    if entry.anchor_date is None:
        anchor = datetime.now(UTC).replace(microsecond=0)
    else:
        anchor = _instant("anchor_date", entry.anchor_date, zone).ToDatetime(UTC)
    return IntervalRule(entry.interval, anchor, zone)


def _instant(name: str, text: str, zone: str) -> Timestamp:
    try:
        wall = datetime.fromisoformat(text)
    except ValueError:
        hint = "write it like 2026-01-31T09:00:00"
        raise ScheduleInvalid(name, f"'{text}' is no date and time: {hint}") from None
    stamp = Timestamp()
    stamp.FromDatetime(first_instant(wall, zone_of(zone)) if wall.tzinfo is None else wall.astimezone(UTC))
    return stamp


def _overlap(entry: Any) -> schedules.Overlap:
    return schedules.Overlap(
        mode=_OVERLAPS[entry.mode],
        max_queued=entry.max_queued if entry.mode == "queue" else 0,
        per_schedule=entry.per_schedule,
        include_manual=entry.include_manual,
    )
