"""A program with submitted tasks and log lines, on a real server: what can be asked afterwards."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from headrace.client import get_client
from headrace.runtime import flow_run
from headrace.settings import temporary_settings
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLED, STATE_TYPE_COMPLETED
from tests.support.servers import ServerProcess, run_headrace

PROGRAM = """
import json, sys
from headrace import allow_failure, flow, get_run_logger, tags, task
from headrace.runtime import flow_run
from headrace.task_runners import ThreadPoolTaskRunner

@task
def load(i):
    get_run_logger().info("loading %s", i, extra={"shard": i})
    return {"rows": [i]}

@task(retries=1)
async def flaky(part):
    from headrace.runtime import task_run
    get_run_logger().warning("attempt %s", task_run.run_count)
    if task_run.run_count == 1:
        raise ValueError("first time")
    return sum(part["rows"])

@task
def report(values, note):
    print("total", sum(values), "\\0 and \\udc80")
    return sum(values)

@flow(log_prints=True)
def pipeline(count: int):
    parts = load.map(range(count))
    sums = flaky.map(parts)
    with tags("last"):
        total = report.submit(sums, note="x" * 40_000)
    get_run_logger().info("y" * 100_000)
    return total.result()

@task
def hold(i, until):
    if i == 0:
        until.join(30)

@flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
def left_behind():
    import threading
    never = threading.Event()
    gate = threading.Thread(target=never.wait, daemon=True)
    gate.start()
    futures = [hold.submit(i, gate) for i in range(5)]
    futures[-1].add_done_callback(lambda _: never.set())

total = pipeline(4)
left_behind()
print(json.dumps({"total": total}))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def done(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program printed."""
    script = tmp_path_factory.mktemp("program") / "pipeline.py"
    script.write_text(PROGRAM)
    ended = subprocess.run(
        [sys.executable, str(script)], env=server.environment, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


@pytest.fixture
def client(server: ServerProcess, done: dict[str, Any]) -> Iterator[Any]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as opened:
        yield opened


def runs_of(client: Any, name: str) -> list[Run]:
    found = client.iter_runs(RunFilter(task_names=[name]))
    return sorted((client.get_run(run.id) for run in found), key=lambda run: run.id)


def the_flow(client: Any, name: str) -> Run:
    (found,) = client.iter_runs(RunFilter(flow_names=[name], top_level_only=True))
    run: Run = client.get_run(found.id)
    return run


def inputs(run: Run) -> dict[str, list[str]]:
    return {edge.parameter: list(edge.run_ids) for edge in run.inputs}


def test_every_item_is_a_run_with_its_edges(client: Any, done: dict[str, Any]) -> None:
    assert done == {"total": 6}
    loads, flakies, (report,) = (runs_of(client, name) for name in ("load", "flaky", "report"))
    assert len(loads) == len(flakies) == 4
    assert [inputs(run) for run in flakies] == [{"part": [load.id]} for load in loads]
    assert inputs(report) == {"values": [run.id for run in flakies]}
    assert {run.state.type for run in [*loads, *flakies, report]} == {STATE_TYPE_COMPLETED}
    assert [run.run_count for run in flakies] == [2] * 4
    assert list(report.tags) == ["last"]
    assert {run.root_run_id for run in [*loads, report]} == {the_flow(client, "pipeline").id}


def test_lines_are_kept_with_run_attempt_and_fields(client: Any) -> None:
    pipeline = the_flow(client, "pipeline")
    lines = list(client.iter_logs(LogFilter(root_run_ids=[pipeline.id])))
    by_run = {run.id: run for name in ("load", "flaky", "report") for run in runs_of(client, name)}
    loading = [line for line in lines if line.message.startswith("loading")]
    assert sorted((line.message, MessageToDict(line.fields)["shard"]) for line in loading) == [
        (f"loading {i}", float(i)) for i in range(4)
    ]
    assert all(by_run[line.run_id].task_name == "load" for line in loading)
    tries = [line for line in lines if line.message.startswith("attempt")]
    assert sorted((line.message, line.attempt) for line in tries) == [
        *[("attempt 1", 1)] * 4,
        *[("attempt 2", 2)] * 4,
    ]
    assert {line.level for line in tries} == {30}
    assert {line.root_run_id for line in lines} == {pipeline.id}


def test_lines_are_found_by_their_fields(client: Any, server: ServerProcess) -> None:
    run_id = the_flow(client, "pipeline").id
    found = run_headrace(
        *("flow-run", "logs", run_id, "--field", "shard=2", "-o", "jsonl"), environment=server.environment
    )
    assert found.returncode == 0, found.stderr
    assert [json.loads(line)["message"] for line in found.stdout.splitlines()] == ["loading 2"]
    wrong = run_headrace("flow-run", "logs", run_id, "--field", "shard", environment=server.environment)
    assert (wrong.returncode, "NAME=VALUE" in wrong.stderr) == (2, True)


def test_lines_that_are_hard_to_keep_are_kept(client: Any) -> None:
    pipeline = the_flow(client, "pipeline")
    messages = [line.message for line in client.iter_logs(LogFilter(root_run_ids=[pipeline.id]))]
    assert "total 6 \\x00 and \\udc80" in messages
    (long,) = [message for message in messages if message.startswith("yyy")]
    assert long.endswith("... [cut: 100000 bytes]")
    assert len(long) == 32 * 1024


def test_what_was_left_in_the_queue_is_cancelled(client: Any) -> None:
    states = [run.state for run in runs_of(client, "hold")]
    assert [state.type for state in states] == [STATE_TYPE_COMPLETED] + [STATE_TYPE_CANCELLED] * 4
    assert all("the flow ended before it started" in state.message for state in states[1:])


def test_a_process_started_for_a_run_looks_the_rest_up(
    client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    pipeline = the_flow(client, "pipeline")
    monkeypatch.setenv("HEADRACE__FLOW_RUN_ID", pipeline.id)
    assert flow_run.name == pipeline.name
    assert flow_run.flow_name == "pipeline"
    assert flow_run.run_count == 1
    assert flow_run.parameters == {"count": 4}
    assert flow_run.root_flow_run_id == pipeline.id
    assert flow_run.scheduled_start_time == pipeline.expected_start_time.ToDatetime(
        flow_run.scheduled_start_time.tzinfo
    )
    assert flow_run.job_variables == {}
