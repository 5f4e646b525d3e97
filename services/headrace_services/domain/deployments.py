"""Deployments as declarations: what a request makes of one, what changes by that, and what of it counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from google.protobuf.json_format import MessageToDict

from headrace.core.errors import FieldsInvalid
from headrace.core.templating import outputs, resolve
from headrace.v1.deployment_pb2 import Deployment, FieldChange
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run
from headrace_services.domain.structs import whole_numbers

__all__ = [
    "DECLARED",
    "as_json",
    "declared_only",
    "differences",
    "digest_of",
    "merged",
    "run_of_deployment",
]

DECLARED: Final = (
    "description",
    "version",
    "version_info",
    "tags",
    "labels",
    "paused",
    "schedules",
    "concurrency",
    "parameters",
    "parameter_schema",
    "skip_parameter_check",
    "job_variables",
    "pull_steps",
    "path",
    "entrypoint",
    "work_pool",
    "work_queue",
    "on_lost",
    "max_lost_attempts",
    "overlap",
    "fairness_key",
    "priority",
    "environment",
    "required_labels",
)
"""What a request may say of a deployment, beside its name."""

_IN_PARTS: Final = ("version_info", "labels", "parameters", "job_variables", "environment", "required_labels")
"""Objects whose changes are told key by key."""
_FAIRNESS_CHARACTERS: Final = 200
_NOT_EXECUTION: Final = (
    *("description", "version", "version_info", "tags", "labels"),
    *("paused", "schedules", "overlap"),
)


def as_json(value: object) -> str:
    """JSON text in which equal values are equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def declared_only(deployment: Deployment) -> Deployment:
    """Its names and what a request may say of it."""
    kept = Deployment()
    kept.CopyFrom(deployment)
    for field in Deployment.DESCRIPTOR.fields_by_name:
        if field not in ("flow_name", "name", *DECLARED):
            kept.ClearField(field)  # type: ignore[arg-type]  # the stub wants literals
    return kept


def merged(current: Deployment | None, asked: Deployment, paths: Sequence[str]) -> Deployment:
    """What the deployment is to be.

    Args:
        current: what it is; None: it is new.
        asked: what the request says.
        paths: the fields of `asked` that count; none: all of them.

    Raises:
        FieldsInvalid: a path is no field that can be changed.
    """
    for path in paths:
        if path not in DECLARED:
            raise FieldsInvalid.of(
                "update_mask", f"names '{path}'; what can be changed is {', '.join(DECLARED)}"
            )
    if current is None or not paths:
        wanted = declared_only(asked)
        if paths:
            for field in set(DECLARED) - set(paths):
                wanted.ClearField(field)  # type: ignore[arg-type]
    else:
        wanted = declared_only(current)
        taken = declared_only(asked)
        for field in DECLARED:
            (wanted if field in paths else taken).ClearField(field)  # type: ignore[arg-type]
        wanted.MergeFrom(taken)
    if current is not None:
        _keep_order(current, wanted)
    return wanted


def _keep_order(current: Deployment, wanted: Deployment) -> None:
    """The order of tags says nothing: the same ones in another order are no change."""
    if sorted(current.tags) == sorted(wanted.tags):
        wanted.ClearField("tags")
        wanted.tags.extend(current.tags)


def differences(old: Deployment | None, new: Deployment) -> list[FieldChange]:
    """What changes, field by field, without schedules, which know by themselves."""
    before, after = _fields(old) if old is not None else {}, _fields(new)
    return [
        FieldChange(path=path, old_value=before.get(path, ""), new_value=after.get(path, ""))
        for path in dict.fromkeys((*after, *before))
        if before.get(path, "") != after.get(path, "")
    ]


def _fields(deployment: Deployment) -> dict[str, str]:
    """What is set, as JSON text by path."""
    said: dict[str, Any] = MessageToDict(deployment, preserving_proto_field_name=True)
    found: dict[str, str] = {}
    for field in DECLARED:
        if field not in said or field == "schedules":
            continue
        value = _value(field, said[field])
        if field in _IN_PARTS and isinstance(value, Mapping):
            found.update(_parts(field, cast("Mapping[str, Any]", value)))
        else:
            found[field] = as_json(value)
    return found


def _value(field: str, value: Any) -> Any:
    """JSON text as what it says; numbers of the wire that were whole as whole numbers."""
    if field in ("parameters", "parameter_schema"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return whole_numbers(value)


def _parts(field: str, value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not value:
        yield field, as_json(value)
    for key in sorted(value):
        yield f"{field}.{key}", as_json(value[key])


def digest_of(deployment: Deployment) -> str:
    """Of everything that decides how a run is executed, 16 hexadecimal digits."""
    fields = _fields(deployment)
    deciding = {path: text for path, text in fields.items() if path.split(".")[0] not in _NOT_EXECUTION}
    body = as_json([deployment.flow_name, deployment.name, deciding]).encode()
    return hashlib.sha256(body).hexdigest()[:16]


def run_of_deployment(said: Deployment, version_id: str, parameters: Mapping[str, Any]) -> Run:
    """A run with everything that it has from its deployment, but for the deployment's id.

    Args:
        said: the deployment as it is declared.
        version_id: of the version that says so.
        parameters: all of them, as the run gets them.

    Returns:
        A run without id, name, state and job variables: those are only what is said of the run itself.
    """
    run = Run(
        kind=RUN_KIND_FLOW,
        flow_name=said.flow_name,
        flow_version=said.version,
        deployment_version_id=version_id,
        work_pool=said.work_pool,
        work_queue=said.work_queue,
        tags=said.tags,
        labels=said.labels,
        priority=said.priority,
        required_labels=said.required_labels,
    )
    run.parameters.encoding, run.parameters.inline = "json", as_json(parameters).encode()
    if said.on_lost:
        run.retry_policy.on_lost = said.on_lost
    if said.max_lost_attempts:
        run.retry_policy.max_lost_attempts = said.max_lost_attempts
    run.fairness_key = _fairness_key(said, parameters)
    return run


def _fairness_key(said: Deployment, parameters: Mapping[str, Any]) -> str:
    if not said.fairness_key:
        return ""
    names = {"parameters": parameters, "tags": list(said.tags), "labels": dict(said.labels)}
    # Between spaces a placeholder is within text, so that any value is put as text.
    key: str = resolve(f"{said.fairness_key}\0", _as_text(names))
    return key[:-1][:_FAIRNESS_CHARACTERS]


def _as_text(names: Mapping[str, Any]) -> Any:
    look_up = outputs(names)

    def text_of(name: str) -> Any:
        found = look_up(name)
        return as_json(cast("object", found)) if isinstance(found, (list, dict)) else found

    return text_of
