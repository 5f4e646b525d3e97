"""Which calls of tasks run, and which are given the result of an earlier one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from headrace import flow, task
from headrace.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
)
from headrace.context import TaskRunContext
from headrace.core.errors import ConfigurationError
from headrace.execution.encoding import state_from_proto
from headrace.locking.filesystem import FileSystemLockManager
from headrace.locking.memory import MemoryLockManager
from headrace.results import get_result_store
from headrace.settings import temporary_settings
from headrace.states import Failed
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder
from tests.support.tools import ROOT


@pytest.fixture(autouse=True)
def place(tmp_path: Path, recorder: MemoryRecorder) -> Any:
    """Results are kept in a folder of this test."""
    with temporary_settings({"results_local_storage_path": tmp_path / "kept"}):
        yield tmp_path / "kept"


class Counted:
    """A body that counts its runs."""

    def __init__(self, value: Any = 5) -> None:
        self.runs = 0
        self.value = value

    def __call__(self, x: Any = 1, y: Any = 2) -> Any:
        self.runs += 1
        return self.value


def step_of(kind: str, body: Counted, **options: Any) -> Any:
    """A task of either kind with that body."""

    def step(x: Any = 1, y: Any = 2) -> Any:
        return body(x, y)

    async def astep(x: Any = 1, y: Any = 2) -> Any:
        return body(x, y)

    return task(step if kind == "def" else astep, name="step", **options)


def runs_in_one_flow(kind: str, **options: Any) -> int:
    """How often the body runs when it is called twice with the same arguments."""
    body = Counted()
    step = step_of(kind, body, **options)

    def outer() -> Any:
        return [step(), step()]

    async def aouter() -> Any:
        return [await step(), await step()]

    assert call(flow(outer if kind == "def" else aouter)) == [5, 5]
    return body.runs


def key_of(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    return f"mine-{parameters['x']}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "settings", "runs"),
    [
        ({}, {}, 2),
        ({"persist_result": True}, {}, 1),
        ({"persist_result": False}, {"results_persist_by_default": True}, 2),
        ({}, {"results_persist_by_default": True}, 1),
        ({}, {"tasks_default_persist_result": True}, 1),
        ({}, {"tasks_default_persist_result": True, "tasks_default_no_cache": True}, 2),
        ({"cache_policy": INPUTS}, {}, 1),
        ({"cache_policy": INPUTS}, {"tasks_default_no_cache": True}, 1),
        ({"cache_policy": INPUTS}, {"tasks_disable_caching": True}, 2),
        ({"cache_policy": INPUTS}, {"tasks_refresh_cache": True}, 2),
        ({"cache_policy": INPUTS, "refresh_cache": False}, {"tasks_refresh_cache": True}, 1),
        ({"cache_policy": INPUTS, "refresh_cache": True}, {}, 2),
        ({"cache_policy": INPUTS, "persist_result": False}, {}, 2),
        ({"cache_policy": NO_CACHE}, {"results_persist_by_default": True}, 2),
        ({"cache_policy": None, "persist_result": True}, {}, 2),
        ({"cache_policy": NONE, "result_storage_key": "k"}, {}, 2),
        ({"result_storage_key": "k"}, {}, 1),
        ({"result_storage_key": "k"}, {"tasks_disable_caching": True}, 2),
        ({"result_storage_key": "k", "cache_policy": RUN_ID}, {}, 1),
        ({"result_storage_key": "k", "persist_result": False}, {}, 2),
        ({"cache_key_fn": key_of}, {}, 1),
        ({"cache_key_fn": lambda *_: None}, {}, 2),
        ({"result_serializer": "json"}, {}, 1),
        ({"cache_policy": INPUTS, "cache_result_in_memory": False}, {}, 1),
    ],
)
def test_which_calls_run(kind: str, options: dict[str, Any], settings: dict[str, Any], runs: int) -> None:
    with temporary_settings(settings):
        assert runs_in_one_flow(kind, **options) == runs


def test_what_a_hit_goes_through(recorder: MemoryRecorder) -> None:
    seen: list[str] = []
    body = Counted([1])
    step = step_of(
        "def",
        body,
        cache_policy=INPUTS,
        cache_expiration=timedelta(hours=1),
        on_running=[lambda *_: seen.append("running")],
        on_completion=[lambda _task, _run, state: seen.append(state.name)],
    )
    flow(lambda: [step(), step()])()
    fresh, hit = recorder.all("step")
    assert fresh.names == ["Pending", "Running", "Completed"]
    assert hit.names == ["Pending", "Running", "Cached"]
    assert seen == ["running", "Completed", "running", "Cached"]
    first, again = fresh.states[-1], hit.states[-1]
    assert (first.completed.from_cache, again.completed.from_cache) == (False, True)
    assert first.completed.cache_key == again.completed.cache_key != ""
    assert first.completed.cache_expire_time == again.completed.cache_expire_time
    assert state_from_proto(again).result(_sync=True) == [1]


def hits(recorder: MemoryRecorder) -> list[str]:
    """The names of the last states of all runs of the task, in order."""
    return [run.names[-1] for run in recorder.all("step")]


def test_flow_runs_share_what_has_no_run_in_its_key(recorder: MemoryRecorder) -> None:
    for policy, last in [(INPUTS, "Cached"), (RUN_ID, "Completed"), (DEFAULT, "Completed")]:
        recorder.entries.clear()
        step = step_of("def", Counted(), cache_policy=policy)
        outer = flow(lambda step=step: step())
        outer()
        outer()
        assert hits(recorder) == ["Completed", last]


def test_a_subflow_is_a_flow_run_of_its_own(recorder: MemoryRecorder) -> None:
    step = step_of("def", Counted(), cache_policy=RUN_ID)
    inner = flow(lambda: [step(), step()], name="inner")
    flow(lambda: [step(), inner()])()
    assert hits(recorder) == ["Completed", "Completed", "Cached"]


def test_parameters_of_the_flow_as_a_key(recorder: MemoryRecorder) -> None:
    step = step_of("def", Counted(), cache_policy=FLOW_PARAMETERS)

    @flow
    def outer(day: int) -> None:
        step(day)

    for day in (1, 2, 1):
        outer(day)
    assert hits(recorder) == ["Completed", "Completed", "Cached"]


def test_arguments_left_out(recorder: MemoryRecorder) -> None:
    step = step_of("def", Counted(), cache_policy=INPUTS - "y")
    flow(lambda: [step(1, 2), step(1, 3), step(2, 2)])()
    assert hits(recorder) == ["Completed", "Cached", "Completed"]


def test_values_of_different_types_are_different_keys(recorder: MemoryRecorder) -> None:
    step = step_of("def", Counted(), cache_policy=INPUTS)
    values = [1, True, 1.0, "1", b"1", None, "None"]
    flow(lambda: [step(value) for value in values])()
    assert hits(recorder) == ["Completed"] * 7


def test_futures_count_as_their_results(recorder: MemoryRecorder) -> None:
    source = task(lambda: {"b", "a"}, name="source")
    step = step_of("def", Counted(), cache_policy=INPUTS)
    flow(lambda: [step({"a", "b"}), step(source.submit())])()
    assert hits(recorder) == ["Completed", "Cached"]


def test_editing_the_body_is_another_key(recorder: MemoryRecorder) -> None:
    def one() -> int:
        return 1

    def two() -> int:
        return 2

    for fn in (one, two):
        task(fn, name="step", cache_policy=TASK_SOURCE + INPUTS)()
    assert hits(recorder) == ["Completed", "Completed"]


class Broken(CachePolicy):
    def compute_key(self, *_: Any, **__: Any) -> str:
        raise RuntimeError("no key today")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cache_key_fn": lambda *_: 1 / 0}, "ZeroDivisionError"),
        ({"cache_key_fn": lambda *_: 5}, "must return a string"),
        ({"cache_policy": Broken()}, "no key today"),
        ({"cache_policy": INPUTS}, "INPUTS - 'argument'"),
    ],
)
def test_a_key_that_cannot_be_made_is_logged_and_the_task_runs(
    options: dict[str, Any], text: str, recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    step = step_of("def", Counted(), **options)
    flow(lambda: [step(threading.Lock()), step(threading.Lock())])()
    assert hits(recorder) == ["Completed", "Completed"]
    assert caplog.text.count("The cache key could not be made") == 2
    assert text in caplog.text


def test_a_key_function_sees_resolved_arguments() -> None:
    seen: list[Any] = []

    def key(context: TaskRunContext, parameters: dict[str, Any]) -> None:
        seen.append((context.task.name, parameters))

    source = task(lambda: 7, name="source")
    flow(lambda: step_of("def", Counted(), cache_key_fn=key)(source.submit()))()
    assert seen == [("step", {"x": 7, "y": 2})]


@pytest.mark.parametrize("kind", KINDS)
def test_only_success_is_found_again(kind: str, recorder: MemoryRecorder) -> None:
    outcomes: list[Any] = [ValueError("no"), Failed(message="no"), 5, 6]

    def body() -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    step = task(of_kind(kind, body), name="step", result_storage_key="k")
    for _ in range(4):
        call(step, return_state=True)
    assert hits(recorder) == ["Failed", "Failed", "Completed", "Cached"]
    assert recorder.all("step")[-1].result == 5


def test_a_retried_attempt_looks_again(recorder: MemoryRecorder, slept: list[float]) -> None:
    def body() -> None:
        get_result_store().write("other", key="k")
        raise ValueError("after another has written")

    step = task(body, name="step", result_storage_key="k", retries=1)
    assert step() == "other"
    assert recorder.the("step").names == ["Pending", "Running", "Retrying", "Cached"]


def test_results_expire(recorder: MemoryRecorder) -> None:
    body = Counted()
    step = step_of("def", body, cache_policy=INPUTS, cache_expiration=timedelta(minutes=5))
    with time_machine.travel("2024-01-01T00:00:00Z", tick=False) as clock:
        for minutes in (0, 4, 2, 4):
            clock.shift(timedelta(minutes=minutes))
            step()
    assert hits(recorder) == ["Completed", "Cached", "Completed", "Cached"]


def test_a_renewed_result_takes_the_place_of_the_old(recorder: MemoryRecorder) -> None:
    body = Counted("old")
    step = step_of("def", body, cache_policy=INPUTS)
    step()
    body.value = "new"
    assert step.with_options(refresh_cache=True)() == "new"
    assert step() == "new" and body.runs == 2


@pytest.mark.parametrize("spoiled", [None, b"", b"{", b'{"headrace_result":1,"size":5}\n1', b"\x80\x04."])
def test_what_cannot_be_read_is_not_there(
    spoiled: bytes | None, place: Path, recorder: MemoryRecorder
) -> None:
    step = step_of("def", Counted(), result_storage_key="k")
    step()
    if spoiled is None:
        (place / "k").unlink()
    else:
        (place / "k").write_bytes(spoiled)
    step()
    step()
    assert hits(recorder) == ["Completed", "Completed", "Cached"]


class Vanishing:
    """Its class is not there any more when it is read."""

    def __reduce__(self) -> Any:
        return (_gone, ())


def _gone() -> None:
    raise ImportError("no such class")


def test_a_value_of_a_class_that_is_gone_is_not_there(recorder: MemoryRecorder) -> None:
    step = step_of("def", Counted(Vanishing()), result_storage_key="k")
    step()
    step()
    assert hits(recorder) == ["Completed", "Completed"]


def test_warnings_about_options_that_do_not_go_together(caplog: pytest.LogCaptureFixture) -> None:
    step_of("def", Counted(), cache_policy=INPUTS, cache_key_fn=key_of)
    step_of("def", Counted(), cache_policy=INPUTS, persist_result=False)
    step_of("def", Counted(), cache_policy=INPUTS, result_storage_key="k")
    assert [record.getMessage().partition(" has ")[2] or "False" for record in caplog.records] == [
        "a cache_policy and a cache_key_fn: the function is used.",
        "False",
        "a cache_policy and a result_storage_key: the key is used.",
    ]


@pytest.mark.parametrize(
    "option", [{"cache_policy": "INPUTS"}, {"cache_key_fn": "k"}, {"cache_expiration": 60}]
)
def test_options_of_the_wrong_type(option: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(option))):
        task(lambda: 1, **option)


def test_options_are_kept_by_with_options() -> None:
    step = task(
        lambda: 1,
        cache_policy=INPUTS,
        cache_expiration=timedelta(1),
        refresh_cache=True,
        cache_result_in_memory=False,
    )
    other = step.with_options(name="other")
    assert other.cache_policy is INPUTS and other.cache_expiration == timedelta(1)
    assert other.refresh_cache is True and other.cache_result_in_memory is False
    assert step.with_options(cache_policy=None).cache_policy is NO_CACHE
    assert step.with_options(cache_policy=None).persist_result is None
    assert task(lambda: 1).cache_policy is DEFAULT
    assert step.with_options(cache_key_fn=key_of).cache_key_fn is key_of


def test_generators(recorder: MemoryRecorder) -> None:
    @task(result_storage_key="k", name="step")
    def numbers() -> Any:
        yield from range(3)

    @flow
    def outer() -> Any:
        # What is yielded one by one is no result: nothing is found again.
        return [list(numbers()), list(numbers()), numbers.submit().result(), numbers.submit().result()]

    assert outer() == [[0, 1, 2]] * 4
    assert hits(recorder) == ["Completed", "Completed", "Completed", "Cached"]


def test_records_apart_from_values(tmp_path: Path, place: Path, recorder: MemoryRecorder) -> None:
    policy = INPUTS.configure(key_storage=tmp_path / "records")
    step = step_of("def", Counted(), cache_policy=policy)
    step()
    step()
    assert hits(recorder) == ["Completed", "Cached"]
    (record,) = (tmp_path / "records").iterdir()
    assert (place / record.name).is_file()


# At the same time.


def test_without_isolation_both_may_run(place: Path, recorder: MemoryRecorder) -> None:
    both_are_in = threading.Barrier(2)

    def body() -> int:
        both_are_in.wait(60)
        return 5

    step = task(body, name="step", result_storage_key="k", result_storage=place)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: step(), range(2))) == [5, 5]
    assert hits(recorder) == ["Completed", "Completed"]


def serializable(lock_manager: Any) -> CachePolicy:
    return INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=lock_manager)


@pytest.mark.parametrize(
    "make", [lambda _: MemoryLockManager(), FileSystemLockManager], ids=["memory", "files"]
)
def test_one_thread_runs_and_nine_wait(make: Any, tmp_path: Path, recorder: MemoryRecorder) -> None:
    entered = threading.Event()
    body = Counted()

    @task(name="step", cache_policy=serializable(make(tmp_path / "locks")), result_storage=tmp_path / "kept")
    def step(x: int) -> int:
        entered.set()
        return body()

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(lambda _: step(1), range(10))) == [5] * 10
    assert body.runs == 1 and entered.is_set()
    assert sorted(hits(recorder)) == ["Cached"] * 9 + ["Completed"]


async def test_one_coroutine_runs_and_nine_wait(place: Path, recorder: MemoryRecorder) -> None:
    body = Counted()

    @task(name="step", cache_policy=serializable(MemoryLockManager()), result_storage=place)
    async def step(x: int) -> int:
        await asyncio.sleep(0)
        return body()

    async with asyncio.timeout(60):
        assert await asyncio.gather(*[step(1) for _ in range(10)]) == [5] * 10
    assert body.runs == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_lock_is_given_back_when_the_body_raises(error: type[BaseException]) -> None:
    locks = MemoryLockManager()
    errors: list[Any] = [error("once")]

    @task(cache_policy=serializable(locks))
    def step(x: int) -> int:
        if errors:
            raise errors.pop()
        return 5

    with pytest.raises(error):
        step(1)
    assert not errors
    assert step(1) == 5


def test_isolation_without_locks_fails_the_task(recorder: MemoryRecorder) -> None:
    step = step_of("def", Counted(), cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"))
    with pytest.raises(ConfigurationError, match="lock manager"):
        step()
    assert hits(recorder) == ["Failed"]


PROGRAM = """
import sys, time
from pathlib import Path
from headrace import task
from headrace.cache_policies import INPUTS
from headrace.locking.filesystem import FileSystemLockManager

