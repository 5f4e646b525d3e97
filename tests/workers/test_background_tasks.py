"""Background tasks: asked for here, executed by task workers in processes of their own."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import pathlib
import pickle
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from headrace import flow
from headrace.client.api import HeadraceClient
from headrace.exceptions import MappingLengthMismatch, ParameterBindError, UpstreamTaskError
from headrace.futures import HeadraceDistributedFuture, as_completed
from headrace.settings import process_settings
from tests.support.servers import ServerProcess
from tests.support.worker_processes import WorkerProcess, until

PROGRAM = """
import os, pathlib, time
from headrace import task

@task
def double(n):
    return 2 * n

@task
async def alone(n):
    return n + 1

@task
async def adouble(n):
    return 2 * n

@task
def several():
    return [5, 6]

@task
def pair(a, b):
    return a, b

@task
def bad(n):
    raise ValueError(f"no {n}")

@task(retries=2)
def third_time(folder):
    tries = pathlib.Path(folder, "tries")
    tries.write_text((tries.read_text() if tries.exists() else "") + "x")
    if len(tries.read_text()) < 3:
        raise ValueError("again")
    return len(tries.read_text())

@task
def held(folder):
    # Every execution leaves its process, and waits until it is let go.
    mark = pathlib.Path(folder, f"{os.getpid()}-{time.monotonic_ns()}")
    mark.write_text("")
    while not pathlib.Path(folder, "go").exists():
        time.sleep(0.02)
    return os.getpid()

@task
def nested(n):
    return double.delay(n).task_run_id

@task
def size(value):
    return len(value)

@task
def cancelled(folder):
    held.fn(folder)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    file = tmp_path_factory.mktemp("program") / "background.py"
    file.write_text(PROGRAM)
    return file


