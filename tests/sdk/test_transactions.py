"""What is committed, what is undone, in which order, and what becomes of the runs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace import flow, task
from headrace.core.errors import ConfigurationError
from headrace.locking.memory import MemoryLockManager
from headrace.results import ResultStore
from headrace.settings import temporary_settings
from headrace.states import Failed
from headrace.transactions import CommitMode, atransaction, get_transaction, transaction
from tests.support.kinds import KINDS, call
from tests.support.recorders import MemoryRecorder
from tests.support.tools import ROOT


@pytest.fixture(autouse=True)
def place(tmp_path: Path, recorder: MemoryRecorder) -> Iterator[Path]:
    with temporary_settings({"results_local_storage_path": tmp_path / "kept"}):
        yield tmp_path / "kept"


class Trace:
    """Tasks whose hooks write down their names."""

    def __init__(self, kind: str = "def") -> None:
        self.lines: list[str] = []
        self.kind = kind

    def task(self, name: str, outcome: Any = 1, hook_error: str = "", **options: Any) -> Any:
        def note(what: str) -> None:
            self.lines.append(f"{what}-{name}")
            if what == hook_error:
                raise ValueError(f"hook of {name}")

        def body() -> Any:
            self.lines.append(name)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        async def abody() -> Any:
            return body()

        made = task(body if self.kind == "def" else abody, name=name, **options)
        if self.kind == "def":
            made.on_commit(lambda txn: note("commit"))
            made.on_rollback(lambda txn: note("rollback"))
            return made

        @made.on_commit
        async def committed(txn: Any) -> None:
            note("commit")

        @made.on_rollback
        async def rolled_back(txn: Any) -> None:
            note("rollback")

        return made

    def run(self, tasks: list[Any], mode: Any = None, block: bool = True, after: Any = None) -> Any:
        """Call the tasks in one block of a flow; gives the flow's final state."""

        def outer() -> None:
            if not block:
                for step in tasks:
                    step()
                return
            with transaction(commit_mode=mode):
                for step in tasks:
                    step()
                self.lines.append("end")
                if after is not None:
                    raise after

        async def aouter() -> None:
            if not block:
                for step in tasks:
                    await step()
                return
            async with atransaction(commit_mode=mode):
                for step in tasks:
                    await step()
                self.lines.append("end")
                if after is not None:
                    raise after

        return call(flow(outer if self.kind == "def" else aouter, name="outer"), return_state=True)


@pytest.fixture(params=KINDS)
def trace(request: pytest.FixtureRequest) -> Trace:
    return Trace(request.param)


def last_names(recorder: MemoryRecorder, *names: str) -> list[str]:
    return [recorder.the(name).names[-1] for name in names]


def test_the_block_commits_its_tasks_at_its_end(trace: Trace, recorder: MemoryRecorder) -> None:
    assert trace.run([trace.task("a"), trace.task("b")]).is_completed()
    assert trace.lines == ["a", "b", "end", "commit-a", "commit-b"]
    assert last_names(recorder, "a", "b") == ["Completed", "Completed"]


def test_a_task_that_fails_undoes_those_before_it(trace: Trace, recorder: MemoryRecorder) -> None:
    state = trace.run([trace.task("a"), trace.task("b"), trace.task("c", ValueError("no"))])
    assert state.is_failed()
    assert trace.lines == ["a", "b", "c", "rollback-b", "rollback-a"]
    assert last_names(recorder, "a", "b", "c") == ["RolledBack", "RolledBack", "Failed"]
    rolled_back = recorder.the("a").states[-1]
    assert rolled_back.type == recorder.the("a").states[-2].type
    assert not rolled_back.HasField("data")


def test_without_a_block_each_commits_at_its_end(trace: Trace) -> None:
    trace.run([trace.task("a"), trace.task("b", ValueError("no"))], block=False)
    assert trace.lines == ["a", "commit-a", "b"]


def test_eager(trace: Trace, recorder: MemoryRecorder) -> None:
    trace.run([trace.task("a"), trace.task("c", ValueError("no"))], mode="EAGER")
    assert trace.lines == ["a", "commit-a", "c"]
    assert last_names(recorder, "a") == ["Completed"]


