"""The recorder and the real server, as processes: what was posted is there afterwards, whatever is killed."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

from headrace.client import get_client
from headrace.settings import temporary_settings
from headrace.v1.run_pb2 import Run
from headrace.v1.state_pb2 import STATE_TYPE_COMPLETED, STATE_TYPE_CRASHED, STATE_TYPE_RUNNING
from tests.support.servers import ServerProcess

ROOT = pathlib.Path(__file__).parent.parent.parent
TIMEOUT = 60.0

HEAD = """
    import os, sys
    from headrace.core.ids import new_id
    from headrace.recorder import get_recorder
    from headrace.v1.record_service_pb2 import RecordEntry, StateEntry
    from headrace.v1.run_pb2 import RUN_KIND_FLOW, RUN_KIND_TASK, AttemptRef, Run
    from headrace.v1.state_pb2 import STATE_TYPE_COMPLETED, STATE_TYPE_PENDING, STATE_TYPE_RUNNING, State

    recorder = get_recorder()

    def state(type):
        made = State(id=new_id(), type=type)
        made.event_time.GetCurrentTime()
        return made

    def entry(run_id, root, type):
        return RecordEntry(state=StateEntry(
            attempt=AttemptRef(run_id=run_id, attempt=1, fence=1), state=state(type)))

    def new_run(kind, root=None, name=""):
        run_id = new_id()
        run = Run(id=run_id, kind=kind, name=name, flow_name="flow", root_run_id=root or run_id)
        run.parent_run_id = root or ""
        if kind == RUN_KIND_TASK:
            run.task_key, run.task_name, run.dynamic_key = "task", "task", name
        run.state.CopyFrom(state(STATE_TYPE_PENDING))
        return run

    def begin_flow():
        run = new_run(RUN_KIND_FLOW, name="the flow")
        recorder.post(RecordEntry(run=run))
        recorder.begin_owner(run.id, 1, 1)
        recorder.propose(entry(run.id, run.id, STATE_TYPE_RUNNING)).result()
        return run.id

    def do_task(root, name):
        run = new_run(RUN_KIND_TASK, root, name)
        return recorder.post(
            RecordEntry(run=run),
            entry(run.id, root, STATE_TYPE_RUNNING),
            entry(run.id, root, STATE_TYPE_COMPLETED),
        )
"""


def program(text: str, home: pathlib.Path, address: str = "auto", *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HEAD) + textwrap.dedent(text), *arguments],
        env={**os.environ, "HEADRACE_HOME": str(home), "HEADRACE_API_URL": address},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def runs_at(home: pathlib.Path) -> list[Run]:
    async def read() -> list[Run]:
        with temporary_settings({"home": home, "api_url": "auto"}):
            async with get_client(start_server=False) as client:
                return [run async for run in client.iter_runs(page_size=1000)]

    return asyncio.run(read())


def wait_for_runs(home: pathlib.Path, condition: Callable[[list[Run]], bool]) -> list[Run]:
    """The runs, once `condition` holds of them; the server pushes nothing to a test that has no stream."""
    deadline = time.monotonic() + TIMEOUT
    while not condition(runs := runs_at(home)):
        assert time.monotonic() < deadline, [(run.name, run.state.type) for run in runs][:5]
        time.sleep(0.05)
    return runs


TASKS = """
    root = begin_flow()
    count = int(sys.argv[1])
    for number in range(count):
        do_task(root, str(number))
        if number == count // 2:
            print("half", flush=True)
            if len(sys.argv) > 2:
                sys.stdin.readline()
    final = entry(root, root, STATE_TYPE_COMPLETED)
    recorder.propose(final).result()
    recorder.durable(recorder.last_seq).result()
    recorder.end_owner(root)
