"""The Kubernetes worker on a cluster whose pods are processes: ends, causes, watches, finding again."""

from __future__ import annotations

import asyncio
import copy
import json
import pathlib
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from headrace.client.api import HeadraceClient
from headrace.core.errors import ConfigurationError
from headrace.core.ids import new_id
from headrace.core.job_templates import base_job_template
from headrace.v1.work_pool_pb2 import WorkPool
from headrace_workers.actions import Attempt
from headrace_workers.infrastructure.worker import (
    EngineUnavailable,
    InfrastructureEnd,
    InfrastructureGone,
)
from headrace_workers.kubernetes import worker as worker_module
from headrace_workers.kubernetes.api import connect
from headrace_workers.kubernetes.failures import Refused
from headrace_workers.registry import find_worker_type
from tests.support.kubernetes import StubCluster
from tests.support.kubernetes.bench import Bench, assigned, bench_on, eventually
from tests.support.kubernetes.cluster import TOKEN
from tests.support.kubernetes.server import read_rules
from tests.support.tools import ROOT
from tests.support.worker_processes import is_running

RBAC = ROOT / "deploy" / "kubernetes"
PATIENT = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubCluster]:
    """Its worker may do what the shipped role says, and nothing else."""
    rules = read_rules(RBAC / "worker-rbac.yaml")
    with StubCluster(tmp_path_factory.mktemp("cluster"), rules) as cluster:
        yield cluster


@pytest.fixture
async def bench(
    cluster: StubCluster, client: HeadraceClient, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.write_kubeconfig(tmp_path / "config")))
    pool = f"pool {new_id()}"
    wanted = WorkPool(name=pool, type="kubernetes")
    ParseDict(base_job_template("kubernetes"), wanted.base_job_template)
    await client.create_work_pool(wanted)
    async with bench_on(cluster, pool) as bench:
        yield bench


def test_the_type_is_found_by_its_name() -> None:
    assert find_worker_type("kubernetes").get_default_base_job_template() == base_job_template("kubernetes")


# How it ends


ENDS: list[tuple[str, int, str, bool]] = [
    ("true", 0, "", False),
    ("sh -c 'exit 3'", 3, "", False),
    ("sh -c 'kill -SEGV $$'", 139, "", False),
    ("no-such-program", 128, "executable file not found in $PATH", True),
]


@pytest.mark.parametrize(("command", "code", "words", "never_started"), ENDS)
async def test_how_a_job_ends(bench: Bench, command: str, code: int, words: str, never_started: bool) -> None:
    handed = await bench.hand(command)
    end = await handed.end()
    assert (end.exit_code, end.never_started) == (code, never_started)
    assert words in end.reason
    # It stays for people to see, as nobody has set a time to live, but nobody finds it any more.
    await bench.worker.clean_up(handed.id, handed.configuration)
    assert handed.is_there()


async def test_memory_that_ran_out_and_an_eviction_are_told_apart(bench: Bench) -> None:
    hog, guest = await bench.hand("sleep 600"), await bench.hand("sleep 600")
    bench.cluster.oom(await hog.pod())
    bench.cluster.evict(await guest.pod())
    killed, evicted = await hog.end(), await guest.end()
    assert killed == InfrastructureEnd(137, "The container has used up its memory limit (OOMKilled).")
    assert evicted.reason.startswith("The pod was evicted: The node was low on resource: memory.")
    assert not evicted.never_started


NEVER: list[tuple[dict[str, Any], str]] = [
    ({"image": "flosw:1"}, 'within 0.2 s: ImagePullBackOff: Back-off pulling image "flosw:1"'),
    ({"cpu_request": "64"}, "within 0.2 s: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."),
    ({"memory_request": "64Gi"}, "Insufficient memory"),
    ({"image": "flosw:1", "image_pull_policy": "Never"}, "The pod cannot start: ErrImageNeverPull"),
    ({"image": "Flows: 1"}, "The pod cannot start: InvalidImageName"),
]


