"""What only clusters do to a task: Dask and Ray, the real ones, on this machine."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace import flow, task
from headrace.context import FlowRunContext
from headrace.exceptions import CrashedRun, MissingResult, SerializationError
from headrace.futures import wait
from headrace.integrations.dask import DaskTaskRunner, get_dask_client
from headrace.integrations.ray import RayTaskRunner, remote_options
from headrace.task_runners import TaskRunner
from headrace.utilities.annotations import quote
from tests.support.clusters import DASK, RAY, TOO_SLOW, on_dask, on_ray, ray_environment
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder")

MakeRunner = Callable[..., TaskRunner[Any]]
LARGE = 300_000


@pytest.fixture(params=[pytest.param("dask", marks=DASK), pytest.param("ray", marks=RAY)])
def runner(request: pytest.FixtureRequest) -> MakeRunner:
    """Makes a runner on the cluster of two workers."""
    cluster = request.getfixturevalue(request.param)
    if request.param == "ray":
        return RayTaskRunner
    return lambda **options: DaskTaskRunner(cluster, **options)


class Traced:
    """A large value that writes down in which processes it is made and unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.filling = os.urandom(LARGE)
        self._note()

    def _note(self) -> None:
        with open(self.path, "a") as file:  # noqa: PTH123 - it travels to other processes
            file.write(f"{os.getpid()}\n")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self._note()


def processes(path: pathlib.Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()]


def test_large_results_go_from_worker_to_worker(
    runner: MakeRunner, recorder: MemoryRecorder, tmp_path: pathlib.Path
) -> None:
    trace = tmp_path / "trace"

    @task
    def make(path: str) -> Traced:
        return Traced(path)

    @task
    def pass_on(value: Traced) -> Traced:
        return value

    @task
    def size(whole: dict[str, Any]) -> int:
        first, second = whole["both"]
        return len(first.filling) + len(second.filling)

    @flow(task_runner=runner())
    def run() -> None:
        made = make.submit(str(trace))
        passed = pass_on.submit(made)
        assert size.submit({"both": [made, passed]}).result(timeout=60) == 2 * LARGE
        assert made.state.is_completed()
        assert os.getpid() not in processes(trace)
        value = made.result()
        assert len(value.filling) == LARGE
        assert os.getpid() in processes(trace)
        assert made.result() is value
        # By value, and yet it is known where it came from.
        assert size.submit({"both": [value, passed]}).result(timeout=60) == 2 * LARGE

    run()
    made_id = recorder.the("make").run.id
    for one in recorder.all("size"):
        assert made_id in {run_id for edge in one.run.inputs for run_id in edge.run_ids}


def test_large_results_outlive_the_flow_run(runner: MakeRunner) -> None:
    kept: list[Any] = []

    @task
    def make() -> bytes:
        return bytes(LARGE)

    @flow(task_runner=runner())
    def run() -> Any:
        kept.append(make.submit())
        return make.submit()

    state = run(return_state=True)
    assert len(state.result(_sync=True).result(_sync=True)) == LARGE
    assert len(kept[0].result()) == LARGE
    assert len(pickle.loads(pickle.dumps(kept[0].state)).result(_sync=True)) == LARGE


def test_large_arguments(runner: MakeRunner) -> None:
    @task
    def size(data: bytes) -> int:
        return len(data)

    @flow(task_runner=runner())
    def run() -> int:
        return size.submit(bytes(12_000_000)).result(timeout=60)

    assert run() == 12_000_000


def test_a_worker_that_is_killed_crashes_its_run_and_no_other(
    runner: MakeRunner, recorder: MemoryRecorder, tmp_path: pathlib.Path
) -> None:
    begun = str(tmp_path / "begun")

    @task(retries=2)
    def die() -> None:
        with open(begun, "a") as file:  # noqa: PTH123
            file.write("x")
        inner.submit().wait()

    @task
    def inner() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def work(x: int) -> int:
        return x + 1

    @flow(task_runner=runner())
    def run() -> None:
        future = die.submit()
        with pytest.raises(CrashedRun, match="death of the worker"):
            future.result(timeout=60)
        assert work.submit(future, return_state=True).name == "NotReady"
        assert work.map([1, 2, 3]).result(timeout=60) == [2, 3, 4]

    run()
    assert pathlib.Path(begun).read_text() == "x", "the cluster does not run it again"
    assert recorder.the("die").names == ["Pending", "Running", "Crashed"]
    assert recorder.the("inner").names == ["Pending", "Running", "Crashed"]


