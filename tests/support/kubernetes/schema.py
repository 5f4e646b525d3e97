"""What the API server says of a manifest: the fields of the OpenAPI schema, and the rules for jobs and pods.

The fields are those of the models that `kubernetes_asyncio` has generated from the Kubernetes OpenAPI schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubernetes_asyncio.client import models

from tests.support.kubernetes.store import ApiError

__all__ = ["check_job", "schema_problems"]

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_KEY = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_ENV = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_PLAIN = {"str": str, "int": int, "float": (int, float), "bool": bool, "object": object, "datetime": str}


def schema_problems(value: Any, type: str, path: str = "") -> Iterator[str]:
    """What does not fit the schema, as the server says it of strict decoding."""
    if value is None:
        return
    if type.startswith("list["):
        if not isinstance(value, list):
            yield f"{path}: expected list, got {value!r}"
            return
        for index, item in enumerate(value):
            yield from schema_problems(item, type[5:-1], f"{path}[{index}]")
    elif type.startswith("dict("):
        if not isinstance(value, dict):
            yield f"{path}: expected map, got {value!r}"
            return
        kind = type[5:-1].split(", ", 1)[1]
        for key, item in value.items():
            yield from schema_problems(item, kind, f"{path}.{key}")
    elif type in _PLAIN:
        fits = isinstance(value, _PLAIN[type]) and not (type in ("int", "float") and isinstance(value, bool))
        if not fits:
            yield f"{path}: expected {type}, got {value!r}"
    else:
        yield from _model_problems(value, type, path)


def _model_problems(value: Any, type: str, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: expected {type}, got {value!r}"
        return
    model = getattr(models, type)
    types = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    for key, item in value.items():
        inner = f"{path}.{key}" if path else key
        if key in types:
            yield from schema_problems(item, types[key], inner)
        else:
            yield f'unknown field "{inner}"'


def check_job(job: dict[str, Any], *, strict: bool = True) -> None:
    """Refuse a job that the API server would refuse.

    Raises:
        ApiError: 400 for what cannot be decoded, 422 for what is not valid.
    """
    unfit = list(schema_problems(job, "V1Job"))
    if not strict:
        unfit = [problem for problem in unfit if not problem.startswith("unknown field")]
    if unfit:
        words = ", ".join(unfit)
        raise ApiError(
            400,
            "BadRequest",
            f'Job in version "v1" cannot be handled as a Job: strict decoding error: {words}',
        )
    causes = [{"field": field, "message": message} for field, message in _invalid(job)]
    if causes:
        name = job["metadata"].get("name", "")
        listed = ", ".join(f"{cause['field']}: {cause['message']}" for cause in causes)
        words = f'Job.batch "{name}" is invalid: ' + (listed if len(causes) == 1 else f"[{listed}]")
        raise ApiError(422, "Invalid", words, name=name, group="batch", kind="Job", causes=causes)


def _invalid(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _metadata(job["metadata"], "metadata", needs_name=True)
    spec = job.get("spec") or {}
    template = spec.get("template") or {}
    yield from _metadata(template.get("metadata") or {}, "spec.template")
    for name in ("backoffLimit", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "parallelism"):
        if (spec.get(name) or 0) < 0:
            yield f"spec.{name}", f"Invalid value: {spec[name]}: must be greater than or equal to 0"
    pod = template.get("spec") or {}
    if pod.get("restartPolicy") not in ("Never", "OnFailure"):
        given = pod.get("restartPolicy", "")
        yield (
            "spec.template.spec.restartPolicy",
            f'Required value: valid values: "OnFailure", "Never"; got {given!r}',
        )
    containers = pod.get("containers") or []
    if not containers:
        yield "spec.template.spec.containers", "Required value"
    for index, container in enumerate(containers):
        yield from _container(container, f"spec.template.spec.containers[{index}]")


def _metadata(metadata: dict[str, Any], path: str, *, needs_name: bool = False) -> Iterator[tuple[str, str]]:
    name = metadata.get("name") or ""
    if needs_name and (not _SUBDOMAIN.fullmatch(name) or len(name) > 63):
        yield f"{path}.name", f'Invalid value: "{name}": must be no more than 63 characters of a DNS name'
    for key, value in (metadata.get("labels") or {}).items():
        prefix, slash, rest = key.rpartition("/")
        if (slash and not _SUBDOMAIN.fullmatch(prefix)) or not _KEY.fullmatch(rest) or len(rest) > 63:
            yield f"{path}.labels", f'Invalid value: "{key}": not a qualified name'
        if not _VALUE.fullmatch(value) or len(value) > 63:
            yield f"{path}.labels", f'Invalid value: "{value}": a valid label must be an empty string or …'


def _container(container: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if not _LABEL.fullmatch(container.get("name") or ""):
        yield f"{path}.name", "Required value"
    if not container.get("image"):
        yield f"{path}.image", "Required value"
    if container.get("imagePullPolicy") not in (None, "Always", "IfNotPresent", "Never"):
        given = container["imagePullPolicy"]
        yield (
            f"{path}.imagePullPolicy",
            f'Unsupported value: "{given}": supported values: "Always", "IfNotPresent", "Never"',
        )
    for index, variable in enumerate(container.get("env") or []):
        if not _ENV.fullmatch(variable.get("name") or ""):
            yield f"{path}.env[{index}].name", f"Invalid value: {variable.get('name')!r}"
        if variable.get("value") and variable.get("valueFrom"):
            yield (
                f"{path}.env[{index}].valueFrom",
                "Invalid value: may not be specified when `value` is not empty",
            )
    for part in ("requests", "limits"):
        for name, quantity in ((container.get("resources") or {}).get(part) or {}).items():
            if not _QUANTITY.fullmatch(str(quantity)):
                yield (
                    f"{path}.resources.{part}[{name}]",
                    f'Invalid value: "{quantity}": quantities must match the regular expression',
                )