@pytest.mark.parametrize(("variables", "words"), NEVER)
async def test_why_a_pod_does_not_start(bench: Bench, variables: dict[str, Any], words: str) -> None:
    is_hopeless = "cannot start" in words
    handed = await bench.hand("true", pod_watch_timeout_seconds=PATIENT if is_hopeless else 0.2, **variables)
    end = await handed.end()
    assert words in end.reason
    assert (end.exit_code, end.never_started) == (None, True)
    assert not handed.is_there()
    await bench.worker.clean_up(handed.id, handed.configuration)


async def test_events_tell_what_statuses_do_not(bench: Bench) -> None:
    template = base_job_template("kubernetes")
    spec = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    spec["volumes"] = [{"name": "v", "secret": {"secretName": "not-there"}}]
    assignment = assigned({"image": "flows:1", "command": "true", "pod_watch_timeout_seconds": 0.2})
    configuration = bench.worker.configure(assignment, template)
    end = await bench.worker.watch(await bench.worker.create(configuration, assignment), configuration)
    assert 'FailedMount: MountVolume.SetUp failed for volume "not-there"' in end.reason


async def test_a_job_may_take_so_long_and_no_longer(bench: Bench) -> None:
    handed = await bench.hand("sleep 600", job_watch_timeout_seconds=0)
    assert "took longer than it may: job_watch_timeout_seconds" in (await handed.end()).reason


async def test_kubernetes_may_try_again(bench: Bench, tmp_path: pathlib.Path) -> None:
    script = f"sh -c 'echo try; test -e {tmp_path}/again && exit 0; touch {tmp_path}/again; exit 1'"
    handed = await bench.hand(script, backoff_limit=1)
    end, lines = await asyncio.gather(handed.end(), handed.printed())
    assert end == InfrastructureEnd(0)
    assert lines == ["try", "try"]


# What it prints


async def test_what_it_prints_is_read_as_it_comes_and_from_any_instant(
    bench: Bench, tmp_path: pathlib.Path
) -> None:
    go = tmp_path / "go"
    handed = await bench.hand(f"sh -c 'echo one; until test -e {go}; do sleep 0.02; done; echo two >&2'")
    reading = asyncio.ensure_future(handed.printed())
    await eventually(lambda: handed.lines == ["one"])
    go.touch()
    assert await reading == ["one", "two"]
    assert await handed.end() == InfrastructureEnd(0)
    times: list[int | None] = []
    async for lines in bench.worker.read_logs(handed.id, handed.configuration, None):
        times += [line.time_ns for line in lines]
    assert times[1] is not None
    handed.lines.clear()
    assert await handed.printed(since_ns=times[1]) == ["two"]


# The cluster is forgetful, away, or has lost an answer


async def test_a_watch_goes_on_when_the_cluster_forgets_and_when_it_was_away(
    bench: Bench, tmp_path: pathlib.Path
) -> None:
    go, cluster = tmp_path / "go", bench.cluster
    handed = await bench.hand(f"sh -c 'until test -e {go}; do sleep 0.02; done; echo done; exit 4'")
    watching = asyncio.ensure_future(handed.end())
    reading = asyncio.ensure_future(handed.printed())
    await handed.pod()
    await eventually(lambda: bench.watches == 2)
    cluster.bookmark()
    lists = _lists(cluster)
    cluster.compact()
    # Both are told that their version is gone, list again, and watch from there.
    await eventually(lambda: _lists(cluster) == lists + 2 and bench.watches == 2)
    cluster.hang_up()
    with pytest.raises(EngineUnavailable, match="does not answer"):
        await watching
    with pytest.raises(EngineUnavailable, match="does not answer"):
        await reading
    go.touch()
    await eventually(lambda: _failed(cluster, handed.uid))
    cluster.listen()
    end, lines = await asyncio.gather(_patiently(handed), handed.printed())
    assert (end.exit_code, lines) == (4, ["done"])