@pytest.fixture(scope="module")
def tasks(program: pathlib.Path) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("background", program)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["background"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["background"]


def worker(server: ServerProcess, program: pathlib.Path, *names: str) -> WorkerProcess:
    words = ("task", "serve", *(f"{program}:{name}" for name in names), "--limit", str(len(names)))
    return WorkerProcess(server.environment, program.parent, words)


@pytest.fixture(scope="module")
def served(server: ServerProcess, program: pathlib.Path, settings: None) -> Iterator[WorkerProcess]:
    names = ("double", "adouble", "several", "bad", "third_time", "nested", "size", "cancelled")
    with worker(server, program, *names) as process:
        yield process


def pids(folder: pathlib.Path) -> list[int]:
    return [int(mark.name.split("-")[0]) for mark in folder.iterdir() if "-" in mark.name]


def test_the_result_comes_back(tasks: ModuleType, served: WorkerProcess) -> None:
    futures = [tasks.double.delay(1), tasks.adouble.delay(n=2), tasks.double.apply_async([3])]
    assert [future.result(timeout=60) for future in futures] == [2, 4, 6]
    assert {future.state.name for future in futures} == {"Completed"}
    assert set(as_completed(futures)) == set(futures)
    again: HeadraceDistributedFuture[int] = pickle.loads(pickle.dumps(futures[0]))
    assert again == futures[0]
    assert again.result(timeout=60) == 2


def test_a_mapped_task_is_left_to_the_workers(tasks: ModuleType, served: WorkerProcess) -> None:
    futures = tasks.double.map([1, 2, 3], deferred=True)
    assert all(isinstance(future, HeadraceDistributedFuture) for future in futures)
    assert futures.result(timeout=30) == [2, 4, 6]
    spread = tasks.adouble.map(tasks.several.delay(), deferred=True, return_state=True)
    assert [state.result() for state in spread] == [10, 12]
    assert tasks.double.map([], deferred=True) == []
    with pytest.raises(MappingLengthMismatch):
        tasks.pair.map([1], [1, 2], deferred=True)
    with pytest.raises(RuntimeError, match="deferred=True"):
        tasks.double.map([1])


async def test_what_was_spread_is_on_record(
    tasks: ModuleType, served: WorkerProcess, client: HeadraceClient
) -> None:
    whole = tasks.several.delay()
    (first, _) = tasks.double.map(whole, deferred=True, wait_for=[whole])
    await first.wait_async(30)
    inputs = {edge.parameter: list(edge.run_ids) for edge in (await client.get_run(first.task_run_id)).inputs}
    assert inputs == {"n": [whole.task_run_id], "wait_for": [whole.task_run_id]}


async def test_served_by_this_process(tasks: ModuleType, settings: None) -> None:
    serving = asyncio.create_task(tasks.alone.aserve(limit=1))
    assert await tasks.alone.delay(4).result_async(timeout=60) == 5
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


def test_the_status_server_tells_what_runs_and_what_has(
    server: ServerProcess, tasks: ModuleType, program: pathlib.Path, settings: None, tmp_path: pathlib.Path
) -> None:
    words = ("task", "serve", f"{program}:held", "--limit", "2", "--status-server-port", "0")
    with WorkerProcess(server.environment, program.parent, words) as process:
        process.says("Health is served on port")
        port = re.search(r"Health is served on port (\d+)", process.log)
        assert port is not None

        def status() -> dict[str, Any]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/status", timeout=60) as answer:
                return dict(json.load(answer))

        key = tasks.held.task_key
        idle = status()
        assert (idle["tasks"], idle["limit"], idle["available"], idle["in_flight"]) == ([key], 2, 2, {})
        future = tasks.held.delay(str(tmp_path))
        until(lambda: pids(tmp_path))
        busy = status()
        assert (busy["current"], busy["available"], busy["finished"], busy["stopping"]) == (1, 1, 0, False)
        assert list(busy["in_flight"][key]) == [future.task_run_id]
        (tmp_path / "go").touch()
        future.result(timeout=60)
        until(lambda: status()["finished"])
        done = status()
        assert (done["current"], done["in_flight"]) == (0, {})
        (ended,) = done["recent"]
        assert (ended["run_id"], ended["task_key"]) == (future.task_run_id, key)
        assert ended["state"] == "Completed"


def test_on_postgresql(
    postgresql_url: str, program: pathlib.Path, tasks: ModuleType, tmp_path: pathlib.Path
) -> None:
    with ServerProcess(tmp_path / "server", postgresql_url) as here:
        from headrace.recorder.process import release_home

        with (
            process_settings({"home": str(here.home), "api_url": here.address}),
            worker(here, program, "double", "bad"),
        ):
            assert tasks.double.map([1, 2], deferred=True).result(timeout=60) == [2, 4]
            with pytest.raises(ValueError, match="no 1"):
                tasks.bad.delay(1).result(timeout=60)
            release_home(here.home, 2.0)


async def test_the_result_comes_back_to_an_event_loop(tasks: ModuleType, served: WorkerProcess) -> None:
    assert await tasks.double.delay(4).result_async(timeout=60) == 8


def test_a_failure_is_raised_where_the_result_is_wanted(tasks: ModuleType, served: WorkerProcess) -> None:
    future = tasks.bad.delay(7)
    with pytest.raises(ValueError, match="no 7"):
        future.result(timeout=60)
    assert future.state.is_failed()


def test_arguments_that_do_not_fit_make_no_run(tasks: ModuleType) -> None:
    with pytest.raises(ParameterBindError):
        tasks.double.delay(1, 2)


def test_retries_happen_in_the_worker(
    tasks: ModuleType, served: WorkerProcess, tmp_path: pathlib.Path
) -> None:
    assert tasks.third_time.delay(str(tmp_path)).result(timeout=60) == 3


def test_large_arguments_travel_through_storage(tasks: ModuleType, served: WorkerProcess) -> None:
    assert tasks.size.delay(b"x" * 200_000).result(timeout=60) == 200_000


def test_futures_are_waited_for(tasks: ModuleType, served: WorkerProcess) -> None:
    first = tasks.double.delay(1)
    assert tasks.double.delay(first).result(timeout=60) == 4
    assert tasks.double.apply_async([1], wait_for=[first]).result(timeout=60) == 2
    failed = tasks.bad.delay(1)
    after = tasks.double.apply_async([1], wait_for=[failed])
    with pytest.raises(UpstreamTaskError, match=failed.task_run_id):
        after.result(timeout=60)
    assert after.state.is_failed()


async def test_a_flow_that_asks_is_the_parent(
    tasks: ModuleType, served: WorkerProcess, client: HeadraceClient
) -> None:
    @flow
    def asking() -> tuple[str, int, str]:
        local = tasks.double.submit(5)
        future = tasks.double.delay(local)
        nested = tasks.nested.delay(1)
        return future.task_run_id, future.result(timeout=60), nested.task_run_id

    state: Any = asking(return_state=True)
    run_id, value, nested_id = state.data
    assert value == 20
    run = await client.get_run(run_id)
    assert run.parent_run_id == state.state_details.flow_run_id
    assert run.owner_run_id == run_id
    inner = await HeadraceDistributedFuture[str](nested_id).result_async(timeout=60)
    assert (await client.get_run(inner)).parent_run_id == nested_id


def test_two_workers_share_and_a_killed_ones_run_is_run_again(
    server: ServerProcess, tasks: ModuleType, program: pathlib.Path, settings: None, tmp_path: pathlib.Path
) -> None:
    with worker(server, program, "held") as a, worker(server, program, "held") as b:
        futures = [tasks.held.delay(str(tmp_path)) for _ in range(2)]
        until(lambda: len(pids(tmp_path)) == 2)
        assert sorted(pids(tmp_path)) == sorted([a.process.pid, b.process.pid])
        a.send(signal.SIGKILL)
        a.leaves()
        (tmp_path / "go").touch()
        assert {future.result(timeout=60) for future in futures} == {b.process.pid}
    assert len(pids(tmp_path)) == 3


def test_sigterm_lets_runs_end(
    server: ServerProcess, tasks: ModuleType, program: pathlib.Path, settings: None, tmp_path: pathlib.Path
) -> None:
    with worker(server, program, "held") as leaving:
        future = tasks.held.delay(str(tmp_path))
        until(lambda: pids(tmp_path))
        leaving.send(signal.SIGTERM)
        (tmp_path / "go").touch()
        assert leaving.leaves() == 0
        assert future.result(timeout=60) == leaving.process.pid


async def test_a_run_that_is_cancelled_is_interrupted(
    tasks: ModuleType, served: WorkerProcess, client: HeadraceClient, tmp_path: pathlib.Path
) -> None:
    future = tasks.cancelled.delay(str(tmp_path))
    until(lambda: pids(tmp_path))
    await client.cancel_run(future.task_run_id)
    await future.wait_async(30)
    assert future.state.is_cancelled()


def test_what_is_no_task_is_said(server: ServerProcess, program: pathlib.Path) -> None:
    words = [sys.executable, "-m", "headrace", "task", "serve", f"{program}:dubble"]
    ended = subprocess.run(
        words, env=server.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 3
    assert "There is no task 'dubble'" in ended.stderr
    assert "double" in ended.stderr
