"""Runs that are cancelled while their bodies run: what is interrupted, what follows, what is recorded."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from headrace import flow, task
from headrace.core.ids import new_id
from headrace.core.verdicts import Reject
from headrace.exceptions import CancelledRun
from headrace.flows import Flow
from headrace.runs import FlowRun
from headrace.states import State
from headrace.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from headrace.transactions import transaction
from headrace.v1 import state_pb2
from headrace.v1.record_service_pb2 import RunDirective
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

ABOVE = "The run above it was cancelled."
PATIENCE_SECONDS = 60.0


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it never was so"
        time.sleep(0.002)


def directive(run_id: str, reason: str = "Enough.", grace_seconds: float = 30) -> RunDirective:
    """What a server says to a process."""
    told = RunDirective(run_id=run_id)
    told.state.CopyFrom(
        state_pb2.State(id=new_id(), type=state_pb2.STATE_TYPE_CANCELLING, name="Cancelling", message=reason)
    )
    told.state.event_time.GetCurrentTime()
    told.cancel.deadline.FromMicroseconds(int((time.time() + grace_seconds) * 1e6))
    return told


def cancel(recorder: MemoryRecorder, name: str, *, times: int = 1, **how: Any) -> None:
    """Cancel the run of that name, as a server does."""
    run_id = recorder.the(name).run.id
    told, obey = directive(run_id, **how), recorder.attending[run_id]
    for _ in range(times):
        obey(told)


class Blocks:
    """Bodies say that they have begun, and block; whoever cancels waits for that."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cleaned: list[str] = []

    def here(self, name: str = "it") -> None:
        try:
            self.begun.set()
            time.sleep(PATIENCE_SECONDS)
        finally:
            self.cleaned.append(name)

    async def there(self, name: str = "it") -> None:
        try:
            self.begun.set()
            await asyncio.sleep(PATIENCE_SECONDS)
        finally:
            self.cleaned.append(name)

    def then(self, act: Callable[[], object]) -> threading.Thread:
        """Do something once a body has begun."""

        def wait() -> None:
            assert self.begun.wait(PATIENCE_SECONDS)
            act()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


@pytest.fixture
def blocks() -> Blocks:
    return Blocks()