"""


def test_a_run_is_there_with_all_its_tasks(server: ServerProcess) -> None:
    process = program(TASKS, server.home, "auto", "300")
    process.communicate(timeout=TIMEOUT)
    runs = runs_at(server.home)
    assert len(runs) == 301
    assert {run.state.type for run in runs} == {STATE_TYPE_COMPLETED}
    assert not list((server.home / "spool").iterdir())


def test_a_server_killed_in_the_middle_loses_nothing(server: ServerProcess) -> None:
    process = program(TASKS, server.home, "auto", "400", "pause")
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "half\n"
    server.kill()
    process.stdin.write("\n")
    process.stdin.flush()
    server.start()
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    runs = wait_for_runs(server.home, lambda runs: len(runs) == 401)
    assert {run.state.type for run in runs} == {STATE_TYPE_COMPLETED}


def test_a_program_that_is_killed_is_shown_crashed_with_what_it_had_done(server: ServerProcess) -> None:
    text = """
        root = begin_flow()
        for number in range(100):
            do_task(root, str(number))
        running = new_run(RUN_KIND_TASK, root, "running")
        recorder.post(RecordEntry(run=running), entry(running.id, root, STATE_TYPE_RUNNING))
        os.kill(os.getpid(), 9)
    """
    process = program(text, server.home)
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == -signal.SIGKILL
    done = (STATE_TYPE_COMPLETED, STATE_TYPE_CRASHED)
    runs = wait_for_runs(
        server.home, lambda runs: len(runs) == 102 and all(run.state.type in done for run in runs)
    )
    crashed = sorted(run.name for run in runs if run.state.type == STATE_TYPE_CRASHED)
    assert crashed == ["running", "the flow"]


def test_the_next_server_takes_in_what_was_recorded_without_one(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "home"
    process = program(TASKS, home, "auto", "50")
    process.communicate(timeout=TIMEOUT)
    killed = program("root = begin_flow(); do_task(root, 'x'); os.kill(os.getpid(), 9)", home)
    killed.communicate(timeout=TIMEOUT)
    assert len(list((home / "spool").iterdir())) == 2
    with ServerProcess(home):
        runs = wait_for_runs(home, lambda runs: len(runs) == 53 and not list((home / "spool").iterdir()))
    assert sorted(run.state.type for run in runs) == [STATE_TYPE_COMPLETED] * 52 + [STATE_TYPE_CRASHED]


def test_a_program_meets_its_server_in_the_middle(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "home"
    process = program(TASKS, home, "auto", "50", "pause")
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "half\n"
    with ServerProcess(home):
        runs = wait_for_runs(home, lambda runs: len(runs) == 27)
        assert STATE_TYPE_RUNNING in {run.state.type for run in runs}
        process.stdin.write("\n")
        process.stdin.flush()
        process.communicate(timeout=TIMEOUT)
        assert {run.state.type for run in runs_at(home)} == {STATE_TYPE_COMPLETED}
        assert len(runs_at(home)) == 51


def test_a_frozen_program_goes_on_when_it_thaws(tmp_path: pathlib.Path) -> None:
    """Its lease has ended meanwhile; its own report stands over what the server had to assume."""
    home = tmp_path / "home"
    lease = {"HEADRACE_SERVER_RECORDER_LEASE_SECONDS": "1", "HEADRACE_SERVER_RECORDER_RENEW_SECONDS": "0.2"}
    with ServerProcess(home, settings=lease):
        process = program(TASKS, home, "auto", "40", "pause")
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGSTOP)
        wait_for_runs(home, lambda runs: STATE_TYPE_CRASHED in {run.state.type for run in runs})
        process.send_signal(signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        assert {run.state.type for run in runs_at(home)} == {STATE_TYPE_COMPLETED}


def test_the_wrong_password_is_a_clear_error(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "home"
    settings = {"HEADRACE_SERVER_API_AUTH_STRING": "me:right"}
    with ServerProcess(home, settings=settings) as server:
        text = """
            from headrace.core.errors import Unauthenticated
            try:
                begin_flow()
            except Unauthenticated as error:
                print("refused:", error)
        """
        process = program(text, tmp_path / "other", server.address)
        output, _ = process.communicate(timeout=TIMEOUT)
        assert output.startswith("refused: ")