def test_when_the_body_ends_what_no_worker_has_begun_is_cancelled(
    runner: MakeRunner, recorder: MemoryRecorder, tmp_path: pathlib.Path
) -> None:
    door, ran = tmp_path / "door", tmp_path / "ran"
    ran.mkdir()

    @task
    def held(i: int, door: str, ran: str) -> None:
        pathlib.Path(ran, str(i)).touch()
        while not pathlib.Path(door).exists():
            time.sleep(0.01)

    kept: list[Any] = []

    @flow(task_runner=runner())
    def run() -> None:
        kept.extend(held.submit(i, str(door), str(ran)) for i in range(8))
        pause = threading.Event()
        while len(list(ran.iterdir())) < 2:
            assert not pause.wait(0.01)
        # The cluster has been given all of them, and two are running.
        kept[-1].add_done_callback(lambda _: door.touch())

    run()
    names = [future.state.name for future in kept]
    assert sorted(names) == ["Cancelled"] * 6 + ["Completed"] * 2
    assert len(list(ran.iterdir())) == 2
    ended = {one.run.id: one.names for one in recorder.all("held")}
    for future in kept:
        if future.state.is_cancelled():
            assert ended[future.task_run_id] == ["Pending", "Cancelled"]
            assert "the flow ended before it started" in future.state.message


def test_a_cancelled_flow_run_interrupts_what_runs_on_the_cluster(
    runner: MakeRunner, recorder: MemoryRecorder, tmp_path: pathlib.Path
) -> None:
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"

    @task
    def hang(begun: str, cleaned: str) -> None:
        try:
            pathlib.Path(begun).touch()
            while True:
                time.sleep(0.01)
        finally:
            pathlib.Path(cleaned).touch()

    kept: list[Any] = []

    @flow(task_runner=runner(max_workers=1))
    def run() -> None:
        context = FlowRunContext.get()
        assert context is not None
        kept.extend(hang.submit(str(begun), str(cleaned)) for _ in range(3))
        pause = threading.Event()
        while not begun.exists():
            assert not pause.wait(0.01)
        context.cancel("enough")
        wait(kept, timeout=60)

    assert run(return_state=True).is_cancelled()
    assert cleaned.exists()
    assert [future.state.name for future in kept] == ["Cancelled"] * 3
    assert recorder.all("hang")[0].names == ["Pending", "Running", "Cancelled"]


