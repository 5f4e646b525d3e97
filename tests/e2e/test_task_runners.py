"""Tasks in other processes and on clusters, on a real server: what can be asked afterwards."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from headrace import flow, get_run_logger, tags, task
from headrace.client import get_client
from headrace.context import FlowRunContext
from headrace.recorder import get_recorder, process
from headrace.results import load_payload
from headrace.settings import temporary_settings
from headrace.task_runners import DaskTaskRunner, ProcessPoolTaskRunner, RayTaskRunner, TaskRunner
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.span_service_pb2 import SpanFilter
from tests.support.clusters import DASK, RAY
from tests.support.servers import ServerProcess

MakeRunner = Callable[[], TaskRunner[Any]]
KINDS = ["process", pytest.param("dask", marks=DASK), pytest.param("ray", marks=RAY)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Any]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as opened:
        yield opened
        process.close_recorders()


@pytest.fixture(params=KINDS)
def runner(request: pytest.FixtureRequest) -> MakeRunner:
    return runner_of(request.param, request)


@pytest.fixture(params=KINDS[1:])
def cluster_runner(request: pytest.FixtureRequest) -> MakeRunner:
    return runner_of(request.param, request)


def runner_of(kind: str, request: pytest.FixtureRequest) -> MakeRunner:
    if kind == "process":
        return lambda: ProcessPoolTaskRunner(max_workers=2)
    cluster = request.getfixturevalue(kind)
    return RayTaskRunner if kind == "ray" else lambda: DaskTaskRunner(cluster)


class Server:
    """What the server knows of the tree of one flow run."""

    def __init__(self, client: Any, flow_run_id: str) -> None:
        self._client = client
        self._root = flow_run_id

    def all(self, name: str) -> list[Run]:
        runs = self._client.iter_runs(RunFilter(root_run_ids=[self._root], task_names=[name]))
        return [self._client.get_run(run.id) for run in sorted(runs, key=lambda run: run.id)]

    def the(self, name: str) -> Run:
        (run,) = self.all(name)
        return run

    def states(self, run: Run) -> list[str]:
        return [state.name for state in self._client.iter_states(run.id)]

    def logs(self, run: Run) -> list[Any]:
        return list(self._client.iter_logs(LogFilter(run_ids=[run.id])))

    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self._client.iter_spans(SpanFilter(root_run_ids=[self._root]))}


def pipeline(runner: TaskRunner[Any], before: Callable[[], object] = lambda: None) -> Any:
    @task
    def load(shard: int) -> list[int]:
        get_run_logger().info("loading", extra={"shard": shard})
        return [shard] * 30_000

    @task(retries=1, task_run_name="sum of {name}")
    def total(rows: list[int], name: str) -> int:
        from headrace.runtime import task_run

        if task_run.run_count == 1:
            raise ValueError("first time")
        print("total", sum(rows))
        return sum(rows)

    @task
    def leaf(x: int) -> int:
        return x + 1

    @task
    def branch(x: int) -> int:
        from opentelemetry import trace

        with trace.get_tracer("author").start_as_current_span("inside"):
            return sum(leaf.map([x, x]).result())

    @task
    def fail() -> None:
        raise LookupError("nothing there")

    @flow(task_runner=runner, log_prints=True)
    def run(city: str) -> tuple[str, list[int], int]:
        before()
        context = FlowRunContext.get()
        assert context is not None
        with tags("east"):
            sums = total.map(load.map([1, 2]), name="rows")
        failed = fail.submit()
        failed.wait()
        assert leaf.submit(failed, return_state=True).name == "NotReady"
        return context.flow_run.id, sums.result(), branch.submit(5).result()

    with temporary_settings({"traces_exporter": "server"}):
        done = run("Oslo")
        # The span of the flow run comes after the run's end.
        assert get_recorder().flush(20)
        return done


def check(server: Server, flow_run_id: str) -> None:
    loads, totals, leaves = server.all("load"), server.all("total"), server.all("leaf")
    fail, branch = server.the("fail"), server.the("branch")
    for shard, run in enumerate(loads, 1):
        assert server.states(run) == ["Pending", "Running", "Completed"]
        assert load_payload(run.parameters) == {"shard": shard}
        assert list(run.tags) == ["east"]
        lines = [line for line in server.logs(run) if line.message == "loading"]
        assert [MessageToDict(line.fields)["shard"] for line in lines] == [shard]
    for load, run in zip(loads, totals, strict=True):
        assert server.states(run) == ["Pending", "Running", "Retrying", "Completed"]
        assert (run.name, run.run_count) == ("sum of rows", 2)
        assert {edge.parameter: list(edge.run_ids) for edge in run.inputs} == {"rows": [load.id]}
        messages = [line.message for line in server.logs(run)]
        assert sum(message.startswith("total ") for message in messages) == 1
    assert server.states(fail) == ["Pending", "Running", "Failed"]
    error = fail.state.failed.error
    assert (error.type, error.message) == ("builtins.LookupError", "nothing there")
    assert "raise LookupError" in error.traceback
    nested, unready = leaves[1:], leaves[0]
    assert server.states(unready) == ["Pending", "NotReady"]
    assert [server.states(run)[-1] for run in nested] == ["Completed"] * 2
    assert {run.parent_run_id for run in nested} == {branch.id}
    assert branch.parent_run_id == flow_run_id
    spans = server.spans()
    assert spans["inside"].parent_span_id == spans["branch"].span_id
    assert spans["branch"].parent_span_id == spans["run"].span_id
    assert spans["inside"].run_id == branch.id


def test_everything_is_recorded(runner: MakeRunner, server: ServerProcess, client: Any) -> None:
    with temporary_settings({"api_url": server.address}):
        flow_run_id, sums, nested = pipeline(runner())
    assert (sums, nested) == ([30_000, 60_000], 12)
    check(Server(client, flow_run_id), flow_run_id)


def hide_lines() -> None:
    """From now on workers find the flow's process as little as on another machine."""
    context = FlowRunContext.get()
    assert context is not None
    runner: Any = context.task_runner
    # A cluster whose workers may be anywhere.
    runner._capacity = None
    pathlib.Path(runner._lines.address).unlink()


def test_workers_on_other_machines_record_by_themselves(
    cluster_runner: MakeRunner, server: ServerProcess, client: Any, tmp_path: pathlib.Path
) -> None:
    home = tmp_path / "home"
    with temporary_settings({"api_url": server.address, "home": str(home)}):
        flow_run_id, sums, nested = pipeline(cluster_runner(), hide_lines)
    assert (sums, nested) == ([30_000, 60_000], 12)
    check(Server(client, flow_run_id), flow_run_id)
    own = list(pathlib.Path(os.environ["HEADRACE_HOME"], "spool").iterdir())
    assert len(own) > 1, "each worker has a spool in the home of its machine"