async def _patiently(handed: Any) -> InfrastructureEnd:
    while True:
        try:
            return await handed.end()  # type: ignore[no-any-return]
        except EngineUnavailable:
            await asyncio.sleep(0.02)


def _lists(cluster: StubCluster) -> int:
    return sum(
        r.startswith("GET") and "watch=" not in r and "limit=500" in r for r in cluster.server.requests
    )


def _failed(cluster: StubCluster, uid: str) -> bool:
    [job] = [job for job in cluster.jobs() if job["metadata"]["uid"] == uid]
    return bool(job["status"].get("failed"))


async def test_a_watch_from_where_it_was_when_it_just_ends(bench: Bench) -> None:
    handed = await bench.hand("sleep 600")
    watching = asyncio.ensure_future(handed.end())
    pod = await handed.pod()
    await eventually(lambda: bench.watches == 2)
    bench.cluster.bookmark()
    lists = _lists(bench.cluster)
    bench.cluster.end_watches()
    await eventually(lambda: bench.watches == 2)
    bench.cluster.signal(pod, signal.SIGTERM)
    assert (await watching).exit_code == 143
    assert _lists(bench.cluster) == lists


async def test_a_lost_answer_makes_no_second_job(bench: Bench) -> None:
    bench.cluster.server.lose_answers = 1
    handed = await bench.hand("true")
    assert bench.cluster.server.lose_answers == 0
    assert await handed.end() == InfrastructureEnd(0)
    made = [job for job in bench.cluster.jobs() if handed.assignment.run.id in json.dumps(job)]
    assert len(made) == 1


async def test_a_job_of_somebody_else_is_not_taken_for_ours(bench: Bench) -> None:
    handed = await bench.hand("true")
    other = assigned({"image": "flows:1"})
    configuration = bench.worker.configure(other, {})
    configuration.job_manifest["metadata"]["name"] = handed.id.split(":")[2]
    with pytest.raises(Refused, match="already exists"):
        await bench.worker.create(configuration, other)


async def test_a_cluster_that_is_not_able_to_is_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.cluster.server, "failing", 503)
    making = asyncio.ensure_future(bench.hand("true"))
    await eventually(lambda: any("503" in line for line in bench.told))
    bench.cluster.server.failing = None
    assert await (await making).end() == InfrastructureEnd(0)
    monkeypatch.setattr(worker_module, "CREATE_SECONDS", 0.0)
    bench.cluster.server.failing = 503
    with pytest.raises(EngineUnavailable, match="currently unable to handle the request"):
        await bench.hand("true")


# What the cluster refuses

NEEDED = [("jobs", "create"), ("jobs", "list"), ("jobs", "watch"), ("pods", "list"), ("pods", "watch")]


@pytest.mark.parametrize(("resource", "verb"), NEEDED)
async def test_a_missing_right_is_named_with_the_rule_that_gives_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, resource: str, verb: str
) -> None:
    rules = copy.deepcopy(bench.cluster.server.rules)
    for rule in rules:
        if resource in rule["resources"]:
            rule["verbs"].remove(verb)
    monkeypatch.setattr(bench.cluster.server, "rules", rules)
    with pytest.raises((Refused, EngineUnavailable)) as refused:
        handed = await bench.hand("sleep 600")
        await handed.end()
    group = "batch" if resource == "jobs" else ""
    rule = json.dumps({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
    assert f"It needs a Role in the namespace 'default' with the rule {rule}." in str(refused.value)


async def test_a_namespace_that_the_account_has_nothing_to_do_with(bench: Bench) -> None:
    with pytest.raises(Refused, match="a Role in the namespace 'elsewhere' with the rule"):
        await bench.hand("true", namespace="elsewhere")


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"cpu_limit": "two"}, r"not valid \(422\): spec.template.spec.containers\[0\].resources.limits\[cpu\]"),
    ({"env": {"A=B": "1"}}, r"containers\[0\].env\[.\].name: Invalid value: 'A=B'"),
]