def test_thousands_of_mapped_tasks_take_few_threads(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task
    def same(x: int) -> int:
        return x

    most = [0]

    @flow(task_runner=runner())
    def run() -> list[int]:
        before = threading.active_count()
        futures = same.map(range(1_000))
        for future in futures:
            future.wait()
            most[0] = max(most[0], threading.active_count() - before)
        return futures.result()

    assert run() == list(range(1_000))
    assert most[0] < 40
    assert {one.names[-1] for one in recorder.all("same")} == {"Completed"}


def test_what_cannot_be_pickled_fails_its_task_only(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task
    def take(x: Any) -> str:
        return type(x).__name__

    @task
    def give() -> Any:
        return threading.Lock()

    @flow(task_runner=runner())
    def run() -> None:
        bad_argument, bad_result = take.submit(quote(threading.Lock())), give.submit()
        assert take.submit(1).result(timeout=60) == "int"
        with pytest.raises(SerializationError, match="Argument 'x' of task 'take'"):
            bad_argument.result(timeout=60)
        with pytest.raises(SerializationError, match="The result cannot leave its process"):
            bad_result.result(timeout=60)

    run()
    assert [one.names[-1] for one in recorder.all("take")] == ["Failed", "Completed"]


def test_a_worker_on_another_machine_needs_a_server(runner: MakeRunner, recorder: MemoryRecorder) -> None:
    @task
    def work() -> int:
        return 1

    @flow(task_runner=runner())
    def run() -> Any:
        begun = work.submit().result(timeout=60)
        hide_lines()
        return begun, work.submit(return_state=True)

    begun, state = run()
    assert begun == 1
    assert (state.name, state.data.__class__.__name__) == ("Failed", "ConfigurationError")
    assert "HEADRACE_API_URL" in str(state.message)
    assert [one.names for one in recorder.all("work")][1] == ["Pending", "Failed"]


def hide_lines() -> None:
    """From now on workers find the flow's process as little as on another machine."""
    context = FlowRunContext.get()
    assert context is not None
    runner: Any = context.task_runner
    pathlib.Path(runner._lines.address).unlink()


# Dask

IN_HERE = {
    "processes": False,
    "n_workers": 1,
    "threads_per_worker": 2,
    "dashboard_address": "127.0.0.1:0",
}


@on_dask
def test_dask_options() -> None:
    with pytest.raises(ValueError, match="Cannot specify `address` and `cluster_class`, `adapt_kwargs`"):
        DaskTaskRunner(address="tcp://x:1", cluster_class="a.B", adapt_kwargs={"maximum": 2})
    with pytest.raises(ValueError, match="Cannot specify `cluster` and `cluster_kwargs`"):
        DaskTaskRunner(cluster=object(), cluster_kwargs={"n_workers": 2})
    with pytest.raises(TypeError, match="asynchronous"):
        DaskTaskRunner(client_kwargs={"asynchronous": True})
    with pytest.raises(TypeError, match="asynchronous"):
        DaskTaskRunner(cluster_kwargs={"asynchronous": True})
    made = DaskTaskRunner(cluster_kwargs={"n_workers": 2}, max_workers=3)
    assert made.name == "dask"
    assert made == made.duplicate() == pickle.loads(pickle.dumps(made))
    assert made != DaskTaskRunner(cluster_kwargs={"n_workers": 3}, max_workers=3)
    assert "n_workers" in repr(made)
    with pytest.raises(RuntimeError, match="not started"):
        made.client  # noqa: B018
    with pytest.raises(RuntimeError, match="DaskTaskRunner"), get_dask_client():
        pass


@on_dask
def test_dask_clusters_of_every_kind(dask: Any, tmp_path: pathlib.Path) -> None:
    @task
    def where() -> str:
        from distributed import get_worker

        return str(get_worker().address)

    @flow
    def run() -> str:
        return where.submit().result(timeout=60)

    made = DaskTaskRunner(cluster_kwargs=IN_HERE)
    named = DaskTaskRunner(cluster_class="distributed.LocalCluster", cluster_kwargs=IN_HERE)
    assert run.with_options(task_runner=made)().startswith("inproc://")
    assert run.with_options(task_runner=named)().startswith("inproc://")
    by_address = DaskTaskRunner(address=dask.scheduler_address, client_kwargs={"name": "by-address"})
    assert run.with_options(task_runner=by_address)() in dask.scheduler_info["workers"]
    # A cluster that was given is not closed, and is an address elsewhere.
    assert dask.scheduler_info["workers"]
    assert pickle.loads(pickle.dumps(DaskTaskRunner(dask))) == DaskTaskRunner(address=dask.scheduler_address)


@on_dask
def test_a_dask_cluster_that_adapts() -> None:
    @task
    def work(x: int) -> int:
        return x

    @flow(
        task_runner=DaskTaskRunner(
            cluster_kwargs={"processes": False, "n_workers": 0, "dashboard_address": "127.0.0.1:0"},
            adapt_kwargs={"minimum": 0, "maximum": 2, "interval": "50ms"},
        )
    )
    def run() -> list[int]:
        return work.map(range(20)).result(timeout=60)

    assert run() == list(range(20))


@on_dask
def test_the_report_of_dask(dask: Any, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("bokeh")

    @task
    def work() -> int:
        return 1

    @flow(task_runner=DaskTaskRunner(dask, performance_report_path=str(tmp_path / "report.html")))
    def run() -> int:
        return work.submit().result(timeout=60)

    assert run() == 1
    assert "<html" in (tmp_path / "report.html").read_text()[:1000]


@on_dask
def test_tasks_use_the_cluster_themselves(dask: Any) -> None:
    @task
    def spread() -> list[int]:
        with get_dask_client(timeout=60) as client:
            return [int(one.result()) for one in client.map(abs, [-1, -2])]

    @flow(task_runner=DaskTaskRunner(dask))
    def run() -> list[int]:
        with get_dask_client() as client:
            here = client.submit(abs, -3).result()
        return [*spread.submit().result(timeout=60), here]

    assert run() == [1, 2, 3]


@on_dask
def test_results_that_dask_has_lost_are_not_made_again(dask: Any, tmp_path: pathlib.Path) -> None:
    trace = tmp_path / "trace"

    @task
    def make(path: str) -> Traced:
        return Traced(path)

    @flow(task_runner=DaskTaskRunner(dask))
    def run() -> None:
        made = make.submit(str(trace))
        made.wait(60)
        (maker,) = processes(trace)
        os.kill(maker, signal.SIGKILL)
        with pytest.raises(MissingResult, match="was lost by its cluster"):
            made.result()
        assert processes(trace) == [maker]

    run()


@on_dask
def test_tasks_of_a_dask_worker_run_side_by_side(recorder: MemoryRecorder) -> None:
    both = threading.Barrier(2)

    @task(log_prints=True)
    def meet(name: str, barrier: Any) -> str:
        barrier.wait(60)
        print("met", name)
        return name

    options = {
        "processes": False,
        "n_workers": 1,
        "threads_per_worker": 2,
        "dashboard_address": "127.0.0.1:0",
    }

    @flow(task_runner=DaskTaskRunner(cluster_kwargs=options))
    def run() -> list[str]:
        import builtins

        builtins.barrier_of_this_test = both  # type: ignore[attr-defined]
        try:
            return meet.map(["a", "b"], quote(Shared("barrier_of_this_test"))).result(timeout=60)
        finally:
            del builtins.barrier_of_this_test  # type: ignore[attr-defined]

    assert run() == ["a", "b"]
    for one, name in zip(recorder.all("meet"), "ab", strict=True):
        lines = [entry.log.message for entry in recorder.entries if entry.log.run_id == one.run.id]
        assert f"met {name}" in lines, "each records what it has done itself"


class Shared:
    """Pickled as a name; the object itself is in `builtins` of the process."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared, (self.name,)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError


def _shared(name: str) -> Any:
    import builtins

    return getattr(builtins, name)


# Ray


@on_ray
def test_ray_options() -> None:
    made = RayTaskRunner(init_kwargs={"num_cpus": 2})
    assert made.name == "ray"
    assert made == made.duplicate() == pickle.loads(pickle.dumps(made))
    assert made != RayTaskRunner(address="auto")
    assert "num_cpus" in repr(made)
    with pytest.raises(ValueError, match="address"):
        RayTaskRunner("auto", {"address": "auto"})
    with pytest.raises(ValueError, match="max_retries"), remote_options(max_retries=3):
        pass


@on_ray
def test_what_tasks_ask_ray_for(ray: Any, recorder: MemoryRecorder) -> None:
    @task
    def resources() -> dict[str, float]:
        import ray

        return dict(ray.get_runtime_context().get_assigned_resources())

    @flow(task_runner=RayTaskRunner())
    def run() -> None:
        with remote_options(num_cpus=2):
            with remote_options(memory=1 << 20):
                both = resources.submit()
            two = resources.submit()
        one = resources.submit()
        assert both.result(timeout=60)["CPU"] == 2
        assert both.result()["memory"] == 1 << 20
        assert two.result(timeout=60) == {"CPU": 2}
        assert one.result(timeout=60) == {"CPU": 1}
        with remote_options(no_such_option=1):
            refused = resources.submit()
        with pytest.raises(ValueError, match="no_such_option"):
            refused.result(timeout=60)

    run()
    assert ray.is_initialized(), "it was there before the flow run"
    assert [one.names[-1] for one in recorder.all("resources")][-1] == "Failed"
    assert not wait([], timeout=0).not_done


OWN_RAY = """
import sys
from headrace import flow, task
from headrace.task_runners import RayTaskRunner

@task
def double(x):
    return 2 * x

options = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}
options["_temp_dir"] = sys.argv[1]

@flow(task_runner=RayTaskRunner(init_kwargs=options))
def inner():
    return double.submit(1).result()

@flow(task_runner=RayTaskRunner(init_kwargs=options))
def outer():
    first = double.submit(1).result()
    # A flow run inside uses what is there, and leaves it.
    return inner() + first + double.submit(1).result()

assert outer() == 6
import ray
assert not ray.is_initialized()
"""


@on_ray
def test_ray_is_started_with_the_flow_run_and_ends_with_it(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "own_ray.py"
    script.write_text(OWN_RAY)
    done = run_with_own_ray(script, tmp_path)
    if TOO_SLOW in done.stderr:
        done = run_with_own_ray(script, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def run_with_own_ray(script: pathlib.Path, tmp_path: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run a script that is told where Ray may keep its files; afterwards nothing of Ray runs any more."""
    # Paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        done = subprocess.run(
            [sys.executable, str(script), folder],
            env={**ray_environment(), "HEADRACE_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=100,
        )
        deadline = time.monotonic() + 60
        while running(folder):
            assert time.monotonic() < deadline, running(folder)
            time.sleep(0.05)
        return done


def running(word: str) -> list[str]:
    """The command lines of processes in which that word is."""
    found: list[str] = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if word in line:
                found.append(line)
    return found
