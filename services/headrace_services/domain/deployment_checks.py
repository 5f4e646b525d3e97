"""Whether a declared deployment makes sense, without asking anybody."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf.json_format import MessageToDict

from headrace.core.errors import FieldViolation, ParametersInvalid
from headrace.core.templating import find_placeholders
from headrace.v1.deployment_pb2 import Deployment, PullSteps
from headrace_services.domain.run_parameters import (
    hydrated,
    job_variable_violations,
    json_object,
    parameter_violations,
)
from headrace_services.domain.schema_checks import parse_schema
from headrace_services.domain.structs import whole_numbers

__all__ = ["FAIRNESS_ROOTS", "deployment_violations", "job_variables_of", "schedule_violations"]

FAIRNESS_ROOTS: Final = ("parameters", "tags", "labels")
"""What a fairness key may be made of."""
_ENTRYPOINT: Final = re.compile(r"[^:]+:[A-Za-z_][\w.]*|[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_VARIABLE: Final = re.compile(r"[^=\0]+")
_STEP_EXTRAS: Final = frozenset({"id", "requires"})


def job_variables_of(message: Any) -> dict[str, Any]:
    """The job variables of a deployment or a run."""
    if not message.HasField("job_variables"):
        return {}
    found: dict[str, Any] = whole_numbers(MessageToDict(message.job_variables))
    return found


def deployment_violations(
    deployment: Deployment, template: Mapping[str, Any] | None
) -> Iterator[FieldViolation]:
    """What in the deployment makes no sense, with paths below `deployment`.

    Args:
        deployment: as it is to be.
        template: of its work pool; None: it has none.
    """
    for violation in _violations(deployment, template):
        yield FieldViolation(f"deployment.{violation.field}", violation.description)


def _violations(deployment: Deployment, template: Mapping[str, Any] | None) -> Iterator[FieldViolation]:
    if "/" in deployment.flow_name or "%" in deployment.flow_name:
        yield FieldViolation("flow_name", "must not contain '/' or '%': deployments are called flow/name")
    if deployment.entrypoint and not _ENTRYPOINT.fullmatch(deployment.entrypoint):
        yield FieldViolation(
            "entrypoint", "must be like 'file.py:function', 'package.module:function' or 'package.function'"
        )
    yield from _parameters(deployment)
    for index, schedule in enumerate(deployment.schedules):
        yield from schedule_violations(deployment, schedule.parameters, f"schedules[{index}]")
    if deployment.HasField("pull_steps"):
        yield from _pull_steps(deployment.pull_steps)
    if deployment.work_queue and not deployment.work_pool:
        yield FieldViolation("work_queue", "is of no use without a work pool")
    given = job_variables_of(deployment)
    if template is not None:
        yield from job_variable_violations(template, [given], complete=False)
    elif given:
        yield FieldViolation("job_variables", "are of no use without a work pool, whose template takes them")
    for name in deployment.environment:
        if not _VARIABLE.fullmatch(name):
            yield FieldViolation(f'environment["{name}"]', "is no name of an environment variable")
    yield from _fairness_key(deployment.fairness_key)


def _parameters(deployment: Deployment) -> Iterator[FieldViolation]:
    schema = parse_schema(deployment.parameter_schema)
    for fault in schema.faults:
        path = f"parameter_schema.{fault.path}" if fault.path else "parameter_schema"
        yield FieldViolation(path, fault.reason)
    try:
        given = hydrated(json_object(deployment.parameters, "parameters"), "parameters")
    except ParametersInvalid as error:
        yield from error.violations
        return
    if not schema.faults and not deployment.skip_parameter_check:
        yield from parameter_violations(given, deployment.parameter_schema, complete=False)


def schedule_violations(deployment: Deployment, parameters: str, field: str) -> Iterator[FieldViolation]:
    """What in the parameters of a schedule does not fit the schema of its deployment.

    Those that are required may still come from elsewhere: from what the deployment is to be, say.

    Args:
        deployment: that the schedule belongs to.
        parameters: JSON text.
        field: of the schedule, e.g. "schedule".
    """
    try:
        given = hydrated(json_object(parameters, f"{field}.parameters"), f"{field}.parameters")
    except ParametersInvalid as error:
        yield from error.violations
        return
    if deployment.skip_parameter_check or parse_schema(deployment.parameter_schema).faults:
        return
    for wrong in parameter_violations(given, deployment.parameter_schema, complete=False):
        yield FieldViolation(f"{field}.{wrong.field}", wrong.description)


def _pull_steps(pull_steps: PullSteps) -> Iterator[FieldViolation]:
    for index, step in enumerate(pull_steps.steps):
        names = set(step.fields) - _STEP_EXTRAS
        if len(names) != 1:
            said = ", ".join(sorted(names)) or "none"
            yield FieldViolation(
                f"pull_steps.steps[{index}]", f"must have one key, the name of the step; it has {said}"
            )


def _fairness_key(template: str) -> Iterator[FieldViolation]:
    for placeholder in find_placeholders(template):
        root = re.split(r"[.\[]", placeholder.name)[0]
        if root not in FAIRNESS_ROOTS:
            yield FieldViolation(
                "fairness_key", f"uses '{placeholder.name}'; it may use {', '.join(FAIRNESS_ROOTS)}"
            )
