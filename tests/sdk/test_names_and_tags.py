"""Names and tags of runs."""

from __future__ import annotations

import asyncio
import datetime
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from headrace import flow, get_run_logger, runtime, tags, task
from headrace.context import TagsContext
from headrace.exceptions import InvalidNameError
from headrace.states import Failed
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

pytestmark = [pytest.mark.usefixtures("recorder"), pytest.mark.parametrize("kind", KINDS)]

OPTIONS = [(flow, "flow_run_name"), (task, "task_run_name")]


def the_name(recorder: MemoryRecorder, name: str = "it") -> str:
    return recorder.all(name)[-1].run.name


@pytest.mark.parametrize(("decorate", "option"), OPTIONS)
def test_templates(kind: str, decorate: Any, option: str, recorder: MemoryRecorder) -> None:
    template = "{x:03}-{when:%Y}-{thing.name}-{items[1]}"
    subject = decorate(of_kind(kind, lambda x, when, thing, items: 1), name="it", **{option: template})
    call(subject, 7, datetime.date(2024, 1, 1), SimpleNamespace(name="n"), ["a", "b"])
    assert the_name(recorder) == "007-2024-n-b"


@pytest.mark.parametrize(("decorate", "option"), OPTIONS)
def test_callables(kind: str, decorate: Any, option: str, recorder: MemoryRecorder) -> None:
    body = of_kind(kind, lambda x: 1)
    call(decorate(body, name="it", **{option: lambda: "plain"}), 1)
    assert the_name(recorder) == "plain"
    call(decorate(body, name="it", **{option: lambda parameters: f"x={parameters['x']}"}), 1)
    assert the_name(recorder) == "x=1"

    async def coroutine() -> str:
        return "async"

    call(decorate(body, name="it", **{option: coroutine}), 1)
    assert the_name(recorder) == "async"


@pytest.mark.parametrize(("decorate", "option"), OPTIONS)
def test_the_runtime_is_there_and_values_are_resolved(
    kind: str, decorate: Any, option: str, recorder: MemoryRecorder
) -> None:
    def name(parameters: dict[str, Any]) -> str:
        module = runtime.flow_run if decorate is flow else runtime.task_run
        return f"{module.id}-{parameters['x']}"

    @task
    def ok() -> int:
        return 3

    subject = decorate(of_kind(kind, lambda x: 1), name="it", **{option: name})

    @flow
    def outer() -> None:
        call(subject, ok.submit())

    outer()
    run = recorder.the("it").run
    assert run.name == f"{run.id}-3"


@pytest.mark.parametrize(("decorate", "option"), OPTIONS)
@pytest.mark.parametrize(
    ("template", "error"),
    [("{nothing}", KeyError), (lambda: 5, TypeError), (lambda: 1 / 0, ZeroDivisionError)],
)
def test_a_name_that_cannot_be_made_fails_the_run(
    kind: str, decorate: Any, option: str, template: Any, error: type[Exception], recorder: MemoryRecorder
) -> None:
    entered: list[int] = []
    subject = decorate(of_kind(kind, lambda: entered.append(1)), name="it", retries=2, **{option: template})
    with pytest.raises(error):
        call(subject)
    assert recorder.the("it").names == ["Pending", "Failed"]
    assert entered == []


@pytest.mark.parametrize(("decorate", "option"), OPTIONS)
def test_something_else_is_refused_at_decoration(kind: str, decorate: Any, option: str) -> None:
    with pytest.raises(TypeError, match=option):
        decorate(of_kind(kind, lambda: None), **{option: 5})


@pytest.mark.parametrize(("decorate", "option"), OPTIONS)
def test_evaluated_once_also_with_retries(
    kind: str, decorate: Any, option: str, recorder: MemoryRecorder
) -> None:
    made: list[str] = []

    def name() -> str:
        made.append(f"name-{len(made)}")
        return made[-1]

    answers: list[Any] = [Failed(), 1]
    call(decorate(of_kind(kind, lambda: answers.pop(0)), name="it", retries=1, **{option: name}))
    assert made == [the_name(recorder)] == ["name-0"]


