"""A script, a server, and the things that happen to them: what was recorded is there afterwards."""

from __future__ import annotations

import os
import pathlib
import time
from collections import Counter
from collections.abc import Callable

import grpc

from headrace.v1.run_pb2 import Run, RunKind
from headrace.v1.run_service_pb2 import ListRunsRequest
from headrace.v1.run_service_pb2_grpc import RunServiceStub
from headrace.v1.state_pb2 import StateType
from tests.support.scripts import Script
from tests.support.servers import ServerProcess, run_headrace

STEPS = 20
PATIENCE_SECONDS = 20.0
CODE = f"""
from headrace import flow, task

@task
def step(number: int) -> int:
    return number

@flow
def long_one() -> int:
    total = sum(step(number) for number in range({STEPS}))
    print("half", flush=True)
    input()
    return total + sum(step(number) for number in range({STEPS}))

if __name__ == "__main__":
    print(long_one(), flush=True)
"""
COMPLETED = StateType.STATE_TYPE_COMPLETED
CRASHED = StateType.STATE_TYPE_CRASHED


def test_a_script_without_a_server_is_recorded_and_found_by_the_next_question(tmp_path: pathlib.Path) -> None:
    environment = _environment(tmp_path / "home")
    with Script(tmp_path / "script.py", CODE, environment) as script:
        script.reached("half")
        script.go_on()
        assert script.finish().strip() == str(STEPS * (STEPS - 1))
    try:
        listed = run_headrace("flow-run", "ls", "-o", "json", environment=environment)
        assert listed.returncode == 0, listed.stderr
        assert '"long-one"' in listed.stdout
        assert '"COMPLETED"' in listed.stdout
    finally:
        run_headrace("server", "stop", environment=environment)


def test_a_script_killed_without_a_server_is_taken_in_as_crashed(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "home"
    with Script(tmp_path / "script.py", CODE, _environment(home)) as script:
        script.reached("half")
        script.kill()
    with ServerProcess(home) as server:
        runs = _runs_once(server, _is_over)
    assert _tally(runs) == {("flow", CRASHED): 1, ("task", COMPLETED): STEPS}


def test_a_script_killed_with_a_server_is_soon_crashed(
    tmp_path: pathlib.Path, server_on: ServerProcess
) -> None:
    with Script(tmp_path / "script.py", CODE, server_on.environment) as script:
        script.reached("half")
        script.kill()
    runs = _runs_once(server_on, _is_over)
    assert _tally(runs) == {("flow", CRASHED): 1, ("task", COMPLETED): STEPS}


def test_a_server_killed_and_started_again_misses_nothing(
    tmp_path: pathlib.Path, server_on: ServerProcess
) -> None:
    with Script(tmp_path / "script.py", CODE, server_on.environment) as script:
        script.reached("half")
        server_on.kill()
        script.go_on()
        server_on.start()
        script.finish()
    runs = _runs_once(server_on, _is_over)
    assert _tally(runs) == {("flow", COMPLETED): 1, ("task", COMPLETED): 2 * STEPS}


def _environment(home: pathlib.Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**kept, "HEADRACE_HOME": str(home)}


def _runs_once(server: ServerProcess, is_enough: Callable[[list[Run]], bool]) -> list[Run]:
    """Every run, as soon as `is_enough` is content with them."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with grpc.insecure_channel(server.address) as channel:
        while True:
            runs = list(RunServiceStub(channel).ListRuns(ListRunsRequest(page_size=1000)).runs)
            if is_enough(runs) or time.monotonic() > deadline:
                return runs
            time.sleep(0.05)


def _is_over(runs: list[Run]) -> bool:
    return bool(runs) and all(run.HasField("end_time") for run in runs)


def _tally(runs: list[Run]) -> Counter[tuple[str, int]]:
    kinds = {RunKind.RUN_KIND_FLOW: "flow", RunKind.RUN_KIND_TASK: "task"}
    return Counter((kinds[run.kind], int(run.state.type)) for run in runs)
