"""What draws a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from headrace.states.value import in_running_loop

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from headrace.flows import Flow

__all__ = ["Drawable"]


class Drawable:
    """The part of a flow that draws it.

    The body of the flow is run, with everything in it that is neither a task nor a flow; these are not run.
    """

    def visualize(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, None] | None:
        """Draw which tasks and subflows the flow calls, and what they hand on, without running them.

        The picture is written to `NAME.png` in the current folder, and shown where anything shows pictures.
        A task gives a placeholder in place of its result, or its `viz_return_value`, which code of the flow
        needs that works with the result.

        Args:
            *args: the arguments of the flow, as for a call.
            **kwargs: likewise.

        Returns:
            On an event loop, something to be awaited.

        Raises:
            ParameterBindError: the arguments do not fit.
            GraphvizImportError: the package `graphviz` is not installed: `pip install 'headrace[visualize]'`.
            GraphvizExecutableNotFoundError: the programs of Graphviz are not installed.
            VisualizationUnsupportedError: the flow uses `submit`, `map`, `delay` or `apply_async` of a task.
            FlowVisualizationError: the body raised something, or the graph could not be drawn.
        """
        if in_running_loop():
            return self.avisualize(*args, **kwargs)
        from headrace.visualization import render, visualized

        flow = cast("Flow[..., Any]", self)
        render(visualized(flow, args, kwargs), flow.name)
        return None

    async def avisualize(self, *args: Any, **kwargs: Any) -> None:
        """`visualize`, for code on an event loop, on which the body of an async flow runs."""
        from headrace.visualization import avisualized, render

        flow = cast("Flow[..., Any]", self)
        render(await avisualized(flow, args, kwargs), flow.name)

    def generate_mermaid_graph(self, *args: Any, **kwargs: Any) -> Any:
        """The graph that `visualize` draws, as the text of a Mermaid flowchart. It needs no Graphviz.

        Returns:
            On an event loop, something to be awaited that gives it.

        Raises:
            ParameterBindError: the arguments do not fit.
            VisualizationUnsupportedError: the flow uses `submit`, `map`, `delay` or `apply_async` of a task.
            FlowVisualizationError: the body raised something.
        """
        if in_running_loop():
            return self.agenerate_mermaid_graph(*args, **kwargs)
        from headrace.visualization import visualized

        return visualized(cast("Flow[..., Any]", self), args, kwargs).mermaid()

    async def agenerate_mermaid_graph(self, *args: Any, **kwargs: Any) -> str:
        """`generate_mermaid_graph`, for code on an event loop."""
        from headrace.visualization import avisualized

        return (await avisualized(cast("Flow[..., Any]", self), args, kwargs)).mermaid()