def test_off(trace: Trace, recorder: MemoryRecorder) -> None:
    assert trace.run([trace.task("a"), trace.task("b")], mode=CommitMode.OFF).is_completed()
    assert trace.lines == ["a", "b", "end", "rollback-b", "rollback-a"]
    assert last_names(recorder, "a", "b") == ["RolledBack", "RolledBack"]


def test_an_error_after_all_tasks(trace: Trace) -> None:
    assert trace.run([trace.task("a"), trace.task("b")], after=ValueError("late")).is_failed()
    assert trace.lines == ["a", "b", "end", "rollback-b", "rollback-a"]


def test_the_same_task_twice(trace: Trace) -> None:
    step = trace.task("a")
    trace.run([step, step, trace.task("c", ValueError("no"))])
    assert trace.lines == ["a", "a", "c", "rollback-a", "rollback-a"]


def test_a_commit_hook_that_fails_undoes_all(
    trace: Trace, recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    state = trace.run([trace.task("a"), trace.task("b", hook_error="commit"), trace.task("c")])
    assert state.is_completed()
    # What is committed stays so.
    assert trace.lines == ["a", "b", "c", "end", "commit-a", "commit-b", "rollback-b", "rollback-c"]
    assert last_names(recorder, "a", "b", "c") == ["Completed", "RolledBack", "RolledBack"]
    assert "could not be committed" in caplog.text


def test_a_rollback_hook_that_fails_stops_those_of_its_transaction_only(
    trace: Trace, caplog: pytest.LogCaptureFixture
) -> None:
    b = trace.task("b", hook_error="rollback")
    b.on_rollback_hooks.insert(0, lambda txn: trace.lines.append("never"))
    trace.run([trace.task("a"), b, trace.task("c", ValueError("no"))])
    assert trace.lines == ["a", "b", "c", "rollback-b", "rollback-a"]
    assert "A rollback hook failed" in caplog.text


def test_hooks_of_one_task_in_order() -> None:
    lines: list[str] = []
    hooks = [lambda txn, n=n: lines.append(n) for n in "xy"]
    step = task(lambda: 1, on_commit=hooks, on_rollback=hooks)
    with transaction():
        step()
    assert lines == ["x", "y"]
    with pytest.raises(ValueError, match="no"), transaction():
        step()
        raise ValueError("no")
    assert lines == ["x", "y", "y", "x"]
    assert step.with_options(on_commit=[]).on_commit_hooks == []
    assert step.with_options().on_rollback_hooks == hooks


def test_a_failed_task_undoes_the_block_at_once_and_the_flow_goes_on(recorder: MemoryRecorder) -> None:
    trace = Trace()
    a, c = trace.task("a"), trace.task("c", ValueError("no"))

    @flow
    def outer() -> bool:
        with transaction() as txn:
            a()
            c(return_state=True)
            trace.lines.append("on")
            return txn.is_rolled_back()

    assert outer() is True
    assert trace.lines == ["a", "c", "rollback-a", "on"]


def test_a_returned_failed_state_undoes_the_block() -> None:
    trace = Trace()
    trace.run([trace.task("a"), trace.task("c", Failed(message="no"))])
    assert trace.lines == ["a", "c", "rollback-a", "end"]


def test_an_attempt_that_is_retried_undoes_nothing_around_it() -> None:
    trace = Trace()
    errors = [ValueError("once")]

    @task(retries=1, on_rollback=[lambda txn: trace.lines.append("rollback-shaky")])
    def shaky() -> None:
        inner()
        if errors:
            raise errors.pop()

    inner = trace.task("inner")
    trace.run([trace.task("a"), shaky])
    assert trace.lines == [
        "a", "inner", "rollback-inner", "inner", "end", "commit-a", "commit-inner",
    ]  # fmt: skip


def test_blocks_in_blocks() -> None:
    trace = Trace()
    a, b, c = (trace.task(name) for name in "abc")
    with transaction():
        a()
        with transaction():
            b()
        trace.lines.append("inner ended")
        c()
    assert trace.lines == ["a", "b", "inner ended", "c", "commit-a", "commit-b", "commit-c"]
    trace.lines.clear()
    with pytest.raises(ValueError, match="no"), transaction():
        a()
        with transaction(commit_mode="EAGER"):
            b()
        with transaction():
            c()
        raise ValueError("no")
    assert trace.lines == ["a", "b", "commit-b", "c", "rollback-c", "rollback-a"]


def test_a_block_in_a_task_belongs_to_the_task() -> None:
    trace = Trace()
    a = trace.task("a")

    def body(error: Exception | None) -> None:
        with transaction():
            a()
        trace.lines.append("body")
        if error:
            raise error

    step = task(body, name="step")
    step(None)
    assert trace.lines == ["a", "body", "commit-a"]
    trace.lines.clear()
    step(ValueError("no"), return_state=True)
    assert trace.lines == ["a", "body", "rollback-a"]
    trace.lines.clear()
    with pytest.raises(KeyboardInterrupt):
        step(KeyboardInterrupt())  # type: ignore[arg-type]
    assert trace.lines == ["a", "body", "rollback-a"]


# Values.


def test_values_are_looked_up_outwards_and_copied() -> None:
    @task
    def step() -> None:
        txn = get_transaction()
        assert txn is not None and txn.parent is not None
        assert txn.get("of the flow") == [1]
        txn.get("of the flow").append(2)
        txn.set("of the task", 5)
        assert txn.get("of the task") == 5

    with transaction() as outer:
        outer.set("of the flow", [1])
        with transaction() as inner:
            step()
            assert inner.get("of the flow") == [1]
            inner.set("mine", 1)
        with pytest.raises(ValueError, match="unknown key: mine"):
            outer.get("mine")
        with pytest.raises(ValueError, match="of the task"):
            outer.get("of the task")
        assert outer.get("mine", None) is None
        assert get_transaction() is outer
        assert [child.is_staged() for child in outer.children] == [True]
    assert get_transaction() is None


def test_hooks_see_the_values_of_their_task() -> None:
    seen: list[Any] = []

    @task(on_rollback=[lambda txn: seen.append(txn.get("file"))])
    def write() -> None:
        txn = get_transaction()
        assert txn is not None
        txn.set("file", "a.txt")

    with pytest.raises(ValueError, match="no"), transaction():
        write()
        raise ValueError("no")
    assert seen == ["a.txt"]


# Keys.


def test_a_value_under_a_key(place: Path) -> None:
    with transaction(key="k") as txn:
        assert txn.is_active() and txn.read() is None
        txn.stage({"a": 1})
        assert not (place / "k").exists()
    assert txn.is_committed()
    with transaction(key="k") as txn:
        assert txn.is_committed()
        record = txn.read()
        assert record is not None and record.result == {"a": 1}
        txn.stage("ignored")
    with transaction(key="k", overwrite=True) as txn:
        assert txn.is_active()
        txn.stage("new")
    assert ResultStore().read("k").result == "new"
    with transaction(key="unwritten", write_on_commit=False) as txn:
        txn.stage(1)
    with pytest.raises(ValueError, match="no"), transaction(key="undone") as txn:
        txn.stage(1)
        raise ValueError("no")
    with transaction(key="unserialisable") as txn:
        txn.stage(threading.Lock(), on_rollback_hooks=[lambda txn: txn.set("hook", True)])
    assert txn.is_rolled_back() and txn.get("hook") is True
    assert [path.name for path in place.iterdir()] == ["k"]


def test_a_result_is_found_again_after_a_commit_and_not_after_a_rollback(
    recorder: MemoryRecorder, place: Path
) -> None:
    trace = Trace()
    a = trace.task("a", result_storage_key="k")
    trace.run([a], after=ValueError("no"))
    assert not place.exists()
    trace.run([a])
    trace.run([a])
    assert [run.names[-1] for run in recorder.all("a")] == ["RolledBack", "Completed", "Cached"]
    assert trace.lines == ["a", "end", "rollback-a", "a", "end", "commit-a", "end"]


def test_hooks_of_a_fresh_run_in_order() -> None:
    lines: list[str] = []

    def note(line: str) -> Any:
        return lambda *_: lines.append(line)

    step = task(
        lambda: lines.append("body"),
        result_storage_key="k",
        on_running=[note("running")],
        on_commit=[note("commit")],
        on_completion=[note("completion")],
    )
    step()
    assert lines == ["running", "body", "commit", "completion"]


def test_equal_calls_in_one_block_do_not_wait_for_each_other() -> None:
    from headrace.cache_policies import INPUTS

    policy = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=MemoryLockManager())
    runs: list[int] = []
    step = task(lambda x: runs.append(x), cache_policy=policy)
    with transaction():
        step(1)
        step(1)
    step(1)
    assert runs == [1, 1]


