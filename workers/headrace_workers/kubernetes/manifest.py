"""From the filled template to the job that is made: pure functions."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from typing import Any, Final, cast

from headrace_workers.kubernetes.objects import Object, part, parts

__all__ = [
    "CONTAINER",
    "SETTLED_LABEL",
    "job_manifest",
    "job_name",
    "label_key",
    "label_value",
    "main_container",
    "slug",
]

CONTAINER: Final = "headrace-job"
"""Name of the container that the run is in, unless the template has another one first."""
SETTLED_LABEL: Final = "headrace.dev/settled"
"""Of jobs that everything is known of, and that stay only for people to see."""
NAME_LENGTH: Final = 63
_DIGEST: Final = 10
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")
_NO_LABEL: Final = re.compile(r"[^A-Za-z0-9._-]+")
_ENDS: Final = "._-"


def slug(text: str, length: int = NAME_LENGTH) -> str:
    """The text as a part of a DNS name: lower case, digits, dashes; `x` if nothing is left."""
    return _NO_NAME.sub("-", text.lower()).strip("-")[:length].rstrip("-") or "x"


def job_name(prefix: str, run_id: str, fence: int) -> str:
    """Name of the job of one attempt: the same each time, so that it cannot be made twice."""
    digest = hashlib.sha256(f"{run_id}/{fence}".encode()).hexdigest()[:_DIGEST]
    return f"{slug(prefix, NAME_LENGTH - _DIGEST - 1)}-{digest}"


def label_value(text: str) -> str:
    """The text as a label may have it."""
    return _NO_LABEL.sub("-", text).strip(_ENDS)[:NAME_LENGTH].strip(_ENDS)


def label_key(text: str) -> str:
    """The text as the key of a label: `prefix/name`, or a name alone."""
    prefix, _, name = text.rpartition("/")
    domain = ".".join(part for part in (slug(p, 63) for p in prefix.split(".")) if part)[:253].strip(".-")
    key = label_value(name) or "x"
    return f"{domain}/{key}" if prefix else key


def main_container(manifest: Mapping[str, Any]) -> Object:
    """The container that the run is in: `headrace-job`, else the first.

    Raises:
        ValueError: there is none.
    """
    spec = _part(_part(cast("Object", manifest), "spec", "template"), "spec")
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers or not isinstance(containers[0], dict):
        raise ValueError("job_manifest.spec.template.spec.containers: must have a container for the run")
    found = cast("list[Object]", containers)
    return next((one for one in found if one.get("name") == CONTAINER), found[0])


def job_manifest(
    template: Mapping[str, Any],
    *,
    name: str,
    namespace: str,
    env: Mapping[str, str],
    labels: Mapping[str, str],
    command: str,
    image: str,
    deadline_seconds: int | None,
) -> Object:
    """The job of one attempt.

    Args:
        template: the manifest with its placeholders filled.
        name: of the job.
        namespace: where it is made.
        env: environment variables of the run; those that the template has itself as a list go before them.
        labels: of job and pod, as they are; what a label cannot hold is kept as an annotation too.
        command: what the container runs if the template says nothing.
        image: of the container if the template says nothing.
        deadline_seconds: how long the job may be active; None: what the template says.

    Raises:
        ValueError: the template is no manifest of a job for one run.
    """
    job: Object = _pruned(template)
    if job.setdefault("kind", "Job") != "Job" or job.setdefault("apiVersion", "batch/v1") != "batch/v1":
        raise ValueError(
            f"job_manifest: must be a Job of batch/v1, not {job['kind']} of {job.get('apiVersion')}"
        )
    spec = _part(job, "spec")
    for count in ("parallelism", "completions"):
        if spec.setdefault(count, 1) != 1:
            raise ValueError(f"job_manifest.spec.{count}: a run is one pod, so it must be 1")
    spec.setdefault("backoffLimit", 0)
    if deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = min(
            deadline_seconds, spec.get("activeDeadlineSeconds", deadline_seconds)
        )
    pod = _part(spec, "template")
    _part(pod, "spec").setdefault("restartPolicy", "Never")
    metadata = _part(job, "metadata")
    metadata.pop("generateName", None)
    metadata["name"] = name
    metadata["namespace"] = namespace
    for about in (metadata, _part(pod, "metadata")):
        _label(about, labels)
    _fill(main_container(job), env, command, image)
    return job


def _fill(container: Object, env: Mapping[str, str], command: str, image: str) -> None:
    container.setdefault("name", CONTAINER)
    container.setdefault("image", image)
    if "args" not in container and "command" not in container:
        container["args"] = command
    for words in ("args", "command"):
        if isinstance(container.get(words), str):
            container[words] = _words(container[words], words)
    own = parts(container, "env")
    names = {variable.get("name") for variable in own}
    container["env"] = [
        *own,
        *({"name": key, "value": value} for key, value in env.items() if key not in names),
    ]
    for kind in part(container, "resources"):
        quantities = part(container, "resources", kind)
        quantities.update({key: str(value) for key, value in quantities.items()})


def _words(text: str, part: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{part}: {text!r} cannot be split into words: {error}") from None


def _label(metadata: Object, labels: Mapping[str, str]) -> None:
    """Put labels on, with the whole text of those that had to be changed as annotations."""
    given = {**_part(metadata, "labels"), **labels}
    metadata["labels"] = {label_key(key): label_value(str(value)) for key, value in given.items()}
    annotations = {key: str(value) for key, value in _part(metadata, "annotations").items()}
    for key, value in given.items():
        if label_value(str(value)) != str(value):
            annotations.setdefault(label_key(key), str(value))
    metadata["annotations"] = annotations


def _part(place: Object, *names: str) -> Object:
    """An object within, made if it is not there."""
    for name in names:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ValueError(f"job_manifest: '{name}' must be an object, not {inner!r}")
        place = cast("Object", inner)
    return place


def _pruned(value: Any) -> Any:
    """A copy without the keys that are null."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {key: _pruned(item) for key, item in items if item is not None}
    if isinstance(value, list):
        return [_pruned(item) for item in cast("list[Any]", value)]
    return value
