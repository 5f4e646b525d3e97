"""What a flow calls, as a graph, without running any task: `flow.visualize()`.

The body of the flow runs. Each task and subflow that it calls is noted in its place, and gives a placeholder,
or what its `viz_return_value` says. What is handed from one to the next are the edges.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

from headrace.context import current_sketch
from headrace.core.errors import MissingExtraError
from headrace.exceptions import HeadraceException
from headrace.states import Completed, State
from headrace.upstreams import ResultOrigins, collect_inputs
from headrace.utilities.collections import Traversal

if TYPE_CHECKING:
    from headrace.flows import Flow

__all__ = [
    "FlowVisualizationError",
    "GraphvizExecutableNotFoundError",
    "GraphvizImportError",
    "Sketch",
    "SketchedRun",
    "VisualizationUnsupportedError",
    "avisualized",
    "render",
    "visualized",
]

_log = logging.getLogger("headrace.visualization")

_HINT: Final = (
    "No task runs while a flow is visualised. Code of the flow that works with what a task returns needs"
    " something to work with: give the task a `viz_return_value`, as in @task(viz_return_value=[1, 2, 3])."
)


class FlowVisualizationError(HeadraceException):
    """The body of a flow could not be followed, or its graph not be drawn."""


class VisualizationUnsupportedError(HeadraceException):
    """The flow calls tasks in a way that cannot be visualised, such as `submit`."""


class GraphvizImportError(MissingExtraError):
    """The Python package `graphviz` is not installed."""

    def __init__(self) -> None:
        super().__init__("flow.visualize()", "headrace[visualize]")

    def __reduce__(self) -> tuple[Any, ...]:
        return (GraphvizImportError, ())


class GraphvizExecutableNotFoundError(HeadraceException):
    """The programs of Graphviz, `dot` above all, are not installed."""


class SketchedRun:
    """Stands for the result of a task or subflow that was not run.

    Attributes:
        name: of the task or flow, with a number.
        upstream: those whose results it was given, or that it waits for.
    """

    def __init__(self, name: str, upstream: Iterable[SketchedRun]) -> None:
        self.name = name
        self.upstream = list(upstream)

    def __repr__(self) -> str:
        return f"<the result of {self.name}, which has not run>"


_RUNS: Final = Traversal(SketchedRun, State)


class Sketch:
    """What the body of a flow has called so far.

    Attributes:
        runs: the calls, in their order.
    """

    def __init__(self) -> None:
        self.runs: list[SketchedRun] = []
        self._counts: Counter[str] = Counter()
        self._by_name: dict[str, SketchedRun] = {}
        self._origins = ResultOrigins()

    def call(self, called: Any, parameters: Mapping[str, Any], return_state: bool, wait_for: Any) -> Any:
        """Note a call of a task or flow; gives what stands for its result, as a call would."""
        name = f"{called.name}-{self._counts[called.name]}"
        self._counts[called.name] += 1
        run = self._by_name[name] = SketchedRun(name, self._upstream(parameters, wait_for))
        self.runs.append(run)
        instead = getattr(called, "viz_return_value", None)
        if instead is not None:
            self._origins.remember(instead, name)
        value = run if instead is None else instead
        given = Completed(data=value) if return_state else value
        return _awaitable(given) if called.isasync and not called.isgenerator else given

    def _upstream(self, parameters: Mapping[str, Any], wait_for: Any) -> list[SketchedRun]:
        known = collect_inputs(parameters, None, self._origins).edges.values()
        found = {name: self._by_name[name] for names in known for name in names}
        for leaf in _RUNS.find([*parameters.values(), wait_for]):
            run = leaf.data if isinstance(leaf, State) else leaf
            if isinstance(run, SketchedRun):
                found[run.name] = run
        return list(found.values())

    def refuse(self, what: str) -> None:
        """Say that a method of tasks cannot be drawn.

        Raises:
            VisualizationUnsupportedError: always.
        """
        raise VisualizationUnsupportedError(
            f"task.{what}() cannot be visualised: nothing runs while a flow is drawn. Call the task itself."
        )

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        ids = self._mermaid_ids()
        nodes = [f'    {ids[run.name]}["{run.name.replace(chr(34), "#quot;")}"]' for run in self.runs]
        edges = [f"    {ids[one.name]} --> {ids[run.name]}" for run in self.runs for one in run.upstream]
        return "\n".join(["flowchart TD", *nodes, *edges])

    def _mermaid_ids(self) -> dict[str, str]:
        ids: dict[str, str] = {}
        for run in self.runs:
            id = re.sub(r"\W", "_", run.name)
            while id in ids.values():
                id += "_"
            ids[run.name] = id
        return ids

    def digraph(self) -> Any:
        """The graph as a `graphviz.Digraph`.

        Raises:
            GraphvizImportError: there is no such package.
        """
        try:
            graphviz = import_module("graphviz")
        except ImportError as error:
            raise GraphvizImportError from error
        graph = graphviz.Digraph()
        for run in self.runs:
            # Colons separate nodes from ports in the language of Graphviz.
            graph.node(run.name.replace(":", "·"), label=graphviz.escape(run.name))
            for one in run.upstream:
                graph.edge(one.name.replace(":", "·"), run.name.replace(":", "·"))
        return graph


async def _awaitable(value: Any) -> Any:
    return value


def visualized(flow: Flow[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sketch:
    """What the body of a flow calls. A coroutine function runs on an event loop of its own.

    Raises:
        ParameterBindError: the arguments do not fit.
        FlowVisualizationError: the body raised something.
        VisualizationUnsupportedError: it calls tasks in a way that cannot be drawn.
    """
    positional, named = flow.binder.arguments(flow.binder.bind(args, kwargs))
    if flow.isasync:
        return asyncio.run(_followed(flow, positional, named))
    with _sketching() as made:
        given = flow.fn(*positional, **named)
        if flow.isgenerator:
            list(cast("Generator[Any]", given))
    return made


async def avisualized(flow: Flow[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sketch:
    """`visualized`, for code on an event loop, on which a coroutine function runs."""
    if not flow.isasync:
        return visualized(flow, args, kwargs)
    return await _followed(flow, *flow.binder.arguments(flow.binder.bind(args, kwargs)))


async def _followed(flow: Flow[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Sketch:
    with _sketching() as made:
        given: Any = flow.fn(*args, **kwargs)
        if flow.isgenerator:
            async for _ in given:
                pass
        else:
            await given
    return made


@contextmanager
def _sketching() -> Generator[Sketch]:
    made = Sketch()
    token = current_sketch.set(made)
    try:
        yield made
    except (FlowVisualizationError, VisualizationUnsupportedError):
        raise
    except Exception as error:
        raise FlowVisualizationError(f"{type(error).__name__}: {error}\n{_HINT}") from error
    finally:
        current_sketch.reset(token)


def render(made: Sketch, name: str) -> None:
    """Draw the graph into `NAME.png` in the current folder, and show it where anything shows pictures.

    Raises:
        GraphvizImportError: there is no package `graphviz`.
        GraphvizExecutableNotFoundError: there is no program `dot`.
        FlowVisualizationError: it could not draw the graph.
    """
    graph = made.digraph()
    graphviz = import_module("graphviz")
    try:
        path = graph.render(filename=name, format="png", cleanup=True)
    except graphviz.ExecutableNotFound as error:
        raise GraphvizExecutableNotFoundError(
            "flow.visualize() needs the programs of Graphviz, which the Python package does not bring:"
            " https://graphviz.org/download/"
        ) from error
    except Exception as error:
        raise FlowVisualizationError(f"Graphviz could not draw the flow: {error}") from error
    try:
        graphviz.view(path)
    except (OSError, RuntimeError) as error:
        _log.warning("The flow is drawn in %s, and nothing here shows it: %s", path, error)
