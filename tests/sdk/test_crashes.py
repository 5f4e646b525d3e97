"""What ends execution from outside of the user's code: how it is recorded, and how the process leaves."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from headrace import flow, task
from headrace.core.spool import read_entries
from headrace.core.verdicts import Abort as AbortVerdict
from headrace.core.verdicts import Reject, Wait
from headrace.exceptions import Abort, Pause, TerminationSignal
from headrace.execution.loop import LoopOps
from headrace.task_runners import ThreadPoolTaskRunner
from headrace.v1 import state_pb2
from headrace.v1.record_service_pb2 import RecordEntry
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder, RecordedRun, runs_of

BOTH = pytest.mark.parametrize("decorate", [flow, task])


class Strange(BaseException):
    pass


CAUSES = [
    (KeyboardInterrupt(), "aborted by an interrupt signal"),
    (SystemExit(3), "aborted by Python system exit call"),
    (TerminationSignal(15), "aborted by a termination signal"),
    (asyncio.CancelledError(), "cancelled by the runtime environment"),
    (Strange("why"), "interrupted by an unexpected exception: Strange: why"),
]


@BOTH
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("error", "sentence"), CAUSES)
def test_each_cause(
    kind: str, decorate: Any, error: BaseException, sentence: str, recorder: MemoryRecorder
) -> None:
    def body() -> None:
        raise error

    for options in ({}, {"return_state": True}):
        with pytest.raises(type(error)):
            call(decorate(of_kind(kind, body), name="it", retries=2), **options)
    for run in recorder.all("it"):
        assert run.names == ["Pending", "Running", "Crashed"]
        assert run.states[-1].message == f"Execution was {sentence}."
        assert run.states[-1].crashed.error.type.endswith(type(error).__name__)
    assert recorder.owners == {}


def test_a_termination_leaves_as_shells_count() -> None:
    assert isinstance(TerminationSignal(15), SystemExit)
    assert TerminationSignal(15).code == 143
    assert not isinstance(TerminationSignal(15), Exception)


@BOTH
async def test_cancelling_the_coroutine(decorate: Any, recorder: MemoryRecorder) -> None:
    cleaned: list[int] = []
    started = asyncio.Event()

    async def body() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(1)

    running = asyncio.ensure_future(decorate(body, name="it")())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cleaned == [1]
    assert recorder.the("it").states[-1].message == "Execution was cancelled by the runtime environment."


@BOTH
async def test_cancelling_during_the_delay_of_a_retry(
    decorate: Any, recorder: MemoryRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = asyncio.Event()

    async def body() -> None:
        raise ValueError

    async def sleep(_: LoopOps, seconds: float) -> None:
        waits.set()
        await asyncio.sleep(seconds)

    monkeypatch.setattr(LoopOps, "sleep", sleep)
    running = asyncio.ensure_future(decorate(body, name="it", retries=1, retry_delay_seconds=600)())
    await waits.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert recorder.the("it").names == ["Pending", "Running", "AwaitingRetry", "Crashed"]


def test_what_comes_after_the_final_state_does_not_change_it(recorder: MemoryRecorder) -> None:
    def hook(*_: Any) -> None:
        raise KeyboardInterrupt

    for decorate in (flow, task):
        with pytest.raises(KeyboardInterrupt):
            decorate(lambda: 1, name="it", on_completion=[hook])()
    assert all(run.names == ["Pending", "Running", "Completed"] for run in recorder.all("it"))


@pytest.mark.parametrize("signal_", [Abort("not yours"), Pause("later")])
@pytest.mark.parametrize("kind", KINDS)
def test_orders_of_orchestration_write_nothing(
    kind: str, signal_: BaseException, recorder: MemoryRecorder
) -> None:
    def body() -> None:
        try:
            raise signal_
        except Exception:  # a bare except in user code must not eat it
            raise AssertionError from None

    with pytest.raises(type(signal_)):
        call(flow(of_kind(kind, body), name="it"))
    assert recorder.the("it").names == ["Pending", "Running"]


class _Impatient(ThreadPoolTaskRunner):
    """While its tasks are waited for, a second signal comes."""

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_signal_while_children_are_waited_for(kind: str, recorder: MemoryRecorder) -> None:
    def body() -> None:
        task(lambda: 1).submit()
        raise TerminationSignal(15)

    with pytest.raises(TerminationSignal):
        call(flow(of_kind(kind, body), name="it", task_runner=_Impatient()))
    assert recorder.the("it").states[-1].message == "Execution was aborted by a termination signal."


# What the server says.


def rejected(name: str, type: int) -> Reject[state_pb2.State]:
    state = state_pb2.State(id="018f0000-0000-7000-8000-000000000000", type=type, name=name)  # type: ignore[arg-type]
    state.event_time.GetCurrentTime()
    return Reject(state, "because")


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_that_is_refused(kind: str, recorder: MemoryRecorder) -> None:
    entered: list[int] = []
    subject = flow(of_kind(kind, lambda: entered.append(1)), name="it")
    recorder.verdicts = [rejected("Cancelled", state_pb2.STATE_TYPE_CANCELLED)]
    assert call(subject, return_state=True).is_cancelled()
    recorder.verdicts = [AbortVerdict("another attempt runs it")]
    with pytest.raises(Abort, match="another attempt"):
        call(subject)
    recorder.verdicts = [rejected("Paused", state_pb2.STATE_TYPE_PAUSED)]
    with pytest.raises(Pause):
        call(subject)
    assert entered == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_that_has_to_wait(kind: str, recorder: MemoryRecorder, slept: list[float]) -> None:
    recorder.verdicts = [Wait(5, "no slot"), Wait(7, "no slot")]
    assert call(flow(of_kind(kind, lambda: 1), name="it")) == 1
    assert slept == [5, 7]
    assert recorder.the("it").names == ["Pending", "Running", "Completed"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_that_the_server_has_retried(
    kind: str, recorder: MemoryRecorder, slept: list[float]
) -> None:
    calls: list[int] = []

    def body() -> int:
        calls.append(1)
        if len(calls) == 1:
            recorder.verdicts = [rejected("AwaitingRetry", state_pb2.STATE_TYPE_SCHEDULED)]
            raise ValueError
        return 5

    assert call(flow(of_kind(kind, body), name="it")) == 5
    assert len(calls) == 2 and len(slept) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_lost_stops_at_its_next_step(kind: str, recorder: MemoryRecorder) -> None:
    step = task(of_kind(kind, lambda: 1), name="step")

    @flow(name="it")
    def outer() -> None:
        (lost,) = recorder.owners.values()
        assert lost is not None
        lost("the lease has ended")
        call(step)

    with pytest.raises(Abort, match="the lease has ended"):
        outer()
    assert recorder.all("step") == []
    assert recorder.the("it").names == ["Pending", "Running"]


# Whole processes.

PROGRAM = """
import asyncio, sys, time
from headrace import flow, task

