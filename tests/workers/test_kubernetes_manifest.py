"""The jobs that are made of templates and variables, and what is said of failures: tables, no cluster."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from headrace.core.ids import new_id
from headrace.core.job_templates import base_job_template
from headrace_workers.base import WorkerFacts, json_object
from headrace_workers.infrastructure.labels import attempt_of
from headrace_workers.infrastructure.worker import InfrastructureEnd
from headrace_workers.kubernetes.failures import explain_refusal, how_ended, is_settled, why_pending
from headrace_workers.kubernetes.manifest import job_name, label_key, label_value, slug
from headrace_workers.kubernetes.output import parse_line
from headrace_workers.kubernetes.worker import KubernetesWorker
from tests.support.kubernetes.bench import assigned
from tests.support.kubernetes.schema import check_job, schema_problems
from tests.support.kubernetes.store import ApiError

JOB = ("job_configuration", "job_manifest")
POD = (*JOB, "spec", "template", "spec")
RUN_ID = new_id()


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """The type's own template with one place changed."""
    template = base_job_template("kubernetes")
    place: Any = template
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return template


def configured(template: dict[str, Any] | None = None, name: str = "brisk otter", **variables: Any) -> Any:
    """The configuration, by a template that a pool has kept."""
    kept = Struct()
    kept.update(template or base_job_template("kubernetes"))
    worker = KubernetesWorker()
    worker.facts = WorkerFacts("w", "night shift", {"HEADRACE_API_URL": "headrace.example:4200"})
    return worker.configure(assigned(variables, name, fence=7, run_id=RUN_ID), json_object(kept))


