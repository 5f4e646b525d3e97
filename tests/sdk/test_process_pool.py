"""What only processes can do to a task, and what they must not do to the others."""

from __future__ import annotations

import copyreg
import multiprocessing
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace import flow, tags, task
from headrace.context import (
    FlowRunContext,
    TagsContext,
    get_run_context,
    hydrated_context,
    serialize_context,
)
from headrace.exceptions import CrashedRun, MissingContextError, SerializationError
from headrace.execution.processes.shipping import packed, unpacked
from headrace.settings import get_current_settings, temporary_settings
from headrace.task_runners import ProcessPoolTaskRunner
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder")


def test_configuration() -> None:
    assert ProcessPoolTaskRunner().max_workers == len(os.sched_getaffinity(0))
    with temporary_settings({"tasks_runner_process_pool_max_workers": 7}):
        assert ProcessPoolTaskRunner().max_workers == 7
        assert ProcessPoolTaskRunner(2).max_workers == 2
    assert ProcessPoolTaskRunner(2).name == "processpool"
    assert ProcessPoolTaskRunner(2, print, ("x",)) == ProcessPoolTaskRunner(2, print, ("x",))
    assert ProcessPoolTaskRunner(2, print, ("x",)) != ProcessPoolTaskRunner(2, print, ("y",))
    with pytest.raises(TypeError, match="callable"):
        ProcessPoolTaskRunner(2, initializer="not a function")  # type: ignore[arg-type]
    with pytest.raises(SerializationError):
        ProcessPoolTaskRunner(2, print, (threading.Lock(),)).__enter__()


def test_tasks_run_in_other_processes_which_leave_with_the_flow() -> None:
    @task
    def pid() -> int:
        return os.getpid()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def run() -> set[int]:
        futures = [pid.submit() for _ in range(6)]
        return {future.result(timeout=60) for future in futures}

    pids = run()
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2
    for one in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(one, 0)


def test_killed_processes_crash_their_runs_and_no_others(recorder: MemoryRecorder) -> None:
    @task
    def inner() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def die(how: str) -> None:
        if how == "nested":
            inner.submit().result()
        os._exit(3)

    @task(retries=3)
    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def work(x: int) -> int:
        return x + 1

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def run() -> None:
        first, second, third = killed.submit(), die.submit("exit"), die.submit("nested")
        assert work.submit(1).result(timeout=60) == 2
        for future, words in (
            (first, "killed by signal 9"),
            (second, "left with code 3"),
            (third, "SIGKILL"),
        ):
            assert future.state.is_crashed()
            assert words in str(future.state.message)
            with pytest.raises(CrashedRun, match=words):
                future.result()
        assert work.submit(first, return_state=True).name == "NotReady"

    run()
    assert recorder.the("killed").names == ["Pending", "Running", "Crashed"]
    assert [one.names[-1] for one in recorder.all("die")] == ["Crashed", "Crashed"]
    assert recorder.the("inner").names == ["Pending", "Running", "Crashed"]
    assert "signal 9" in recorder.the("inner").states[-1].message


def test_a_process_killed_while_it_has_nothing_to_do_is_replaced(recorder: MemoryRecorder) -> None:
    @task
    def pid() -> int:
        return os.getpid()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def run() -> None:
        first = pid.submit().result(timeout=60)
        os.kill(first, signal.SIGKILL)
        assert pid.submit().result(timeout=60) != first

    run()
    assert {one.names[-1] for one in recorder.all("pid")} == {"Completed"}


ORPHANS = """
import time
from headrace import flow, task
from headrace.task_runners import ProcessPoolTaskRunner

@task
def hang():
    print("inside", flush=True)
    time.sleep(600)

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def run():
    hang.submit().result()

run()
"""


def test_processes_leave_when_their_parent_is_killed(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    environment = {**os.environ, "HEADRACE_HOME": str(tmp_path / "home")}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"inside\n"
        program.kill()
        # The end of the stream: nobody holds the other side any more.
        assert program.communicate(timeout=60)[0] == b""


def test_what_cannot_be_pickled_fails_its_task_only(recorder: MemoryRecorder) -> None:
    @task
    def take(x: Any) -> str:
        return type(x).__name__

    @task
    def give() -> Any:
        return threading.Lock()

    @task
    def fail() -> None:
        error = ValueError("holds a lock")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def run(unused: Any) -> None:
        bad_argument, bad_result, bad_error = take.submit(threading.Lock()), give.submit(), fail.submit()
        assert take.submit(1).result(timeout=60) == "int"
        with pytest.raises(SerializationError, match="Argument 'x' of task 'take'"):
            bad_argument.result(timeout=60)
        with pytest.raises(SerializationError, match="The result cannot leave its process"):
            bad_result.result(timeout=60)
        with pytest.raises(Exception, match="ValueError: holds a lock"):
            bad_error.result(timeout=60)

    run(threading.Lock())
    assert [one.names[-1] for one in recorder.all("take")] == ["Failed", "Completed"]
    assert recorder.the("give").names == ["Pending", "Running", "Failed"]
    assert recorder.the("fail").states[-1].failed.error.type == "builtins.ValueError"


def test_exceptions_say_what_they_said_whatever_a_library_does_to_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(copyreg.dispatch_table, SystemExit, lambda error: (SystemExit, ()))
    assert unpacked(packed(SystemExit(3))).code == 3


def test_the_initializer() -> None:
    def prepare(word: str) -> None:
        if word == "bad":
            raise OSError("no licence")
        os.environ["PREPARED"] = word

    @task
    def look() -> str | None:
        return os.environ.get("PREPARED")

    @flow
    def run() -> str | None:
        return look.submit().result(timeout=60)

    assert run.with_options(task_runner=ProcessPoolTaskRunner(1, prepare, ("good",)))() == "good"
    with pytest.raises(OSError, match="no licence"):
        run.with_options(task_runner=ProcessPoolTaskRunner(1, prepare, ("bad",)))()


def test_the_environment_of_a_worker_is_restored() -> None:
    @task
    def change() -> None:
        os.environ["LEFT_BEHIND"] = "1"

    @task
    def look() -> str | None:
        return os.environ.get("LEFT_BEHIND")

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def run() -> str | None:
        change.submit().result(timeout=60)
        return look.submit().result(timeout=60)

    assert run() is None


def _in_another_process(context: bytes) -> tuple[str, str, list[str], str]:
    with hydrated_context(pickle.loads(context)):
        here = FlowRunContext.get()
        assert here is not None
        return (
            here.flow_run.id,
            here.flow.name,
            sorted(TagsContext.get().current_tags),
            get_current_settings().logging_level,
        )


def test_a_context_goes_to_a_process_of_the_program() -> None:
    @flow(name="sender")
    def run(lock: Any, city: str) -> Any:
        with tags("nightly"), temporary_settings({"logging_level": "WARNING"}):
            data = pickle.dumps(serialize_context())
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return get_run_context().run.id, pool.apply(_in_another_process, (data,))

    run_id, seen = run(threading.Lock(), "Oslo")
    assert seen == (run_id, "sender", ["nightly"], "WARNING")


def test_a_hydrated_context_is_left_again() -> None:
    @flow
    def run(city: str) -> tuple[str, Any]:
        return get_run_context().run.id, serialize_context()

    run_id, context = run("Oslo")

    def look() -> tuple[str, Any]:
        with hydrated_context(None), pytest.raises(MissingContextError):
            get_run_context()
        with hydrated_context(context):
            here = get_run_context()
            seen = here.run.id, here.parameters
        with pytest.raises(MissingContextError):
            get_run_context()
        return seen

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(look).result() == (run_id, {"city": "Oslo"})