@pytest.mark.parametrize(("variables", "words"), INVALID)
async def test_a_manifest_that_is_not_valid(bench: Bench, variables: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        await bench.hand("true", **variables)


async def test_a_field_that_kubernetes_does_not_know_is_named(bench: Bench) -> None:
    template = base_job_template("kubernetes")
    template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["nodeSelectr"] = {"a": "b"}
    assignment = assigned({"image": "flows:1"})
    with pytest.raises(Refused, match=r'unknown field "spec\.template\.spec\.nodeSelectr"'):
        await bench.worker.create(bench.worker.configure(assignment, template), assignment)


async def test_credentials_that_are_not_good_any_more(bench: Bench) -> None:
    config = bench.cluster.kubeconfig()
    config["users"][0]["user"]["token"] = "stale"
    with pytest.raises(Refused, match="does not accept the worker's credentials"):
        await bench.hand("true", cluster_config=config)


async def test_a_run_is_not_taken_for_ended_because_its_worker_may_not_look(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = await bench.hand("sleep 600")
    async with bench_on(bench.cluster, bench.worker.facts.work_pool) as other:
        monkeypatch.setattr(bench.cluster.server, "failing", 401)
        with pytest.raises(EngineUnavailable, match="does not accept the worker's credentials"):
            await other.worker.watch(handed.id, handed.configuration)
    assert handed.is_there()


async def test_credentials_that_end_are_asked_for_again(bench: Bench, tmp_path: pathlib.Path) -> None:
    given = tmp_path / "token"
    program = tmp_path / "credentials"
    kind = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    program.write_text(f"#!/bin/sh\necho x >> {tmp_path}/asked\ncat {given}\n")
    program.chmod(0o755)
    given.write_text(json.dumps({**kind, "status": {"token": "stale"}}))
    config = bench.cluster.kubeconfig()
    config["users"][0]["user"] = {"exec": {"apiVersion": kind["apiVersion"], "command": str(program)}}
    cluster = await connect(config)
    try:
        with pytest.raises(Refused, match="does not accept the worker's credentials"):
            await cluster.list_all("pods", "default")
        given.write_text(json.dumps({**kind, "status": {"token": TOKEN}}))
        await asyncio.gather(*(cluster.list_all("pods", "default") for _ in range(5)))
        await cluster.list_all("pods", "default")
    finally:
        await cluster.close()
    # At first, after the refusal, and once for all the others.
    assert (tmp_path / "asked").read_text() == "x\n" * 3


# Ending it


async def test_a_job_is_ended_within_its_grace_and_gone(bench: Bench) -> None:
    polite = await bench.hand(
        "sh -c 'trap \"echo bye; exit 0\" TERM; echo ready; while true; do sleep 0.02; done'"
    )
    reading = asyncio.ensure_future(polite.printed())
    await eventually(lambda: polite.lines == ["ready"])
    ending = asyncio.ensure_future(polite.end())
    await bench.worker.stop(polite.id, polite.configuration, PATIENT)
    assert await reading == ["ready", "bye"]
    assert (await ending).exit_code == 0
    assert not polite.is_there()
    with pytest.raises(InfrastructureGone):
        await bench.worker.stop(polite.id, polite.configuration, 0)


async def test_without_a_grace_it_is_killed(bench: Bench) -> None:
    stubborn = await bench.hand("sh -c 'trap \"\" TERM; echo ready; while true; do sleep 0.02; done'")
    reading = asyncio.ensure_future(stubborn.printed())
    await eventually(lambda: stubborn.lines == ["ready"])
    process = bench.cluster.pid_of(await stubborn.pod())
    assert process is not None
    ending = asyncio.ensure_future(stubborn.end())
    await eventually(lambda: bench.watches == 2)
    await bench.worker.stop(stubborn.id, stubborn.configuration, 0)
    assert (await ending).exit_code == 137
    assert await reading == ["ready"]
    assert not is_running(process)


async def test_a_job_that_has_ended_is_left_alone(bench: Bench) -> None:
    handed = await bench.hand("true")
    await handed.end()
    await bench.worker.stop(handed.id, handed.configuration, 0)
    assert handed.is_there()


async def test_a_job_that_somebody_has_removed(bench: Bench) -> None:
    handed = await bench.hand("sleep 600")
    await handed.pod()
    ending = asyncio.ensure_future(handed.end())
    await eventually(lambda: bench.watches == 2)
    [job] = [job for job in bench.cluster.jobs() if job["metadata"]["uid"] == handed.uid]
    bench.cluster.delete_job(job)
    assert (await ending).exit_code == 143
    with pytest.raises(InfrastructureGone, match="was removed by somebody"):
        await bench.worker.watch(f"{new_id()}:default:not-there", handed.configuration)


async def test_a_time_to_live_takes_the_job_away_and_nothing_breaks(bench: Bench) -> None:
    handed = await bench.hand("sh -c 'exit 5'", finished_job_ttl=0)
    assert (await handed.end()).exit_code == 5
    await eventually(lambda: not handed.is_there())
    await bench.worker.clean_up(handed.id, handed.configuration)


# Finding it again


async def test_what_a_former_worker_has_left_is_found_and_can_be_torn_down(
    bench: Bench, cluster: StubCluster, client: HeadraceClient
) -> None:
    running, ended = await bench.hand("sleep 600"), await bench.hand("true")
    await ended.end()
    await bench.worker.clean_up(ended.id, ended.configuration)
    other = await client.create_work_pool(WorkPool(name=f"pool-{new_id()}", type="kubernetes"))
    async with bench_on(cluster, other.work_pool.name) as elsewhere:
        assert await elsewhere.worker.find() == []
    async with bench_on(cluster, bench.worker.facts.work_pool) as later:
        [found] = await later.worker.find()
        assert found.infrastructure_id == running.id
        assert found.attempt == Attempt(running.assignment.run.id, 1, 1)
        assert await later.worker.teardown(found.infrastructure_id)
        assert not running.is_there()
        assert not await later.worker.teardown(found.infrastructure_id)
        assert not await later.worker.teardown("no id of a job")


async def test_another_job_of_the_same_name_is_not_ended(bench: Bench) -> None:
    handed = await bench.hand("sleep 600")
    stale = f"{new_id()}:{handed.id.partition(':')[2]}"
    assert not await bench.worker.teardown(stale)
    assert handed.is_there()


async def test_jobs_of_all_namespaces_are_found_where_the_account_may(
    bench: Bench, cluster: StubCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = read_rules(RBAC / "worker-rbac-all-namespaces.yaml", "ClusterRole")
    monkeypatch.setattr(cluster.server, "cluster_rules", rules)
    async with bench_on(cluster, bench.worker.facts.work_pool) as first:
        handed = await first.hand("sleep 600", namespace="far-away")
    async with bench_on(cluster, bench.worker.facts.work_pool) as second:
        [found] = await second.worker.find()
        assert found.infrastructure_id == handed.id
        assert await second.worker.teardown(found.infrastructure_id)


# Reaching a cluster


async def test_a_worker_in_a_pod_uses_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(ConfigurationError, match="Service token file does not exist"):
        await connect(None)


async def test_no_cluster_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match="set KUBECONFIG, or give a `cluster_config`"):
        await connect(None)
    with pytest.raises(ConfigurationError, match="cluster_config is no kubeconfig"):
        await connect({"clusters": []})


async def test_an_address_that_means_each_pod_itself_is_warned_of(bench: Bench) -> None:
    for _ in range(2):
        assignment = assigned({"env": {"HEADRACE_API_URL": "127.0.0.1:4200"}})
        configuration = bench.worker.configure(assignment, {})
    assert "HEADRACE_HOME" not in configuration.env
    assert [line for line in bench.told if "127.0.0.1:4200" in line] == bench.told
    assert len(bench.told) == 1
