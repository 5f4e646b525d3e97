"""From job variables to what the engine is asked for, and from its output to lines."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from headrace.core.ids import new_id
from headrace.docker.names import default_image
from headrace.v1.run_pb2 import AttemptRef, Run
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.base import WorkerFacts
from headrace_workers.docker.configuration import (
    DockerJobConfiguration,
    container_body,
    container_name,
)
from headrace_workers.docker.engine import OutputLines
from headrace_workers.docker.worker import DockerWorker
from headrace_workers.registry import find_worker_type


def configured(**variables: Any) -> DockerJobConfiguration:
    """What a run with these job variables is started with, by the type's own template."""
    worker = DockerWorker()
    environment = {"HEADRACE_HOME": "/home/me", "HEADRACE_LOGGING_LEVEL": "DEBUG"}
    worker.facts = WorkerFacts("w", "p", environment, print, lambda: "127.0.0.1:42")
    run_id = new_id()
    attempt = AttemptRef(run_id=run_id, attempt=2, fence=5)
    assignment = Assignment(attempt=attempt, run=Run(id=run_id, name="swift otter", flow_name="f"))
    assignment.job_variables.update(variables)
    return worker.configure(assignment, worker.get_default_base_job_template())


def test_the_type_is_found() -> None:
    assert find_worker_type("docker") is DockerWorker


def test_a_run_that_says_nothing_has_headraces_own_image_and_finds_the_server() -> None:
    configuration = configured()
    body = container_body(configuration)
    assert body["Image"] == default_image()
    assert body["Cmd"] == ["headrace", "flow-run", "execute"]
    environment = dict(item.split("=", 1) for item in body["Env"])
    assert environment["HEADRACE_API_URL"] == "host.docker.internal:42"
    assert (environment["HEADRACE__ATTEMPT"], environment["HEADRACE__FENCE"]) == ("2", "5")
    assert environment["HEADRACE_LOGGING_LEVEL"] == "DEBUG"
    assert "HEADRACE_HOME" not in environment, "it is a folder of another machine"
    assert body["HostConfig"]["ExtraHosts"] == ["host.docker.internal:host-gateway"]
    assert body["Labels"]["headrace.dev/fence"] == "5"


@pytest.mark.parametrize("mode", ["host", "container:db"])
def test_a_container_in_the_network_of_its_machine_needs_no_other_name_for_it(mode: str) -> None:
    body = container_body(configured(network_mode=mode))
    assert "HEADRACE_API_URL=127.0.0.1:42" in body["Env"]
    assert body["HostConfig"]["NetworkMode"] == mode
    assert "ExtraHosts" not in body["HostConfig"]


def test_a_server_elsewhere_keeps_its_address() -> None:
    body = container_body(configured(env={"HEADRACE_API_URL": "prod.example:4200"}, networks=["a", "b"]))
    assert "HEADRACE_API_URL=prod.example:4200" in body["Env"]
    assert body["HostConfig"]["NetworkMode"] == "a"


def test_limits_rights_and_options_are_the_engines() -> None:
    body = container_body(
        configured(
            mem_limit="512m",
            memswap_limit="1.5g",
            privileged=True,
            volumes=["/data:/data:ro"],
            user="1000:1000",
            auto_remove=True,
            container_create_kwargs={
                "shm_size": "1g",
                "entrypoint": "tini --",
                "extra_hosts": {"db": "10.0.0.1"},
                "HostConfig": {"Binds": ["/more:/more"], "CpusetCpus": "0"},
            },
        )
    )
    host = body["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (512 * 1024**2, 1536 * 1024**2)
    assert host["Binds"] == ["/data:/data:ro", "/more:/more"]
    assert host["ExtraHosts"] == ["host.docker.internal:host-gateway", "db:10.0.0.1"]
    assert (host["ShmSize"], host["CpusetCpus"], host["Privileged"]) == (1024**3, "0", True)
    assert (body["User"], body["Entrypoint"]) == ("1000:1000", ["tini", "--"])
    assert "AutoRemove" not in host, "the worker removes it, when it knows how it ended"
    assert body["Labels"]["headrace.dev/auto-remove"] == "true"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"mem_limit": "much"}, "'much' is no size"),
        ({"volumes": ["nowhere"]}, "volumes"),
        ({"networks": ["a"], "network_mode": "host"}, "in no other networks"),
        ({"image_pull_policy": "Sometimes"}, "image_pull_policy"),
        ({"container_create_kwargs": {"shm_sise": 1}}, "did you mean 'shm_size'?"),
        ({"registry_credentials": {"username": "me"}}, "password"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_container_is_made(
    variables: dict[str, Any], words: str
) -> None:
    with pytest.raises((ValidationError, ValueError), match=words.replace("?", r"\?")):
        configured(**variables)


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("repo/app", "Always"),
        ("host:5000/app", "Always"),
        ("host:5000/app:latest", "Always"),
        ("host:5000/app:3", "IfNotPresent"),
        ("app@sha256:12ab", "IfNotPresent"),
        (None, "IfNotPresent"),
    ],
)
def test_images_that_may_have_changed_are_pulled(image: str | None, policy: str) -> None:
    assert DockerJobConfiguration(image=image).pull_policy == policy
    assert DockerJobConfiguration(image=image, image_pull_policy="Never").pull_policy == "Never"


def test_credentials_are_for_the_registry_of_the_image_unless_they_say_otherwise() -> None:
    said: dict[str, Any] = {"username": "me", "password": "secret"}
    own = configured(registry_credentials=said).registry_credentials
    assert own is not None
    assert own.as_auth("host:5000/app")["serveraddress"] == "host:5000"
    assert own.as_auth("library/app")["serveraddress"] == "docker.io"
    other = configured(registry_credentials={**said, "registry_url": "other"}).registry_credentials
    assert other is not None
    assert other.as_auth("host:5000/app")["serveraddress"] == "other"
    assert "secret" not in repr(own)


def test_names_are_such_as_the_engine_takes() -> None:
    assert container_name(DockerJobConfiguration(name="a run/of mine!"), 0) == "a-run-of-mine"
    assert container_name(DockerJobConfiguration(name="x"), 3) == "x-3"
    assert container_name(DockerJobConfiguration(name="!!!"), 0) is None


def frames(*entries: tuple[int, bytes]) -> list[tuple[bool, bytes]]:
    return [(number == 2, data) for number, data in entries]


def lines_of(*entries: tuple[int, bytes]) -> list[tuple[str, bool, int | None]]:
    rests = {False: OutputLines(), True: OutputLines()}
    return [
        (line.text, line.is_error, line.time_ns)
        for is_error, data in frames(*entries)
        for line in rests[is_error].take(data, is_error)
    ]


def test_output_is_taken_apart_into_lines_with_their_times() -> None:
    second = 1_790_000_000 * 10**9
    assert lines_of(
        (1, b"2026-09-21T14:13:20.5Z one\n"),
        (2, b"2026-09-21T14:13:20.000000001Z to stderr\n"),
        # A line that was written in two parts, with another stream's between them.
        (1, b"2026-09-21T14:13:21Z two, "),
        (2, b"2026-09-21T16:13:21.25+02:00 more\n"),
        (1, b"2026-09-21T14:13:22Z and its end\n"),
        (1, b"2026-09-21T14:13:23Z \xff\xfe\r\n"),
    ) == [
        ("one", False, second + 500_000_000),
        ("to stderr", True, second + 1),
        ("more", True, second + 1_250_000_000),
        ("two, and its end", False, second + 10**9),
        ("\\xff\\xfe", False, second + 3 * 10**9),
    ]
