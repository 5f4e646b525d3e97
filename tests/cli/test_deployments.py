"""Deployments, work pools and work queues from the command line, against a server."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.client import get_client
from headrace.core.job_templates import base_job_template
from headrace.settings import temporary_settings
from headrace.v1.deployment_pb2 import Deployment
from tests.cli.conftest import Answer, Cli
from tests.support.servers import ServerProcess

SCHEMA = json.dumps({"properties": {"limit": {"type": "integer"}, "region": {}}, "required": ["limit"]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def ask(cli: Cli, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command against the server."""
    monkeypatch.setenv("HEADRACE_API_URL", server.address)
    return cli


def apply(server: ServerProcess, name: str = "nightly", **fields: object) -> Deployment:
    said = Deployment(**({"flow_name": "etl", "name": name, "parameter_schema": SCHEMA} | fields))  # type: ignore[arg-type]
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        return client.apply_deployment(said).deployment


def parsed(answer: Answer) -> Any:
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_a_work_pool_from_create_to_delete(ask: Cli, tmp_path: pathlib.Path) -> None:
    made = ask("work-pool", "create", "cpu", "--concurrency-limit", "3", "--description", "d")
    assert (made.code, made.out) == (0, "")
    assert "headrace worker start --pool 'cpu'" in made.err
    assert "there already" in ask("work-pool", "create", "cpu", "-l", "3", "--description", "d").err
    other = ask("work-pool", "create", "cpu", "--type", "docker")
    assert other.code != 0
    assert "'cpu' already" in other.err
    [listed] = parsed(ask("work-pool", "ls", "--name", "cp", "-o", "json"))
    assert (listed["name"], listed["status"], listed["concurrency_limit"]) == ("cpu", "NOT_READY", 3)
    assert "cpu   process" in ask("work-pools", "ls").out
    assert ask("work-pool", "ls", "-q").out == "cpu\n"
    template = tmp_path / "template.json"
    written = ask("work-pool", "get-default-base-job-template", "--type", "docker", "-f", str(template))
    assert written.code == 0
    assert json.loads(template.read_text()) == base_job_template("docker")
    assert ask("work-pool", "update", "cpu", "--base-job-template", str(template)).code == 0
    assert ask("work-pool", "clear-concurrency-limit", "cpu").code == 0
    assert ask("work-pool", "pause", "cpu").code == 0
    shown = parsed(ask("work-pool", "inspect", "cpu", "-o", "json"))
    assert (shown["status"], shown.get("concurrency_limit")) == ("PAUSED", None)
    assert "image" in shown["base_job_template"]["variables"]["properties"]
    assert ask("work-pool", "resume", "cpu").code == 0
    assert "Status          not ready" in ask("work-pool", "inspect", "cpu").out
    refused = ask("work-pool", "delete", "cpu")
    assert refused.code != 0
    assert ask("work-pool", "delete", "cpu", "--yes").code == 0
    assert parsed(ask("work-pool", "ls", "-o", "json")) == []


def test_a_work_queue_from_create_to_delete(ask: Cli) -> None:
    ask("work-pool", "create", "lines")
    made = ask("work-queue", "create", "fast", "--pool", "lines", "--priority", "1", "-l", "2")
    assert "with priority 1" in made.err
    listed = parsed(ask("work-queue", "ls", "-p", "lines", "-o", "json"))
    assert [(queue["name"], queue["priority"]) for queue in listed] == [("fast", 1), ("default", 2)]
    assert ask("work-queue", "update", "fast", "--pool", "lines", "--name", "slow", "-q", "5").code == 0
    assert ask("work-queue", "clear-concurrency-limit", "slow", "--pool", "lines").code == 0
    shown = ask("work-queue", "inspect", "slow", "--pool", "lines").out
    assert "Priority   5" in shown
    assert "Limit      none" in shown
    assert ask("work-queue", "pause", "slow", "--pool", "lines").code == 0
    assert "paused" in ask("work-queue", "ls", "-p", "lines").out
    assert ask("work-queue", "resume", "slow", "--pool", "lines").code == 0
    assert "'default'" in ask("work-queue", "delete", "default", "-p", "lines", "-y").err
    assert ask("work-queue", "delete", "slow", "-p", "lines", "-y").code == 0


def test_a_deployment_and_its_versions(ask: Cli, server: ServerProcess) -> None:
    apply(server, path="/one", tags=["a"])
    apply(server, path="/two", tags=["a"])
    [listed] = parsed(ask("deployment", "ls", "--flow", "etl", "--tag", "a", "-o", "json"))
    assert (listed["name"], listed["version_number"]) == ("nightly", 2)
    assert "etl/nightly" in ask("deployments", "ls").out
    for word in ("nightly", "etl/nightly", listed["id"]):
        assert "Path       /two" in ask("deployment", "inspect", word).out
    kept = parsed(ask("deployment", "versions", "nightly", "-o", "json"))
    assert [version["number"] for version in kept] == [2, 1]
    back = ask("deployment", "rollback", "nightly", "--to", "1")
    assert 'path: "/two" -> "/one"' in back.err
    assert "nothing changed" in ask("deployment", "rollback", "nightly", "--to", "1").err
    assert ask("deployment", "pause", "etl/nightly").code == 0
    assert "Status     paused" in ask("deployment", "inspect", "nightly").out
    assert ask("deployment", "resume", "nightly").code == 0
    asked = ask("deployment", "run", "nightly", "-p", "limit=1")
    assert asked.code == 0
    deleted = ask("deployment", "delete", "nightly", "-y", "-o", "json")
    assert parsed(deleted) == [{"id": listed["id"], "name": "etl/nightly", "deleted_runs": 1}]


