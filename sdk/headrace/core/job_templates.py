"""The base job templates of the worker types that headrace has itself.

A template is `{"job_configuration": {...}, "variables": JSON Schema}`: what a worker needs to know to start a
run, with `{{ placeholders }}` for what deployments and runs may set. A pool keeps the template it was
made with, or one of its own.
"""

from __future__ import annotations

import copy
from typing import Any, Final

__all__ = ["COMMON_VARIABLES", "MANAGED", "TEMPLATE_TYPES", "base_job_template"]

MANAGED: Final = "managed"
"""Type of the pools that the server has worked by its own machine."""

JsonObject = dict[str, Any]


def _text(title: str, description: str, **more: Any) -> JsonObject:
    return {"title": title, "description": description, "type": "string", **more}


def _maybe(title: str, description: str, type: str = "string", **more: Any) -> JsonObject:
    kind: JsonObject = {"type": type, **more}
    return {
        "title": title,
        "description": description,
        "anyOf": [kind, {"type": "null"}],
        "default": None,
    }


def _flag(title: str, description: str, default: bool) -> JsonObject:
    return {"title": title, "description": description, "type": "boolean", "default": default}


def _texts(title: str, description: str) -> JsonObject:
    return {
        "title": title,
        "description": description,
        "type": "object",
        "additionalProperties": {"anyOf": [{"type": t} for t in ("string", "number", "boolean", "null")]},
        "default": {},
    }


COMMON_VARIABLES: Final[JsonObject] = {
    "name": _maybe("Name", "Name of the job. Without it: the run's name."),
    "env": _texts("Environment", "Environment variables of the run. null takes one away."),
    "labels": _texts("Labels", "Labels of the job, for whoever looks after the infrastructure."),
    "command": _maybe("Command", "What starts the run. Without it: `headrace flow-run execute`."),
}
"""What every worker type takes."""

_COMMON_JOB: Final[JsonObject] = {name: f"{{{{ {name} }}}}" for name in COMMON_VARIABLES}
_STREAM: Final = _flag("Stream output", "Show what the run prints in the worker's own output.", True)

_PROCESS: Final[JsonObject] = {
    "stream_output": _STREAM,
    "working_dir": _maybe(
        "Working directory", "Directory in which the run starts. Without it: a temporary one."
    ),
    "memory_limit": _maybe("Memory limit", "The most memory the run may allocate, e.g. `512m` or `2g`."),
    "cpu_time_limit_seconds": _maybe(
        "Processor time limit",
        "How much processor time each process of the run may use, in seconds.",
        "integer",
        minimum=1,
    ),
    "process_limit": _maybe(
        "Process limit",
        "How many processes and threads there may be: of the run where the worker makes control groups, "
        "else of the worker's user altogether.",
        "integer",
        minimum=1,
    ),
}

_MANAGED: Final[JsonObject] = {
    **_PROCESS,
    "stream_output": _flag("Stream output", "Show what the run prints in the server's own log.", False),
    "memory_limit": _maybe(
        "Memory limit",
        "The most memory the run may allocate, e.g. `512m` or `2g`. Without it: three quarters of what the "
        "machine has.",
    ),
    "pip_packages": {
        "title": "Packages",
        "description": "What is installed for the run, each as pip takes it, e.g. `requests>=2`.",
        "type": "array",
        "items": {"type": "string", "minLength": 1},
        "default": [],
    },
}

_DOCKER: Final[JsonObject] = {
    "image": _maybe("Image", "Image of the container. Without it: headrace's own, of the same version."),
    "registry_credentials": _maybe(
        "Registry credentials",
        "`username`, `password` and `registry` for images that are not public.",
        "object",
    ),
    "image_pull_policy": _maybe(
        "Image pull policy",
        "When the image is pulled. Without it: always for the tag `latest`, else if it is not there.",
        enum=["Always", "IfNotPresent", "IfPossible", "Never"],
    ),
    "networks": {
        "title": "Networks",
        "description": "Networks that the container is put into.",
        "type": "array",
        "items": {"type": "string"},
        "default": [],
    },
    "network_mode": _maybe("Network mode", "E.g. `host` or `none`."),
    "auto_remove": _flag("Remove at the end", "Remove the container when it has ended.", False),
    "volumes": {
        "title": "Volumes",
        "description": "What is mounted, each as `source:target` or `source:target:ro`.",
        "type": "array",
        "items": {"type": "string", "pattern": "^[^:]+:/[^:]*(:[a-zA-Z,]+)?$"},
        "default": [],
    },
    "stream_output": _STREAM,
    "mem_limit": _maybe("Memory limit", "E.g. `512m` or `2g`."),
    "memswap_limit": _maybe("Memory and swap limit", "Of both together, e.g. `4g`; `-1` for no limit."),
    "privileged": _flag("Privileged", "Give the container the host's own rights.", False),
    "user": _maybe("User", "User of the container, as `name`, `uid` or `uid:gid`. Without it: the image's."),
    "container_create_kwargs": _maybe(
        "More container options",
        "By their names in the engine's API, or as the Docker SDK for Python calls them.",
        "object",
    ),
}