def ready():
    print("ready", flush=True)

@task(retries=3, retry_delay_seconds=[0, 600])
def step(how):
    try:
        if how == "sleep":
            ready(); time.sleep(600)
        if how == "exit":
            sys.exit(7)
        if how == "retry":
            ready(); raise ValueError
    finally:
        print("cleaned", flush=True)

@task
async def astep(how):
    try:
        ready(); await asyncio.sleep(600)
    finally:
        print("cleaned", flush=True)

@flow
def outer(how):
    step(how)

@flow
async def aouter(how):
    await astep(how)
"""


def run_program(
    home: pathlib.Path, main: str, send: signal.Signals | None = None, lines: int = 1
) -> tuple[int, str, dict[str, RecordedRun]]:
    """The program's exit code, what it printed, and its runs by the names of their flow or task."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM) + main],
        env={**os.environ, "HEADRACE_HOME": str(home), "HEADRACE_RECORDER_EXIT_TIMEOUT_SECONDS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            if send is not None:
                for _ in range(lines):
                    assert process.stdout.readline()
                process.send_signal(send)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    (spool,) = (home / "spool").iterdir()
    runs = runs_of(RecordEntry.FromString(data) for _, data in read_entries(spool))
    return process.returncode, output + errors, {r.run.task_name or r.run.flow_name: r for r in runs}


PROCESSES = [
    ("outer('sleep')", signal.SIGTERM, 143, "aborted by a termination signal"),
    ("outer('sleep')", signal.SIGINT, -signal.SIGINT, "aborted by an interrupt signal"),
    ("outer('exit')", None, 7, "aborted by Python system exit call"),
    ("asyncio.run(aouter('sleep'))", signal.SIGTERM, 143, "aborted by a termination signal"),
    ("asyncio.run(aouter('sleep'))", signal.SIGINT, -signal.SIGINT, "cancelled by the runtime environment"),
]


@pytest.mark.parametrize(("main", "send", "code", "sentence"), PROCESSES)
def test_signals_and_exits(
    tmp_path: pathlib.Path, main: str, send: signal.Signals | None, code: int, sentence: str
) -> None:
    returned, output, runs = run_program(tmp_path, main, send)
    assert returned == code, output
    assert "cleaned" in output
    assert len(runs) == 2
    for run in runs.values():
        assert run.names == ["Pending", "Running", "Crashed"]
        assert run.states[-1].message == f"Execution was {sentence}."


def test_termination_during_the_delay_of_a_retry(tmp_path: pathlib.Path) -> None:
    # "ready" and "cleaned" of two attempts; what follows is the delay.
    returned, output, runs = run_program(tmp_path, "outer('retry')", signal.SIGTERM, lines=4)
    assert returned == 143, output
    assert runs["step"].names[:3] == ["Pending", "Running", "Retrying"]
    assert runs["step"].names[-1] == runs["outer"].names[-1] == "Crashed"


def test_a_kill_loses_nothing_that_was_recorded(tmp_path: pathlib.Path) -> None:
    returned, _, runs = run_program(tmp_path, "outer('sleep')", signal.SIGKILL)
    assert returned == -signal.SIGKILL
    assert {name: run.names for name, run in runs.items()} == {
        "outer": ["Pending", "Running"],
        "step": ["Pending", "Running"],
    }


def test_a_handler_of_the_users_is_asked(tmp_path: pathlib.Path) -> None:
    main = textwrap.dedent("""
        import signal
        def handler(*_):
            raise RuntimeError("mine")
        signal.signal(signal.SIGTERM, handler)
        step = step.with_options(retries=0)
        try:
            outer('sleep')
        except RuntimeError:
            assert signal.getsignal(signal.SIGTERM) is handler
            sys.exit(9)
    """)
    returned, output, runs = run_program(tmp_path, main, signal.SIGTERM)
    assert returned == 9, output
    assert runs["outer"].names[-1] == "Failed"


def test_the_default_handler_is_put_back(recorder: MemoryRecorder) -> None:
    seen: list[Any] = []
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        flow(lambda: seen.append(signal.getsignal(signal.SIGTERM)))()
        assert seen != [signal.SIG_DFL]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