def test_runs_are_asked_for(ask: Cli, server: ServerProcess) -> None:
    ask("work-pool", "create", "pool")
    apply(server, "asked", work_pool="pool", parameters='{"region": "eu"}')
    made = parsed(
        ask(
            *("deployment", "run", "asked", "-p", "limit=3", "--params", '{"region": "us"}', "--tag", "x"),
            *("--job-variable", "env.LEVEL=debug", "--start-in", "2 hours", "--name", "mine", "-o", "json"),
        )
    )
    assert made["parameters"] == {"limit": 3, "region": "us"}
    assert (made["name"], made["tags"], made["job_variables"]) == ("mine", ["x"], {"env.LEVEL": "debug"})
    first = ask("deployment", "run", "asked", "-p", "limit=1", "--idempotency-key", "k").out
    again = ask("deployment", "run", "asked", "-p", "limit=1", "--idempotency-key", "k")
    assert (again.out, "is there already" in again.err) == (first, True)
    waiting = ask("work-pool", "preview", "pool", "-q").out.split()
    assert waiting == [first.strip(), made["id"]]
    late = ask("deployment", "run", "asked", "-p", "limit=1", "--watch", "--watch-timeout", "0.3")
    assert (late.code, "has not ended after 0.3 s" in late.err) == (124, True)


MISTAKES: list[tuple[list[str], int, str]] = [
    (["work-pool", "inspect", "pol"], 3, "Did you mean 'pool'?"),
    (["work-pool", "update", "pool"], 2, "nothing to change"),
    (["work-pool", "create", "headrace-x"], 2, "must not begin"),
    (["work-pool", "get-default-base-job-template", "--type", "dcker"], 2, "docker"),
    (["work-pool", "create", "x", "--base-job-template", "missing.json"], 2, "cannot be read"),
    (["work-queue", "inspect", "defalt", "--pool", "pool"], 3, "default"),
    (["work-queue", "update", "default", "--pool", "pool"], 2, "nothing to change"),
    (["deployment", "inspect", "etl/mistakn"], 3, "etl/mistaken"),
    (["deployment", "inspect", "nobody"], 3, "There is no deployment 'nobody'"),
    (["deployment", "run", "mistaken"], 2, "parameters.limit: is required"),
    (["deployment", "run", "mistaken", "-p", "limit=x"], 2, "parameters.limit: must be a whole number"),
    (["deployment", "run", "mistaken", "-p", "limits=1"], 2, "did you mean 'limit'?"),
    (["deployment", "run", "mistaken", "--start-in", "soon"], 2, "no length of time"),
    (["deployment", "run", "mistaken", "--start-at", "soon"], 2, "no time"),
    (["deployment", "run", "mistaken", "--start-at", "2030-01-01", "--start-in", "1h"], 2, "not both"),
    (["deployment", "rollback", "mistaken"], 1, "one version only"),
]


def test_who_watches_a_run_that_does_not_begin_is_told_why(
    ask: Cli, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask("work-pool", "create", "nobody").code == 0
    apply(server, "lonely", work_pool="nobody")
    monkeypatch.setattr("headrace.cli.waiting.FIRST_SECONDS", 0.0)
    monkeypatch.setattr("headrace.cli.waiting.AGAIN_SECONDS", 0.01)
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        raise KeyboardInterrupt

    monkeypatch.setattr("headrace.cli.waiting.say", tell)
    ask("deployment", "run", "etl/lonely", "-p", "limit=1", "--watch", "--watch-timeout", "60")
    assert len(told) == 1 and "nobody" in told[0] and "headrace" in told[0], told


def test_what_was_changed_is_shown_as_json_when_asked_for(ask: Cli, server: ServerProcess) -> None:
    for name in ("one", "two"):
        assert ask("work-pool", "create", name).code == 0
        apply(server, name)
    ask("work-queue", "create", "slow", "--pool", "one")
    queue = ("slow", "--pool", "one")
    several = (
        (("work-pool", "pause", "one", "two"), 2, True),
        (("work-pool", "resume", "one"), 1, False),
        (("work-queue", "pause", *queue), 1, True),
        (("work-queue", "resume", *queue), 1, False),
        (("deployment", "pause", "etl/one", "etl/two"), 2, True),
        (("deployment", "resume", "etl/one"), 1, False),
    )
    for words, count, is_paused in several:
        assert [one["paused"] for one in json.loads(ask(*words, "-o", "json").out)] == [is_paused] * count
        assert len(ask(*words, "-o", "jsonl").out.splitlines()) == count
    for words, limit in (
        (("work-pool", "set-concurrency-limit", "one", "3"), 3),
        (("work-pool", "update", "one", "--concurrency-limit", "4"), 4),
        (("work-pool", "clear-concurrency-limit", "one"), None),
        (("work-queue", "set-concurrency-limit", "slow", "3", "--pool", "one"), 3),
        (("work-queue", "update", *queue, "--concurrency-limit", "4"), 4),
        (("work-queue", "clear-concurrency-limit", *queue), None),
    ):
        assert json.loads(ask(*words, "-o", "json").out)["concurrency_limit"] == limit
    stopped = ask("work-pool", "pause", "one", "absent", "-o", "json")
    assert stopped.code == 3 and len(json.loads(stopped.out)) == 1, "what was done before the mistake"


def test_mistakes_are_told(ask: Cli, server: ServerProcess) -> None:
    ask("work-pool", "create", "pool")
    apply(server, "mistaken")
    for words, code, said in MISTAKES:
        answer = ask(*words)
        assert said in answer.err, (words, answer)
        assert "Traceback" not in answer.err
        assert answer.code == code, (words, answer)