_KUBERNETES: Final[JsonObject] = {
    "namespace": _text("Namespace", "Namespace of the job.", default="default"),
    "image": _maybe("Image", "Image of the container. Without it: headrace's own, of the same version."),
    "service_account_name": _maybe("Service account", "Account of the pod."),
    "image_pull_policy": _text(
        "Image pull policy",
        "When the image is pulled.",
        enum=["IfNotPresent", "Always", "Never"],
        default="IfNotPresent",
    ),
    "backoff_limit": {
        "title": "Backoff limit",
        "description": "How often Kubernetes itself starts a failed pod again.",
        "type": "integer",
        "minimum": 0,
        "default": 0,
    },
    "finished_job_ttl": _maybe(
        "Time to live of finished jobs",
        "After how many seconds a finished job is removed. Without it: it stays.",
        "integer",
        minimum=0,
    ),
    "job_watch_timeout_seconds": _maybe(
        "Job watch timeout", "How long a job may take altogether, in seconds.", "integer", minimum=0
    ),
    "pod_watch_timeout_seconds": {
        "title": "Pod watch timeout",
        "description": "How long a pod may take to start, in seconds.",
        "type": "integer",
        "minimum": 1,
        "default": 60,
    },
    "stream_output": _STREAM,
    "annotations": _texts("Annotations", "Annotations of job and pod."),
    "cluster_config": _maybe(
        "Cluster",
        "A kubeconfig. Without it: the cluster the worker runs in, else the worker's kubeconfig.",
        "object",
    ),
    "cpu_request": _maybe("CPU request", "E.g. `500m`."),
    "cpu_limit": _maybe("CPU limit", "E.g. `2`."),
    "memory_request": _maybe("Memory request", "E.g. `256Mi`."),
    "memory_limit": _maybe("Memory limit", "E.g. `1Gi`."),
}

_JOB_MANIFEST: Final[JsonObject] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {
        "labels": "{{ labels }}",
        "annotations": "{{ annotations }}",
        "namespace": "{{ namespace }}",
        "generateName": "{{ name }}-",
    },
    "spec": {
        "backoffLimit": "{{ backoff_limit }}",
        "ttlSecondsAfterFinished": "{{ finished_job_ttl }}",
        "parallelism": 1,
        "completions": 1,
        "template": {
            "metadata": {"annotations": "{{ annotations }}"},
            "spec": {
                "restartPolicy": "Never",
                "serviceAccountName": "{{ service_account_name }}",
                "containers": [
                    {
                        "name": "headrace-job",
                        "env": "{{ env }}",
                        "image": "{{ image }}",
                        "imagePullPolicy": "{{ image_pull_policy }}",
                        "args": "{{ command }}",
                        "resources": {
                            "requests": {"cpu": "{{ cpu_request }}", "memory": "{{ memory_request }}"},
                            "limits": {"cpu": "{{ cpu_limit }}", "memory": "{{ memory_limit }}"},
                        },
                    }
                ],
            },
        },
    },
}


def _template(variables: JsonObject, job: JsonObject | None = None) -> JsonObject:
    """A template with the common variables and these; without `job`, each has a key of its own name."""
    own = {name: f"{{{{ {name} }}}}" for name in variables} if job is None else job
    return {
        "job_configuration": {**_COMMON_JOB, **own},
        "variables": {"type": "object", "properties": {**COMMON_VARIABLES, **variables}, "required": []},
    }


_TEMPLATES: Final[dict[str, JsonObject]] = {
    "process": _template(_PROCESS),
    MANAGED: _template(_MANAGED),
    "docker": _template(_DOCKER),
    "kubernetes": _template(
        _KUBERNETES,
        {
            "namespace": "{{ namespace }}",
            "job_manifest": _JOB_MANIFEST,
            "cluster_config": "{{ cluster_config }}",
            "job_watch_timeout_seconds": "{{ job_watch_timeout_seconds }}",
            "pod_watch_timeout_seconds": "{{ pod_watch_timeout_seconds }}",
            "stream_output": "{{ stream_output }}",
        },
    ),
}
TEMPLATE_TYPES: Final = tuple(_TEMPLATES)
"""The worker types that headrace has a template for."""


def base_job_template(type: str) -> JsonObject:
    """The template of a worker type; for one that is not headrace's own, what every type takes.

    The caller may change what it gets.
    """
    return copy.deepcopy(_TEMPLATES.get(type) or _template({}))