# At the same time.


def test_serializable_blocks_do_not_overlap(tmp_path: Path) -> None:
    store = ResultStore(result_storage=tmp_path / "kept", lock_manager=MemoryLockManager())
    inside: list[int] = []

    def work(n: int) -> bool:
        with transaction(key="k", store=store, isolation_level="SERIALIZABLE") as txn:
            if txn.is_committed():
                return False
            inside.append(n)
            assert len(inside) == 1
            txn.stage(n)
            return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 1
    assert not store.is_locked("k")


@pytest.mark.parametrize("error", [None, ValueError])
async def test_the_lock_is_given_back(error: Any, tmp_path: Path) -> None:
    store = ResultStore(result_storage=tmp_path / "kept", lock_manager=MemoryLockManager())
    try:
        async with atransaction(key="k", store=store, isolation_level="SERIALIZABLE") as txn:
            assert store.is_locked("k")
            txn.stage(1)
            if error:
                raise error
    except ValueError:
        pass
    assert not store.is_locked("k")


def test_isolation_needs_locks() -> None:
    with (
        pytest.raises(ConfigurationError, match="lock manager"),
        transaction(key="k", isolation_level="SERIALIZABLE"),
    ):
        pass


async def test_an_async_transaction_is_entered_with_async_with() -> None:
    with pytest.raises(TypeError, match="async with"), atransaction():
        pass