def test_the_first_line_has_the_name(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def body() -> None:
        get_run_logger().info("first")

    call(flow(of_kind(kind, body), flow_run_name="mine"))
    (record,) = [r for r in caplog.records if r.getMessage() == "first"]
    assert record.__dict__["flow_run_name"] == "mine"


def test_names_that_nobody_gave(kind: str, recorder: MemoryRecorder) -> None:
    step = task(of_kind(kind, lambda: 1), name="my step")

    @flow(name="outer")
    def outer() -> None:
        call(step)

    outer()
    call(step)
    inside, alone = recorder.all("my step")
    assert inside.run.name.startswith("my step-") and len(inside.run.name) == len("my step-") + 3
    assert alone.run.name == "my step"
    words = recorder.the("outer").run.name.split("-")
    assert len(words) == 2 and all(words)


def test_names_of_flows_and_tasks(kind: str) -> None:
    def my_body() -> None: ...

    class Callable:
        def __call__(self) -> None: ...

    assert flow(of_kind(kind, my_body)).name == "my-body"
    assert task(of_kind(kind, my_body)).name == "my_body"
    assert flow(lambda: None).name == "unknown-lambda"
    assert task(Callable()).name == "Callable"


@pytest.mark.parametrize("character", "/%&><")
def test_characters_that_a_flow_may_not_have(kind: str, character: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        flow(of_kind(kind, lambda: None), name=f"a{character}b")
    assert isinstance(caught.value, ValueError)


def test_tags_of_the_task_and_of_the_context(kind: str, recorder: MemoryRecorder) -> None:
    step = task(of_kind(kind, lambda: 1), name="step", tags=["own", "a"])
    inner = flow(of_kind(kind, lambda: 1), name="inner")

    @flow(name="outer")
    def outer() -> None:
        with tags("a", "b") as outer_tags:
            with tags("c") as all_tags:
                call(step)
                call(inner)
            assert outer_tags == {"a", "b", "top"} and all_tags == {"a", "b", "c", "top"}
        assert TagsContext.get().current_tags == frozenset({"top"})

    with tags("top"):
        outer()
    assert list(recorder.the("outer").run.tags) == ["top"]
    assert list(recorder.the("inner").run.tags) == ["a", "b", "c", "top"]
    assert list(recorder.the("step").run.tags) == ["a", "b", "c", "own", "top"]
    assert TagsContext.get().current_tags == frozenset()


def test_a_string_is_no_collection_of_tags(kind: str) -> None:
    with pytest.raises(TypeError, match="tags"):
        task(of_kind(kind, lambda: None), tags="abc")


def test_tags_reach_what_is_submitted(kind: str, recorder: MemoryRecorder) -> None:
    step = task(of_kind(kind, lambda: sorted(TagsContext.get().current_tags)), name="step")

    @flow
    def outer() -> Any:
        with tags("inside"):
            future = step.submit()
        return future.result()

    assert outer() == ["inside"]
    assert list(recorder.the("step").run.tags) == ["inside"]


def test_tags_of_siblings_do_not_mix(kind: str, recorder: MemoryRecorder) -> None:
    step = task(of_kind(kind, lambda n: n), name="step")

    async def branch(n: int) -> None:
        with tags(f"tag-{n}"):
            await asyncio.sleep(0)
            result = step(n)
            if kind != "def":
                await result

    @flow
    async def outer() -> None:
        await asyncio.gather(*[branch(n) for n in range(5)])

    asyncio.run(outer())
    assert sorted(tuple(run.run.tags) for run in recorder.all("step")) == [(f"tag-{n}",) for n in range(5)]


def test_tags_do_not_reach_a_thread_of_ones_own(kind: str) -> None:
    seen: list[Any] = []
    with tags("here"):
        thread = threading.Thread(target=lambda: seen.append(TagsContext.get().current_tags))
        thread.start()
        thread.join()
    assert seen == [frozenset()]