here = Path(sys.argv[1])
policy = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=FileSystemLockManager(here / "locks"))

@task(cache_policy=policy, result_storage=here / "kept")
def step(x: int) -> int:
    with (here / "runs").open("a") as runs:
        runs.write("x")
    print("in", flush=True)
    sys.stdin.readline()
    return 5

print(step(1, return_state=True).name, flush=True)
"""


def started(here: Path) -> subprocess.Popen[str]:
    """A process that calls the task; its body ends when it is sent a line."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(here)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HEADRACE_API_URL": "off", "HEADRACE_HOME": str(here / "home")},
    )


def test_one_process_computes_and_the_other_waits(tmp_path: Path) -> None:
    first = started(tmp_path)
    assert first.stdout is not None and first.stdout.readline() == "in\n"
    second = started(tmp_path)
    # Whatever it does now, it does not get into the body before the first is done.
    out, _ = first.communicate("\n", timeout=60)
    assert out == "Completed\n"
    assert second.communicate("\n", timeout=60)[0] == "Cached\n"
    assert (tmp_path / "runs").read_text() == "x"


def test_a_killed_holder_does_not_keep_the_others_out(tmp_path: Path) -> None:
    first = started(tmp_path)
    assert first.stdout is not None and first.stdout.readline() == "in\n"
    second = started(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    assert second.communicate("\n", timeout=60)[0] == "in\nCompleted\n"
    assert (tmp_path / "runs").read_text() == "xx"
