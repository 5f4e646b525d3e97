"""The example that `make run` runs: for real, on a real server, then looked at as a user would."""

from __future__ import annotations

import csv
import json
import pathlib
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from headrace.v1.log_pb2 import LogFilter
from headrace.v1.log_service_pb2 import ListLogsRequest
from headrace.v1.log_service_pb2_grpc import LogServiceStub
from headrace.v1.run_pb2 import Run, RunFilter, RunKind
from headrace.v1.run_service_pb2 import GetRunGraphRequest, ListRunsRequest, ListStatesRequest
from headrace.v1.run_service_pb2_grpc import RunServiceStub
from headrace.v1.span_pb2 import SpanStatus
from headrace.v1.span_service_pb2 import ListSpansRequest, SpanFilter
from headrace.v1.span_service_pb2_grpc import SpanServiceStub
from headrace.v1.state_pb2 import StateType
from tests.support.postgres import Cluster
from tests.support.servers import ServerProcess, run_headrace
from tests.support.tools import ROOT, tool

DATA = ROOT / "examples" / "data" / "seattle-weather.csv"
YEARS = ["2012", "2013", "2014", "2015"]


@dataclass(frozen=True)
class Recorded:
    """What one run of the example has left.

    Attributes:
        server: the server it was recorded by, still running.
        output: the folder of its report.
        printed: what `headrace run` wrote to stdout and stderr.
    """

    server: ServerProcess
    output: pathlib.Path
    printed: str

    def ask(self, *words: str) -> Any:
        done = run_headrace(*words, "-o", "json", environment=self.server.environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    if request.param == "sqlite":
        yield from _run_example(tmp_path_factory.mktemp("weather"), None)
    else:
        cluster: Cluster = request.getfixturevalue("postgres_cluster")
        with cluster.database() as url:
            yield from _run_example(tmp_path_factory.mktemp("weather"), url)


def _run_example(folder: pathlib.Path, database_url: str | None) -> Iterator[Recorded]:
    output = folder / "out"
    with ServerProcess(folder / "home", database_url) as server:
        environment = {**server.environment, "HEADRACE_TRACES_EXPORTER": "server"}
        flow = f"{ROOT / 'examples' / 'weather.py'}:pipeline"
        done = run_headrace("run", flow, "-p", f"output={output}", environment=environment, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Recorded(server, output, done.stdout + done.stderr)


@pytest.fixture
def channel(recorded: Recorded) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(recorded.server.address) as channel:
        yield channel


def test_the_report_agrees_with_the_data(recorded: Recorded) -> None:
    rain: defaultdict[str, float] = defaultdict(float)
    with DATA.open(newline="") as file:
        for row in csv.DictReader(file):
            rain[row["date"][:4]] += float(row["precipitation"])
    summaries = json.loads((recorded.output / "weather.json").read_text())
    assert [summary["period"] for summary in summaries] == YEARS
    assert [summary["days"] for summary in summaries] == [366, 365, 365, 365]
    for summary in summaries:
        assert summary["rain_mm"] == pytest.approx(rain[summary["period"]], abs=0.2)
    assert "| 2014" in (recorded.output / "weather.md").read_text()
    assert not list((recorded.output / "landing").iterdir())


def test_the_terminal_shows_what_came_of_it(recorded: Recorded) -> None:
    assert "the wettest year was 2014" in recorded.printed
    assert "mean high, °C" in recorded.printed


def test_every_run_is_listed_and_complete(recorded: Recorded, channel: grpc.Channel) -> None:
    runs = _runs(channel)
    flows = Counter(run.flow_name for run in runs if run.kind == RunKind.RUN_KIND_FLOW)
    tasks = Counter(run.task_name for run in runs if run.kind == RunKind.RUN_KIND_TASK)
    assert flows == {"pipeline": 1, "summarise-year": 4}
    assert tasks == {
        "upload": 1,
        "read_rows": 1,
        "check_rows": 1,
        "split_by_year": 1,
        "load_days": 4,
        "summarise_month": 48,
        "join_months": 4,
        "write_report": 1,
    }
    assert {run.state.type for run in runs} == {StateType.STATE_TYPE_COMPLETED}
    listed = recorded.ask("flow-run", "ls")
    assert {run["id"] for run in listed} == {run.id for run in runs if run.kind == RunKind.RUN_KIND_FLOW}


def test_the_subflows_hang_below_the_pipeline(recorded: Recorded, channel: grpc.Channel) -> None:
    runs = _runs(channel)
    [pipeline] = [run for run in runs if run.flow_name == "pipeline" and not run.parent_run_id]
    subflows = [
        run for run in runs if run.flow_name == "summarise-year" and run.kind == RunKind.RUN_KIND_FLOW
    ]
    assert sorted(run.name for run in subflows) == [f"year {year}" for year in YEARS]
    assert {run.parent_run_id for run in subflows} == {pipeline.id}
    assert {run.root_run_id for run in runs} == {pipeline.id}
    graph = RunServiceStub(channel).GetRunGraph(GetRunGraphRequest(run_id=pipeline.id))
    assert {node.run_id for node in graph.nodes} == {run.id for run in runs}


def test_the_first_look_for_the_upload_failed_and_was_retried(
    recorded: Recorded, channel: grpc.Channel
) -> None:
    reading = _task_run(channel, "read_rows")
    states = RunServiceStub(channel).ListStates(ListStatesRequest(run_id=reading.id)).states
    names = [state.name for state in states]
    assert names[-1] == "Completed"
    assert names.count("AwaitingRetry") == names.count("Retrying") == reading.run_count - 1 >= 1
    assert any("NotUploadedYet" in state.message for state in states)


def test_what_depends_on_what_is_recorded(channel: grpc.Channel) -> None:
    reading, checking = _task_run(channel, "read_rows"), _task_run(channel, "check_rows")
    assert {edge.parameter: list(edge.run_ids) for edge in checking.inputs} == {"rows": [reading.id]}


def test_the_log_lines_are_there(recorded: Recorded, channel: grpc.Channel) -> None:
    [pipeline] = recorded.ask("flow-run", "ls", "--flow-name", "pipeline")
    filter = LogFilter(root_run_ids=[pipeline["id"]])
    lines = LogServiceStub(channel).ListLogs(ListLogsRequest(filter=filter, page_size=1000)).logs
    messages = [line.message for line in lines]
    assert "1461 of 1461 rows are good" in messages
    assert any("the wettest year was 2014" in message for message in messages)
    printed = [line for line in lines if "mean high, °C" in line.message]
    assert [line.run_id for line in printed] == [pipeline["id"]], "what the flow printed is a log line of it"
    assert not [line for line in messages if "STATE" in line], "progress is for the terminal"
    shown = recorded.ask("flow-run", "logs", pipeline["id"])
    assert len(shown) == len(lines)


def test_every_run_has_its_spans(recorded: Recorded, channel: grpc.Channel) -> None:
    runs = _runs(channel)
    filter = SpanFilter(root_run_ids=[runs[0].root_run_id])
    spans = SpanServiceStub(channel).ListSpans(ListSpansRequest(filter=filter, page_size=1000)).spans
    assert {span.run_id for span in spans} == {run.id for run in runs}
    assert len({span.trace_id for span in spans}) == 1, "one run, one trace"
    failed = [span.run_id for span in spans if span.status == SpanStatus.SPAN_STATUS_ERROR]
    assert set(failed) <= {_task_run(channel, "read_rows").id}


def test_grpcurl_sees_the_same(recorded: Recorded) -> None:
    asked = ["-plaintext", "-d", '{"filter": {"flow_names": ["pipeline"], "kinds": ["RUN_KIND_FLOW"]}}']
    done = subprocess.run(
        [tool("grpcurl"), *asked, recorded.server.address, "headrace.v1.RunService/ListRuns"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    [run] = json.loads(done.stdout)["runs"]
    assert run["state"]["type"] == "STATE_TYPE_COMPLETED"


def _runs(channel: grpc.Channel) -> list[Run]:
    return list(RunServiceStub(channel).ListRuns(ListRunsRequest(page_size=1000)).runs)


def _task_run(channel: grpc.Channel, task_name: str) -> Run:
    filter = RunFilter(task_names=[task_name])
    [run] = RunServiceStub(channel).ListRuns(ListRunsRequest(filter=filter)).runs
    return run