def manifest(template: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = configured(template, **more).job_manifest
    return made


def at(item: Any, *path: Any) -> Any:
    for key in path:
        item = item[key]
    return item


SPEC = ("spec", "template", "spec")
MAIN = (*SPEC, "containers", 0)
VARIABLES: list[tuple[dict[str, Any], tuple[Any, ...], Any]] = [
    ({}, ("metadata", "namespace"), "default"),
    ({}, ("spec", "backoffLimit"), 0),
    ({}, (*MAIN, "name"), "headrace-job"),
    ({}, (*MAIN, "args"), ["headrace", "flow-run", "execute"]),
    ({}, (*MAIN, "imagePullPolicy"), "IfNotPresent"),
    ({}, (*SPEC, "restartPolicy"), "Never"),
    ({"namespace": "flows"}, ("metadata", "namespace"), "flows"),
    ({"image": "r.example/flows@sha256:00"}, (*MAIN, "image"), "r.example/flows@sha256:00"),
    ({"image_pull_policy": "Always"}, (*MAIN, "imagePullPolicy"), "Always"),
    ({"service_account_name": "runner"}, (*SPEC, "serviceAccountName"), "runner"),
    ({"finished_job_ttl": 300}, ("spec", "ttlSecondsAfterFinished"), 300),
    ({"job_watch_timeout_seconds": 60}, ("spec", "activeDeadlineSeconds"), 60),
    ({"backoff_limit": 2}, ("spec", "backoffLimit"), 2),
    ({"command": "sh -c 'a b'"}, (*MAIN, "args"), ["sh", "-c", "a b"]),
    ({"cpu_request": "500m"}, (*MAIN, "resources", "requests"), {"cpu": "500m"}),
    (
        {"cpu_limit": "2", "memory_limit": "1Gi"},
        (*MAIN, "resources", "limits"),
        {"cpu": "2", "memory": "1Gi"},
    ),
    ({"annotations": {"a": 1}}, ("spec", "template", "metadata", "annotations", "a"), "1"),
    ({"labels": {"team": "Öl & Gas"}}, ("metadata", "labels", "team"), "l-Gas"),
    ({"labels": {"team": "Öl & Gas"}}, ("metadata", "annotations", "team"), "Öl & Gas"),
]


@pytest.mark.parametrize(("variables", "path", "value"), VARIABLES)
def test_a_variable_is_in_its_place_and_the_job_is_valid(
    variables: dict[str, Any], path: tuple[Any, ...], value: Any
) -> None:
    made = manifest(**variables)
    assert at(made, *path) == value
    check_job(made)
    json.dumps(made)


@pytest.mark.parametrize("of", [("metadata",), ("spec", "template", "metadata")])
def test_job_and_pod_say_whose_they_are(of: tuple[str, ...]) -> None:
    labels = at(manifest(), *of, "labels")
    attempt = attempt_of(labels)
    assert attempt is not None
    assert (attempt.run_id, attempt.number, attempt.fence) == (RUN_ID, 1, 7)
    assert labels["headrace.dev/work-pool-name"] == "night-shift"
    assert at(manifest(), *of, "annotations", "headrace.dev/work-pool-name") == "night shift"


def test_what_is_not_set_is_not_there() -> None:
    made = manifest()
    assert "ttlSecondsAfterFinished" not in made["spec"]
    assert "activeDeadlineSeconds" not in made["spec"]
    assert "serviceAccountName" not in at(made, *SPEC)
    assert at(made, *MAIN, "image").startswith("headrace/headrace:")


def test_the_environment_of_the_run_reaches_the_container_in_any_shape() -> None:
    secret = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    own = changed(*POD, "containers", 0, "env", to=[secret, {"name": "LEVEL", "value": "own"}])
    for template, level in ((None, "3"), (own, "own")):
        made = manifest(template, env={"LEVEL": 3})
        env = {variable["name"]: variable for variable in at(made, *MAIN, "env")}
        assert env["HEADRACE__FLOW_RUN_ID"]["value"] == RUN_ID
        assert env["HEADRACE_API_URL"]["value"] == "headrace.example:4200"
        assert env["LEVEL"]["value"] == level
        assert len(env) == len(at(made, *MAIN, "env"))
        check_job(made)
    assert env["TOKEN"] == secret


def test_credentials_can_come_from_a_secret_instead() -> None:
    source = [{"secretRef": {"name": "headrace"}}]
    made = manifest(changed(*POD, "containers", 0, "envFrom", to=source), env={"HEADRACE_API_URL": None})
    assert "HEADRACE_API_URL" not in [variable["name"] for variable in at(made, *MAIN, "env")]
    assert at(made, *MAIN, "envFrom") == source
    check_job(made)


CUSTOM: list[tuple[dict[str, Any], tuple[Any, ...], Any]] = [
    (changed(*POD, "nodeSelector", to={"disk": "fast"}), (*SPEC, "nodeSelector"), {"disk": "fast"}),
    (
        changed(*POD, "containers", 0, "resources", "limits", "cpu", to=2),
        (*MAIN, "resources", "limits", "cpu"),
        "2",
    ),
    (changed(*POD, "containers", 0, "command", to="tini --"), (*MAIN, "command"), ["tini", "--"]),
    (
        changed(*POD, "volumes", to=[{"name": "v", "emptyDir": {}}]),
        (*SPEC, "volumes", 0),
        {"name": "v", "emptyDir": {}},
    ),
    (changed(*JOB, "spec", "activeDeadlineSeconds", to=10), ("spec", "activeDeadlineSeconds"), 10),
]


@pytest.mark.parametrize(("template", "path", "value"), CUSTOM)
def test_a_template_of_ones_own(template: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    made = manifest(template, job_watch_timeout_seconds=20)
    assert at(made, *path) == value
    check_job(made)


def test_sidecars_are_left_alone() -> None:
    sidecar = {"name": "proxy", "image": "proxy:1"}
    main = base_job_template("kubernetes")["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    made = manifest(changed(*POD, "containers", to=[sidecar, main["containers"][0]]))
    assert at(made, *SPEC, "containers", 0) == sidecar
    assert at(made, *SPEC, "containers", 1, "args") == ["headrace", "flow-run", "execute"]
    check_job(made)


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (changed(*JOB, "kind", to="Pod"), {}, "must be a Job of batch/v1, not Pod"),
    (changed(*JOB, "spec", "parallelism", to=2), {}, "a run is one pod"),
    (changed(*POD, "containers", to=[]), {}, "must have a container for the run"),
    (changed(*JOB, "spec", to="x"), {}, "'spec' must be an object"),
    (base_job_template("kubernetes"), {"command": "sh -c 'a"}, "cannot be split into words"),
    (base_job_template("kubernetes"), {"pod_watch_timeout_seconds": -1}, "pod_watch_timeout_seconds"),
]


@pytest.mark.parametrize(("template", "variables", "words"), WRONG)
def test_what_is_no_job_of_a_run(template: dict[str, Any], variables: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        manifest(template, **variables)


NAMES = ["brisk otter", "", "---", "Ünïcode ✓", "a" * 200, "9lives.", "x/y:z"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_valid_short_and_those_of_the_attempt(name: str) -> None:
    made = manifest(name=name)
    check_job(made)
    assert made == manifest(name=name)
    assert "generateName" not in made["metadata"]
    other = job_name(name, RUN_ID, 8)
    assert other != made["metadata"]["name"]
    assert len(other) <= 63


def test_names_and_labels() -> None:
    assert slug("Brisk  Otter!") == "brisk-otter"
    assert slug("é") == "x"
    assert label_value("-a b-") == "a-b"
    assert label_value("x" * 62 + ".y") == "x" * 62
    assert label_key("My Team/Cost Center") == "my-team/Cost-Center"
    assert label_key("é") == "x"


# The schema that these are held against is one that refuses


def test_the_schema_knows_what_does_not_fit() -> None:
    made = manifest()
    broken = copy.deepcopy(made)
    broken["spec"]["template"]["spec"]["contaners"] = []
    broken["spec"]["backoffLimit"] = "3"
    assert sorted(schema_problems(broken, "V1Job")) == [
        "spec.backoffLimit: expected int, got '3'",
        'unknown field "spec.template.spec.contaners"',
    ]
    made["spec"]["template"]["metadata"]["labels"]["bad key"] = "-"
    del made["spec"]["template"]["spec"]["restartPolicy"]
    with pytest.raises(ApiError) as refused:
        check_job(made)
    assert refused.value.code == 422
    assert len(refused.value.status["details"]["causes"]) == 3


# What is said


def pod(phase: str, state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    containers = [] if state is None else [{"name": "c", "state": state}]
    return {"metadata": {}, "status": {"phase": phase, "containerStatuses": containers, **status}}


def job(type: str = "", reason: str = "", message: str = "") -> dict[str, Any]:
    condition = {"type": type, "status": "True", "reason": reason, "message": message}
    return {"metadata": {}, "status": {"conditions": [condition] if type else []}}


FAILED = job("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "m"}
ENDS: list[tuple[dict[str, Any] | None, list[dict[str, Any]], InfrastructureEnd | None]] = [
    (job(), [], None),
    (job(), [pod("Failed", {"terminated": {"exitCode": 1}})], None),
    (job("Suspended"), [], None),
    (job("Complete"), [], InfrastructureEnd(0)),
    (FAILED, [pod("Failed", {"terminated": {"exitCode": 3, "reason": "Error"}})], InfrastructureEnd(3)),
    (
        FAILED,
        [pod("Failed", {"terminated": {"exitCode": 137, "reason": "OOMKilled"}})],
        InfrastructureEnd(137, "The container has used up its memory limit (OOMKilled)."),
    ),
    (
        FAILED,
        [pod("Failed", reason="Evicted", message="low on memory. ")],
        InfrastructureEnd(None, "The pod was evicted: low on memory."),
    ),
    (
        FAILED,
        [pod("Failed", {"terminated": {"exitCode": 143}}, conditions=[DISRUPTED])],
        InfrastructureEnd(143, "The pod was ended by the cluster (PreemptionByScheduler): m."),
    ),
    (
        FAILED,
        [pod("Failed", {"terminated": {"exitCode": 128, "reason": "StartError", "message": "no such file"}})],
        InfrastructureEnd(128, "The container could not be started (StartError): no such file.", True),
    ),
    (
        FAILED,
        [],
        InfrastructureEnd(
            None,
            "The job has failed before its pod began: "
            "BackoffLimitExceeded: Job has reached the specified backoff limit.",
            True,
        ),
    ),
    (
        FAILED,
        [pod("Running", {"running": {}})],
        InfrastructureEnd(
            None,
            "The job has failed, and its pod is gone: "
            "BackoffLimitExceeded: Job has reached the specified backoff limit.",
        ),
    ),
    # Somebody removes it: the pod knows how it ended, as soon as it has.
    (None, [pod("Running", {"running": {}})], None),
    (None, [pod("Failed", {"terminated": {"exitCode": 143}})], InfrastructureEnd(143)),
    # The newest of several tries counts.
    (
        FAILED,
        [pod("Failed", {"terminated": {"exitCode": 1}}), pod("Failed", {"terminated": {"exitCode": 2}})],
        InfrastructureEnd(2),
    ),
]


@pytest.mark.parametrize(("job", "pods", "end"), ENDS)
def test_how_it_ended(
    job: dict[str, Any] | None, pods: list[dict[str, Any]], end: InfrastructureEnd | None
) -> None:
    assert how_ended(job, pods, "c") == end


def test_the_last_word_is_that_of_the_pod() -> None:
    assert is_settled(job("Complete"), [])
    assert is_settled(job("Failed", "DeadlineExceeded"), [pod("Running")])
    assert not is_settled(FAILED, [])
    assert not is_settled(FAILED, [pod("Running")])
    assert is_settled(FAILED, [pod("Failed")])


UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
WARNING = {"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota: pods"}
PENDING: list[tuple[list[dict[str, Any]], list[dict[str, Any]], str]] = [
    ([], [], "the cluster has made no pod"),
    ([], [{"type": "Normal", "reason": "r"}, WARNING], "FailedCreate: exceeded quota: pods"),
    ([pod("Pending")], [], "the cluster gives no reason"),
    ([pod("Pending", conditions=[UNSCHEDULED])], [], "Unschedulable: 0/3 nodes"),
    ([pod("Pending", {"waiting": {"reason": "ErrImagePull", "message": "m"}})], [WARNING], "ErrImagePull: m"),
    (
        [pod("Pending", {"waiting": {"reason": "ContainerCreating"}})],
        [WARNING],
        "FailedCreate: exceeded quota: pods",
    ),
]


@pytest.mark.parametrize(("pods", "events", "words"), PENDING)
def test_why_it_waits(pods: list[dict[str, Any]], events: list[dict[str, Any]], words: str) -> None:
    assert why_pending(pods, events) == words


def test_a_quota_is_not_taken_for_a_missing_right() -> None:
    quota = {
        "message": 'jobs.batch "x" is forbidden: exceeded quota: count/jobs.batch=5',
        "reason": "Forbidden",
    }
    words = explain_refusal(403, quota, "create", "jobs", "batch", "flows")
    assert words == (
        "The cluster has refused to create jobs in the namespace 'flows' (403): "
        'jobs.batch "x" is forbidden: exceeded quota: count/jobs.batch=5.'
    )


def test_lines_with_their_times() -> None:
    line = parse_line(b"2026-01-31T12:00:00.5Z a b")
    assert (line.text, line.time_ns) == ("a b", 1769860800_500000000)
    assert parse_line(b"2026-01-31T12:00:00.123456789Z ").text == ""
    elsewhere = parse_line(b"2026-01-31T13:30:00.500000000+01:30 a b")
    assert (elsewhere.text, elsewhere.time_ns) == (line.text, line.time_ns)
    odd = parse_line(b"no time \xff")
    assert (odd.text, odd.time_ns) == ("no time \\xff", None)
