"""What the engine records, as a real server tells it the moment the call has returned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace import flow, tags, task
from headrace.client import get_client
from headrace.execution.encoding import state_from_proto
from headrace.recorder import process
from headrace.settings import temporary_settings
from headrace.states import Cancelled, Completed, Failed, State
from headrace.transactions import transaction
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run, RunFilter
from tests.support.kinds import KINDS, call, of_kind
from tests.support.postgres import Cluster
from tests.support.servers import ServerProcess


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    home = tmp_path_factory.mktemp("server")
    if request.param == "sqlite":
        with ServerProcess(home) as running:
            yield running
        return
    cluster: Cluster = request.getfixturevalue("postgres_cluster")
    with cluster.database() as url, ServerProcess(home, url) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Any]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as opened:
        yield opened
        process.close_recorders()


class Server:
    """What the server knows of the runs of one test, which are told by a tag."""

    def __init__(self, client: Any, tag: str) -> None:
        self._client = client
        self._tag = tag

    def all(self, name: str) -> list[Run]:
        runs = self._client.iter_runs(RunFilter(tags_all=[self._tag]))
        named = [run for run in runs if name == (run.task_name or run.flow_name)]
        return [self._client.get_run(run.id) for run in sorted(named, key=lambda run: run.id)]

    def the(self, name: str) -> Run:
        (run,) = self.all(name)
        return run

    def names(self, name: str) -> list[str]:
        return [state.name for state in self._client.iter_states(self.the(name).id)]

    def state(self, name: str) -> State[Any]:
        run = self.the(name)
        ids = {"flow_run_id": run.id} if run.kind == RUN_KIND_FLOW else {"task_run_id": run.id}
        return state_from_proto(run.state, **ids)


@pytest.fixture
def recorded(client: Any, request: pytest.FixtureRequest) -> Iterator[Server]:
    tag = f"test-{abs(hash(request.node.name))}"
    with tags(tag):
        yield Server(client, tag)


def settle(decorate: Any) -> None:
    """A flow is on the server when its call returns; a task on its own soon after."""
    if decorate is task:
        assert process.current().flush(10)


@task
def step(x: int = 1) -> int:
    return x


@task(name="broken")
def broken() -> None:
    raise ValueError("broken step")


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_with_tasks(kind: str, recorded: Server) -> None:
    def body(n: int) -> int:
        return sum(step(i) for i in range(n)) + sum(step.map([10, 20]).result())

    assert call(flow(of_kind(kind, body), name="outer", flow_run_name="run-{n}"), "3") == 33
    outer = recorded.the("outer")
    assert (outer.name, outer.parameters.inline, outer.run_count) == ("run-3", b'{"n":"3"}', 1)
    assert recorded.names("outer") == ["Pending", "Running", "Completed"]
    assert recorded.state("outer").result(_sync=True) == 33
    steps = recorded.all("step")
    assert [state_from_proto(run.state).result(_sync=True) for run in steps] == [0, 1, 2, 10, 20]
    for run in steps:
        assert (run.state.name, run.parent_run_id, run.root_run_id) == ("Completed", outer.id, outer.id)
        assert run.flow_name == "outer" and run.start_time.ToMicroseconds() <= run.end_time.ToMicroseconds()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decorate", [flow, task])
def test_retries(kind: str, decorate: Any, recorded: Server) -> None:
    calls: list[int] = []

    def body() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise ValueError("again")
        return len(calls)

    assert call(decorate(of_kind(kind, body), name="it", retries=2, retry_delay_seconds=0.01)) == 3
    settle(decorate)
    again = ["AwaitingRetry", "Retrying"]
    assert recorded.names("it") == ["Pending", "Running", *again, *again, "Completed"]
    run = recorded.the("it")
    assert (run.run_count, run.retry_policy.max_retries) == (3, 2)


def fail() -> None:
    raise KeyError("missing")


def leave() -> None:
    raise SystemExit(3)


ENDINGS: list[tuple[str, Callable[[], Any], str, str]] = [
    ("fails", fail, "Failed", "encountered an exception: KeyError: 'missing'"),
    ("leaves", leave, "Crashed", "Execution was aborted by Python system exit call."),
    ("is slow", lambda: time.sleep(30), "TimedOut", "exceeded timeout of 0.25 second(s)"),
    ("skips", lambda: Completed(name="Skipped", message="nothing new", data=3), "Skipped", "nothing new"),
    ("gives up", lambda: Failed(message="by hand"), "Failed", "by hand"),
    ("is cancelled", lambda: Cancelled(message="enough"), "Cancelled", "enough"),
    ("returns states", lambda: [Completed(), Failed()], "Failed", "1/2 states failed."),
]


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize(("what", "body", "name", "message"), ENDINGS, ids=[row[0] for row in ENDINGS])
def test_endings(
    decorate: Any, what: str, body: Callable[[], Any], name: str, message: str, recorded: Server
) -> None:
    try:
        local = decorate(body, name="it", timeout_seconds=0.25)(return_state=True)
    except SystemExit:
        assert process.current().flush(10)
        local = None
    settle(decorate)
    assert recorded.names("it") == ["Pending", "Running", name]
    state = recorded.state("it")
    assert state.message is not None and message in state.message
    if local is not None:
        assert (local.type, local.name, local.message, local.id) == (
            state.type,
            state.name,
            state.message,
            state.id,
        )


def test_an_error_is_raised_again_from_the_record(recorded: Server) -> None:
    flow(fail, name="it")(return_state=True)
    with pytest.raises(KeyError, match="missing"):
        recorded.state("it").result(_sync=True)


def test_subflows_and_what_never_starts(recorded: Server) -> None:
    inner = flow(lambda x: x + 1, name="inner")

    @flow(name="outer")
    def outer() -> int:
        failed = broken.submit()
        step.submit(failed).wait()
        assert inner(failed, return_state=True).name == "NotReady"
        return inner(1)

    assert outer() == 2
    assert recorded.names("step") == ["Pending", "NotReady"]
    waiting, ran = recorded.all("inner")
    top = recorded.the("outer").id
    assert (waiting.state.name, ran.state.name) == ("NotReady", "Completed")
    assert waiting.parent_run_id == ran.parent_run_id == ran.root_run_id == top
    assert [list(edge.run_ids) for edge in waiting.inputs] == [[recorded.the("broken").id]]


def test_a_flow_whose_arguments_do_not_fit(recorded: Server) -> None:
    def body(x: int) -> None: ...

    assert flow(body, name="it", retries=2)("x", return_state=True).is_failed()
    assert recorded.names("it") == ["Pending", "Failed"]


def test_a_task_on_its_own_and_a_generator(recorded: Server) -> None:
    def numbers() -> Iterator[int]:
        yield from range(3)

    assert list(task(numbers, name="numbers")()) == [0, 1, 2]
    assert task(lambda: 5, name="alone")() == 5
    settle(task)
    assert recorded.names("numbers") == recorded.names("alone") == ["Pending", "Running", "Completed"]
    assert recorded.the("alone").root_run_id == recorded.the("alone").id


def test_a_gather_of_subflows(recorded: Server) -> None:
    @flow(name="child")
    async def child(n: int) -> int:
        await asyncio.sleep(0)
        return n

    @flow(name="outer")
    async def outer() -> Any:
        return await asyncio.gather(*[child(n) for n in range(30)])

    assert asyncio.run(outer()) == list(range(30))
    assert {run.state.name for run in recorded.all("child")} == {"Completed"}
    assert len(recorded.all("child")) == 30


def test_a_thousand_tasks_are_all_there(recorded: Server) -> None:
    flow(lambda: [step(n) for n in range(1000)] and None, name="outer")()
    runs = recorded.all("step")
    assert len(runs) == 1000
    assert {run.state.name for run in runs} == {"Completed"}


def test_results_in_storage_hits_and_rollbacks_are_told(recorded: Server, tmp_path: Path) -> None:
    big = "x" * 100_000
    step = task(lambda: big, name="step", result_storage=tmp_path, result_storage_key="k")
    undone = task(lambda: 1, name="undone")

    @flow(name="outer")
    def outer() -> None:
        step()
        step()
        with transaction(commit_mode="OFF"):
            undone()

    outer()
    fresh, hit = recorded.all("step")
    assert fresh.state.data.blob.uri == hit.state.data.blob.uri == f"file://{tmp_path}/k"
    assert (fresh.state.completed.from_cache, hit.state.completed.from_cache) == (False, True)
    assert (hit.state.name, hit.state.completed.cache_key) == ("Cached", "k")
    assert state_from_proto(hit.state).result(_sync=True) == big
    assert recorded.the("undone").state.name == "RolledBack"