def test_submitted_tasks_belong_to_the_block() -> None:
    trace = Trace()
    a, b, bad = trace.task("a"), trace.task("b"), trace.task("bad", ValueError("no"))

    @flow
    def good() -> None:
        with transaction():
            a.submit().wait()
            b.submit().wait()
            trace.lines.append("end")

    good()
    assert trace.lines == ["a", "b", "end", "commit-a", "commit-b"]
    trace.lines.clear()

    @flow
    def undone() -> None:
        with transaction():
            a.submit().wait()
            bad.submit().wait()
            trace.lines.append("end")

    undone()
    assert trace.lines == ["a", "bad", "rollback-a", "end"]


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_a_task_that_ends_after_its_block_ends_as_the_block_has(error: Exception | None) -> None:
    trace = Trace()
    block_has_ended = threading.Event()
    late = trace.task("late")
    body = late.fn

    def wait_then_run() -> None:
        assert block_has_ended.wait(60)
        body()

    late.fn = wait_then_run

    @flow
    def outer() -> None:
        try:
            with transaction():
                future = late.submit()
                if error:
                    raise error
        except ValueError:
            pass
        trace.lines.append("end")
        block_has_ended.set()
        future.wait()

    outer()
    assert trace.lines == ["end", "late", "rollback-late" if error else "commit-late"]


async def test_gathered_tasks_belong_to_the_block() -> None:
    trace = Trace("async def")
    steps = [trace.task(str(n)) for n in range(5)]

    @flow
    async def outer() -> None:
        async with atransaction():
            await asyncio.gather(*[step() for step in steps])
            trace.lines.append("end")

    await outer()
    assert sorted(trace.lines[:5]) == list("01234") and trace.lines[5] == "end"
    assert sorted(trace.lines[6:]) == [f"commit-{n}" for n in range(5)]


PROGRAM = """
import sys
from pathlib import Path
from headrace.locking.filesystem import FileSystemLockManager
from headrace.results import ResultStore
from headrace.transactions import transaction

here = Path(sys.argv[1])
store = ResultStore(result_storage=here / "kept", lock_manager=FileSystemLockManager(here / "locks"))
with transaction(key="k", store=store, isolation_level="SERIALIZABLE") as txn:
    print("committed" if txn.is_committed() else "in", flush=True)
    sys.stdin.readline()
    txn.stage(1)
"""


def started(here: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(here)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HEADRACE_API_URL": "off", "HEADRACE_HOME": str(here / "home")},
    )


def test_processes_do_not_overlap(tmp_path: Path) -> None:
    killed = started(tmp_path)
    assert killed.stdout is not None and killed.stdout.readline() == "in\n"
    first = started(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert first.stdout is not None and first.stdout.readline() == "in\n"
    second = started(tmp_path)
    first.communicate("\n", timeout=60)
    assert second.communicate("\n", timeout=60)[0] == "committed\n"
