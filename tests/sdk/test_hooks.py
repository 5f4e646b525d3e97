"""Hooks: when they are called, in which order, and what one that fails changes (nothing)."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from headrace import flow, get_run_logger, task
from headrace.states import Cancelled, Completed, State
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

pytestmark = [pytest.mark.usefixtures("recorder"), pytest.mark.parametrize("kind", KINDS)]


def fail() -> None:
    raise ValueError("no")


@pytest.mark.parametrize("decorate", [flow, task])
def test_which_hooks_are_called(kind: str, decorate: Any) -> None:
    events: list[str] = []
    options = {
        option: [lambda *_, option=option: events.append(option)]
        for option in ("on_running", "on_completion", "on_failure")
    }
    call(decorate(of_kind(kind, lambda: 1), **options))
    assert events == ["on_running", "on_completion"]
    events.clear()
    call(decorate(of_kind(kind, fail), **options), return_state=True)
    assert events == ["on_running", "on_failure"]
    events.clear()
    call(decorate(of_kind(kind, lambda: Cancelled()), **options), return_state=True)
    assert events == ["on_running"]


@pytest.mark.parametrize("decorate", [flow, task])
def test_they_are_given_subject_run_and_state(kind: str, decorate: Any, recorder: MemoryRecorder) -> None:
    seen: list[Any] = []
    subject = decorate(of_kind(kind, lambda: 5), name="it", on_completion=[lambda *args: seen.append(args)])
    call(subject)
    ((given, run, state),) = seen
    assert given is subject
    assert run.id == recorder.the("it").run.id
    assert run.state is state
    # The state is on record by the time, and the result can be read.
    assert recorder.the("it").states[-1].id == state.id
    assert state.result(_sync=True) == 5


@pytest.mark.parametrize("decorate", [flow, task])
def test_order_and_isolation(kind: str, decorate: Any, caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []

    def broken(*_: Any) -> None:
        events.append("broken")
        raise RuntimeError("hook")

    async def coroutine(*_: Any) -> None:
        events.append("coroutine")

    def plain(word: str, *_: Any) -> None:
        events.append(word)

    hooks = [broken, coroutine, functools.partial(plain, "partial"), lambda *_: events.append("lambda")]
    state = call(decorate(of_kind(kind, lambda: 1), on_completion=hooks), return_state=True)
    assert events == ["broken", "coroutine", "partial", "lambda"]
    assert state.is_completed()
    record = next(r for r in caplog.records if "while running hook" in r.getMessage())
    assert "'broken'" in record.getMessage() and record.exc_info


@pytest.mark.parametrize("decorate", [flow, task])
def test_the_decorators_append_and_give_the_function_back(kind: str, decorate: Any) -> None:
    events: list[str] = []
    subject = decorate(of_kind(kind, lambda: 1), on_completion=[lambda *_: events.append("option")])

    @subject.on_completion
    def first(*_: Any) -> None:
        events.append("first")

    @subject.on_running
    async def second(*_: Any) -> None:
        events.append("second")

    assert first.__name__ == "first"
    call(subject)
    assert events == ["second", "option", "first"]


@pytest.mark.parametrize("decorate", [flow, task])
def test_hooks_of_a_copy_do_not_leak(kind: str, decorate: Any) -> None:
    events: list[str] = []
    original = decorate(of_kind(kind, lambda: 1), on_completion=[lambda *_: events.append("both")])
    copied = original.with_options(name="other")
    copied.on_completion(lambda *_: events.append("copy"))
    call(original)
    assert events == ["both"]
    call(copied)
    assert events == ["both", "both", "copy"]


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize("option", ["on_completion", "on_failure", "on_running"])
@pytest.mark.parametrize("hooks", [lambda *_: None, [1], 5, "hook"])
def test_a_bare_callable_is_refused_with_an_example(
    kind: str, decorate: Any, option: str, hooks: Any
) -> None:
    with pytest.raises(TypeError, match=rf"{option}=\[hook1, hook2\]"):
        decorate(of_kind(kind, lambda: None), **{option: hooks})


def test_hooks_log_to_their_run(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def hook(_: Any, run: Any, state: State[Any]) -> None:
        get_run_logger().warning("from the hook")

    call(flow(of_kind(kind, lambda: Completed()), name="logs", on_completion=[hook]))
    (record,) = [r for r in caplog.records if r.getMessage() == "from the hook"]
    assert record.__dict__["flow_name"] == "logs"


def test_crash_hooks(kind: str) -> None:
    events: list[Any] = []

    def leave() -> None:
        raise SystemExit(3)

    hooks = {
        "on_crashed": [lambda f, run, state: events.append(state.name)],
        "on_failure": [lambda *_: events.append("failure")],
    }
    with pytest.raises(SystemExit):
        call(flow(of_kind(kind, leave), **hooks))
    assert events == ["Crashed"]


def test_a_failed_validation_calls_the_failure_hooks(kind: str) -> None:
    events: list[str] = []

    def body(x: int) -> None:
        events.append("body")

    hook = [lambda f, run, state: events.append(state.name)]
    call(flow(of_kind(kind, body), on_failure=hook, on_running=hook), "x", return_state=True)
    assert events == ["Failed"]
