"""`flow.visualize`: what a flow would call, drawn without running any task."""

from __future__ import annotations

import logging
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import graphviz
import pytest

from headrace import flow, task
from headrace.exceptions import ParameterBindError
from headrace.visualization import (
    FlowVisualizationError,
    GraphvizExecutableNotFoundError,
    GraphvizImportError,
    VisualizationUnsupportedError,
    visualized,
)
from tests.support.kinds import KINDS, of_kind
from tests.support.recorders import MemoryRecorder


@pytest.fixture(autouse=True)
def _nothing_runs(recorder: MemoryRecorder) -> Iterator[None]:
    yield
    assert recorder.entries == []


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("a task was run")


def a_task(name: str, kind: str = "def", **options: Any) -> Any:
    return task(of_kind(kind, lambda *args: never(*args)), name=name, **options)


def edges(made: Any, *args: Any) -> list[str]:
    return [
        f"{run.name}({', '.join(one.name for one in run.upstream)})"
        for run in visualized(made, args, {}).runs
    ]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_calls_and_what_they_hand_on(kind: str) -> None:
    load, clean, join = (a_task(name, kind) for name in ("load", "clean", "join"))
    sub = flow(of_kind(kind, lambda *args: never(*args)), name="sub")

    @flow(name="nightly")
    def plain(days: int) -> Any:
        parts = [clean(load(day)) for day in range(days)]
        sub(join(parts), {"deep": [parts[0]]})

    @flow(name="nightly")
    async def suspends(days: int) -> Any:
        parts = [await clean(await load(day)) for day in range(days)]
        await sub(await join(parts), {"deep": [parts[0]]})

    made = plain if kind == "def" else suspends
    assert await made.generate_mermaid_graph(2) == "\n".join(
        [
            "flowchart TD",
            '    load_0["load-0"]',
            '    clean_0["clean-0"]',
            '    load_1["load-1"]',
            '    clean_1["clean-1"]',
            '    join_0["join-0"]',
            '    sub_0["sub-0"]',
            "    load_0 --> clean_0",
            "    load_1 --> clean_1",
            "    clean_0 --> join_0",
            "    clean_1 --> join_0",
            "    join_0 --> sub_0",
            "    clean_0 --> sub_0",
        ]
    )


def test_waiting_states_and_arguments() -> None:
    one, other, third = (a_task(name) for name in ("one", "other", "third"))

    @flow
    def made(x: int, y: int = 2) -> None:
        first = one(x, y)
        state = other(wait_for=[first], return_state=True)
        third(state)
        third(state.result())

    assert edges(made, 1) == ["one-0()", "other-0(one-0)", "third-0(other-0)", "third-1(other-0)"]
    with pytest.raises(ParameterBindError):
        made.generate_mermaid_graph()


def test_what_is_given_in_place_of_results() -> None:
    numbers = a_task("numbers", viz_return_value=[1000, 2000])
    nothing = a_task("nothing", viz_return_value=0)
    add = a_task("add")

    @flow
    def made() -> None:
        found = numbers()
        add(len(found) + nothing())
        add(found)

    assert edges(made) == ["numbers-0()", "nothing-0()", "add-0()", "add-1(numbers-0)"]
    assert numbers.with_options(viz_return_value=5).viz_return_value == 5
    assert numbers.with_options(retries=1).viz_return_value == [1000, 2000]


def test_generators_methods_and_coroutines_of_plain_flows() -> None:
    @task
    def yields() -> Iterator[int]:
        never()
        yield 1

    class Lake:
        @task
        def load(self) -> None:
            never()

    @flow
    def made() -> Iterator[int]:
        a_task("sum")(yields())
        yield 1
        Lake().load()

    assert edges(made) == ["yields-0()", "sum-0(yields-0)", "load-0()"]


async def test_async_generators() -> None:
    @flow
    async def made() -> Any:
        await a_task("one", "async def")()
        yield 1

    assert (await made.agenerate_mermaid_graph()).count("one-0") == 1


@pytest.mark.parametrize("way", ["submit", "map", "delay", "apply_async"])
def test_what_cannot_be_drawn(way: str) -> None:
    made = flow(lambda: getattr(a_task("one"), way)([1]))
    with pytest.raises(VisualizationUnsupportedError, match=r"cannot be visualised"):
        made.generate_mermaid_graph()


def test_code_that_works_with_results() -> None:
    made = flow(lambda: a_task("one")() + 1)
    with pytest.raises(FlowVisualizationError, match="viz_return_value") as caught:
        made.generate_mermaid_graph()
    assert isinstance(caught.value.__cause__, TypeError)


def test_names_that_mean_something_in_the_languages_of_graphs() -> None:
    made = flow(lambda: a_task('say "hi": a-b')(a_task("a b")(a_task("a-b")())))
    text = made.generate_mermaid_graph()
    assert 'say__hi___a_b_0["say #quot;hi#quot;: a-b-0"]' in text
    assert [line.split("[")[0].strip() for line in text.splitlines()[1:3]] == ["a_b_0", "a_b_0_"]
    source = visualized(made, (), {}).digraph().source
    assert source.count("->") == 2
    assert r'label="say \"hi\": a-b-0"' in source


# The picture.


@pytest.fixture
def programs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty folder in the place of `PATH`; the pictures are written next to it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def program(folder: pathlib.Path, name: str, code: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable} -S\nimport sys\n{code}\n")
    path.chmod(0o700)


DRAWS = "print(open(sys.argv[-1]).read(), file=open(sys.argv[-1] + '.png', 'w'))"


def test_the_picture(programs: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """A program in the place of `dot`, called as that is: it writes what it was to draw."""
    program(programs, "dot", DRAWS)
    made = flow(lambda: a_task("other")(a_task("one")()), name="two steps")
    with caplog.at_level(logging.WARNING):
        assert made.visualize() is None
    picture = programs.parent / "two steps.png"
    assert '"one-0" -> "other-0"' in picture.read_text()
    assert sorted(path.name for path in programs.parent.iterdir()) == ["bin", "two steps.png"]
    assert "two steps.png" in caplog.text, "nothing shows pictures here"


async def test_on_a_loop(programs: pathlib.Path) -> None:
    program(programs, "dot", DRAWS)

    @flow(name="waits")
    async def made() -> None:
        await a_task("one", "async def")()

    drawing = made.visualize()
    assert drawing is not None
    await drawing
    assert '"one-0"' in (programs.parent / "waits.png").read_text()


def test_without_graphviz(programs: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = flow(lambda: None, name="empty")
    with pytest.raises(GraphvizExecutableNotFoundError, match=r"graphviz\.org") as caught:
        made.visualize()
    assert isinstance(caught.value.__cause__, graphviz.ExecutableNotFound)
    program(programs, "dot", "sys.exit('no memory')")
    with pytest.raises(FlowVisualizationError, match="could not draw"):
        made.visualize()
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(GraphvizImportError, match=r"headrace\[visualize\]"):
        made.visualize()