@pytest.fixture(autouse=True)
def quick() -> Any:
    """Nothing here may wait until a body's own sleep is over."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < PATIENCE_SECONDS * 0.8


def body_of(kind: str, blocks: Blocks) -> Callable[..., Any]:
    return blocks.here if kind == "def" else blocks.there


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_is_interrupted_where_it_waits(
    kind: str, decorate: Any, recorder: MemoryRecorder, blocks: Blocks
) -> None:
    subject = decorate(body_of(kind, blocks), name="it", retries=2)
    blocks.then(lambda: cancel(recorder, "it"))
    with pytest.raises(CancelledRun, match=r"^Enough\.$"):
        call(subject)
    run = recorder.the("it")
    assert run.names == ["Pending", "Running", "Cancelled"]
    assert run.states[-1].message == "Enough."
    assert blocks.cleaned == ["it"]
    assert recorder.attending == {}
    assert recorder.owners == {}


def test_a_program_that_handles_sigterm_itself_is_interrupted_too(
    recorder: MemoryRecorder, blocks: Blocks
) -> None:
    asked: list[int] = []

    def handler(signum: int, frame: object) -> None:
        asked.append(signum)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        blocks.then(lambda: cancel(recorder, "it"))
        with pytest.raises(CancelledRun):
            flow(blocks.here, name="it")()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert blocks.cleaned == ["it"]
    assert asked == [], "the signal was not for the program"


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_is_handed_to_whoever_asks_for_it(
    kind: str, recorder: MemoryRecorder, blocks: Blocks
) -> None:
    subject = flow(body_of(kind, blocks), name="it")
    blocks.then(lambda: cancel(recorder, "it"))
    state = call(subject, return_state=True)
    assert (state.name, state.message) == ("Cancelled", "Enough.")


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_are_called_once_with_the_cancelling_run(
    kind: str, recorder: MemoryRecorder, blocks: Blocks
) -> None:
    seen: list[tuple[str, str, str]] = []

    def hook(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
        seen.append((flow.name, state.name, state.message or ""))

    def others(*_: object) -> None:
        raise AssertionError("not for a run that was cancelled")

    subject = flow(
        body_of(kind, blocks),
        name="it",
        on_cancellation=[hook],
        on_failure=[others],
        on_crashed=[others],
        on_completion=[others],
    )
    blocks.then(lambda: cancel(recorder, "it", times=2))
    with pytest.raises(CancelledRun):
        call(subject)
    assert seen == [("it", "Cancelling", "Enough.")]


def test_a_hook_cannot_begin_runs_below_a_cancelled_one(
    recorder: MemoryRecorder, blocks: Blocks, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    def late() -> None:
        raise AssertionError

    subject = flow(blocks.here, name="it", on_cancellation=[lambda *_: late()])
    blocks.then(lambda: cancel(recorder, "it"))
    with pytest.raises(CancelledRun):
        subject()
    assert recorder.the("it").names[-1] == "Cancelled"
    assert "nothing begins below it" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_and_subflows_follow_children_first(
    kind: str, recorder: MemoryRecorder, blocks: Blocks
) -> None:
    inner = task(body_of(kind, blocks), name="inner")
    middle = flow(of_kind(kind, lambda: inner()), name="middle")
    around = task(of_kind(kind, lambda: middle()), name="around")
    subject = flow(of_kind(kind, lambda: around()), name="it")
    blocks.then(lambda: cancel(recorder, "it"))
    with pytest.raises(CancelledRun):
        call(subject)
    ends = [
        (e.state.attempt.run_id, e.state.state.message)
        for e in recorder.entries
        if e.WhichOneof("kind") == "state" and e.state.state.type == state_pb2.STATE_TYPE_CANCELLED
    ]
    names = {recorder.the(name).run.id: name for name in ("inner", "middle", "around", "it")}
    assert [(names[id], message) for id, message in ends] == [
        ("inner", ABOVE),
        ("middle", ABOVE),
        ("around", ABOVE),
        ("it", "Enough."),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_subflow(kind: str, recorder: MemoryRecorder, blocks: Blocks) -> None:
    inner = flow(body_of(kind, blocks), name="inner")

    def plain() -> str:
        try:
            inner()
        except CancelledRun as error:
            return f"went on: {error}"
        return "?"

    async def suspending() -> str:
        try:
            await inner()  # type: ignore[misc]
        except CancelledRun as error:
            return f"went on: {error}"
        return "?"

    subject = flow(plain if kind == "def" else suspending, name="it")
    blocks.then(lambda: cancel(recorder, "inner"))
    assert call(subject) == "went on: Enough."
    assert recorder.the("inner").names == ["Pending", "Running", "Cancelled"]
    assert recorder.the("it").names == ["Pending", "Running", "Completed"]


@pytest.mark.parametrize("catch", [Exception, BaseException])
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_catches_it_is_cancelled_all_the_same(
    kind: str, catch: type[BaseException], recorder: MemoryRecorder, blocks: Blocks
) -> None:
    def plain() -> str:
        try:
            blocks.here()
        except catch:
            pass
        return "saved"

    async def suspending() -> str:
        try:
            await blocks.there()
        except catch:
            pass
        return "saved"

    subject = flow(plain if kind == "def" else suspending, name="it", retries=3)
    blocks.then(lambda: cancel(recorder, "it"))
    with pytest.raises(CancelledRun):
        call(subject)
    assert recorder.the("it").names == ["Pending", "Running", "Cancelled"]


def test_a_failure_on_the_way_out_is_no_retry(recorder: MemoryRecorder, blocks: Blocks) -> None:
    def body() -> None:
        try:
            blocks.here()
        except BaseException:
            raise ValueError("clumsy") from None

    blocks.then(lambda: cancel(recorder, "it"))
    with pytest.raises(CancelledRun):
        flow(body, name="it", retries=3)()
    assert recorder.the("it").names == ["Pending", "Running", "Cancelled"]


@pytest.mark.parametrize("decorate", [flow, task])
def test_during_the_delay_of_a_retry(decorate: Any, recorder: MemoryRecorder) -> None:
    def body() -> None:
        raise ValueError

    def when_it_waits() -> None:
        wait_until(lambda: recorder.the("it").names[-1] == "AwaitingRetry")
        cancel(recorder, "it")

    subject = decorate(body, name="it", retries=1, retry_delay_seconds=PATIENCE_SECONDS)
    threading.Thread(target=lambda: (wait_until(lambda: bool(recorder.entries)), when_it_waits())).start()
    with pytest.raises(CancelledRun):
        subject()
    assert recorder.the("it").names == ["Pending", "Running", "AwaitingRetry", "Cancelled"]


def test_nothing_begins_any_more(recorder: MemoryRecorder, blocks: Blocks) -> None:
    @task
    def late() -> None:
        raise AssertionError

    @flow
    def later() -> None:
        raise AssertionError

    tried: list[str] = []

    def body() -> None:
        try:
            blocks.here()
        except BaseException:
            for begin in (late, late.submit, later):
                try:
                    begin()  # type: ignore[operator]
                except BaseException as error:
                    tried.append(type(error).__name__)

    blocks.then(lambda: cancel(recorder, "it"))
    with pytest.raises(CancelledRun):
        flow(body, name="it")()
    assert tried == ["Cancel"] * 3
    assert len(recorder.runs) == 1


# What was submitted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "runner", [ThreadPoolTaskRunner(2), ProcessPoolTaskRunner(2)], ids=["threads", "processes"]
)
def test_submitted_tasks_follow(kind: str, runner: Any, recorder: MemoryRecorder, tmp_path: Any) -> None:
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"

    def spin(number: int) -> None:
        try:
            (begun.with_suffix(f".{number}")).touch()
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            (cleaned.with_suffix(f".{number}")).touch()

    async def wait(number: int) -> None:
        try:
            (begun.with_suffix(f".{number}")).touch()
            await asyncio.sleep(PATIENCE_SECONDS)
        finally:
            (cleaned.with_suffix(f".{number}")).touch()

    step = task(spin if kind == "def" else wait, name="step", task_run_name="step-{number}")

    @flow(name="it", task_runner=runner)
    def body() -> None:
        for future in [step.submit(number) for number in range(4)]:
            future.wait()

    def when_two_have_begun() -> None:
        wait_until(lambda: len(list(tmp_path.glob("begun.*"))) == 2)
        cancel(recorder, "it")

    thread = threading.Thread(target=when_two_have_begun)
    thread.start()
    with pytest.raises(CancelledRun):
        body()
    thread.join()
    assert sorted(path.name for path in tmp_path.glob("cleaned.*")) == ["cleaned.0", "cleaned.1"]
    ends = [(run.names, run.states[-1].message) for run in recorder.runs if not run.is_flow]
    assert [names[-1] for names, _ in ends] == ["Cancelled"] * 4
    assert [("Running" in names) for names, _ in ends] == [True, True, False, False]
    assert [message for names, message in ends if "Running" in names] == [ABOVE] * 2
    assert recorder.the("it").names == ["Pending", "Running", "Cancelled"]


def test_a_thread_that_hangs_in_c_code_is_left_to_itself(recorder: MemoryRecorder, blocks: Blocks) -> None:
    hangs = threading.Event()

    @task
    def hanging() -> None:
        blocks.begun.set()
        hangs.wait(PATIENCE_SECONDS)

    hooks: list[int] = []

    @flow(name="it", on_cancellation=[lambda *_: hooks.append(1)])
    def body() -> None:
        hanging.submit().wait()

    blocks.then(lambda: cancel(recorder, "it", grace_seconds=2))
    began = time.monotonic()
    with pytest.raises(CancelledRun):
        body()
    assert time.monotonic() - began < 10
    assert hooks == [1]
    assert recorder.the("it").names[-1] == "Cancelled"
    assert recorder.the("hanging").names[-1] == "Running"
    # What it records when it is over must not be on the record of the next test.
    hangs.set()
    wait_until(lambda: recorder.the("hanging").names[-1] == "Cancelled")


def test_a_process_that_hangs_in_c_code_is_killed(recorder: MemoryRecorder, tmp_path: Any) -> None:
    begun = tmp_path / "begun"

    @task(name="hanging")
    def hanging() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        begun.touch()
        time.sleep(PATIENCE_SECONDS)

    @flow(name="it", task_runner=ProcessPoolTaskRunner(1))
    def body() -> None:
        hanging.submit().wait()

    def when_it_has_begun() -> None:
        wait_until(begun.exists)
        cancel(recorder, "it", grace_seconds=2)

    thread = threading.Thread(target=when_it_has_begun)
    thread.start()
    with pytest.raises(CancelledRun):
        body()
    thread.join()
    run = recorder.the("hanging")
    assert (run.names[-1], run.states[-1].message) == ("Cancelled", ABOVE)


def test_work_that_was_done_is_rolled_back(recorder: MemoryRecorder, blocks: Blocks) -> None:
    undone: list[str] = []

    @task(on_rollback=[lambda _: undone.append("first")])
    def first() -> None: ...

    @flow(name="it")
    def body() -> None:
        with transaction():
            first()
            blocks.here()

    blocks.then(lambda: cancel(recorder, "it"))
    with pytest.raises(CancelledRun):
        body()
    assert undone == ["first"]


async def test_gathered_coroutines(recorder: MemoryRecorder, blocks: Blocks) -> None:
    begun: list[int] = []

    @task
    async def step(number: int) -> None:
        begun.append(number)
        await blocks.there(str(number))

    @flow(name="it")
    async def body() -> None:
        await asyncio.gather(*(step(number) for number in range(3)))

    def when_all_have_begun() -> None:
        wait_until(lambda: len(begun) == 3)
        cancel(recorder, "it")

    blocks.then(when_all_have_begun)
    with pytest.raises(CancelledRun):
        await body()
    assert sorted(blocks.cleaned) == ["0", "1", "2"]
    assert [run.names[-1] for run in recorder.runs] == ["Cancelled"] * 4
    current = asyncio.current_task()
    assert current is not None and current.cancelling() == 0


def test_off_the_main_thread(recorder: MemoryRecorder, blocks: Blocks) -> None:
    """Python code is interrupted there as soon as it runs; a C call that blocks, when it returns."""

    @flow(name="it")
    def body() -> None:
        blocks.begun.set()
        while True:
            time.sleep(0.01)

    raised: list[BaseException] = []

    def run() -> None:
        try:
            body()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    blocks.then(lambda: cancel(recorder, "it")).join()
    thread.join(PATIENCE_SECONDS)
    assert [type(error) for error in raised] == [CancelledRun]
    assert recorder.the("it").names[-1] == "Cancelled"


def test_a_generator_ends_when_it_is_asked_for_more(recorder: MemoryRecorder) -> None:
    closed: list[int] = []

    @flow(name="it")
    def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            closed.append(1)

    values = numbers()
    assert next(values) == 1
    cancel(recorder, "it")
    wait_until(lambda: not any(thread.name == "headrace-told" for thread in threading.enumerate()))
    with pytest.raises(CancelledRun):
        next(values)
    assert closed == [1]
    assert recorder.the("it").names == ["Pending", "Running", "Cancelled"]


# What the server says in place of being told


def test_a_run_that_the_server_calls_cancelling_never_begins(recorder: MemoryRecorder) -> None:
    told = directive(new_id()).state
    recorder.verdicts = [Reject(told, "The run is being cancelled.")]

    @flow(name="it", on_cancellation=[lambda *_: None])
    def body() -> None:
        raise AssertionError("not to be entered")

    with pytest.raises(CancelledRun, match="Enough"):
        body()
    assert recorder.the("it").names == ["Pending", "Cancelled"]


def test_books_stay_whole_wherever_it_strikes(recorder: MemoryRecorder) -> None:
    """Cancelled at a random instant of a busy flow, every run that was begun has one end."""

    @task
    def step(number: int) -> int:
        return number

    for delay in [0.0, 0.0005, 0.001, 0.003, 0.007, 0.015, 0.03]:
        recorder.entries.clear()
        begun = threading.Event()

        @flow(name="it")
        def body(begun: threading.Event = begun) -> None:
            begun.set()
            while True:
                step(1)

        def strike(begun: threading.Event = begun, delay: float = delay) -> None:
            begun.wait(PATIENCE_SECONDS)
            time.sleep(delay)
            cancel(recorder, "it")

        thread = threading.Thread(target=strike)
        thread.start()
        with pytest.raises(CancelledRun):
            body()
        thread.join()
        assert recorder.the("it").names == ["Pending", "Running", "Cancelled"]
