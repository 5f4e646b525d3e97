"""`headrace flow-run graph`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.options import FlowRunArgument, Output
from headrace.cli.output import emit_json, say
from headrace.cli.progress import Progress
from headrace.cli.selecting import find_run
from headrace.cli.trees import dot as as_dot
from headrace.cli.trees import edge_lines, tree_lines
from headrace.client import get_client
from headrace.core.clock import SystemClock
from headrace.v1.run_pb2 import RunKind

__all__ = ["graph"]


async def graph(
    flow_run: FlowRunArgument,
    /,
    *,
    edges: Annotated[bool, Parameter(help="Show where each run's inputs came from, too.")] = False,
    dot: Annotated[bool, Parameter(help="Print it in Graphviz's language.")] = False,
    max_nodes: Annotated[
        int, Parameter(validator=Number(gte=1, lte=10_000), help="At most this many runs, up to 10000.")
    ] = 1000,
    output: Output = "table",
) -> None:
    """Show the runs below a flow run as a tree."""
    if dot and output != "table":
        raise CliError("--dot and --output exclude each other.", code=ExitCode.USAGE)
    async with get_client() as client:
        run = await find_run(client, flow_run, RunKind.RUN_KIND_FLOW)
        found = await client.get_run_graph(run.id, max_nodes=max_nodes)
    progress = Progress()
    for node in found.nodes:
        progress.take_graph_node(node)
    if output == "json":
        emit_json(to_json(found))
    elif output == "jsonl":
        for node in found.nodes:
            emit_json(to_json(node), indent=None)
    elif dot:
        print(as_dot(progress))
    else:
        top = progress.nodes[run.id]
        now = SystemClock().now()
        print("\n".join(tree_lines(progress, [top], now, coloured=text.colours(), wide=None)))
        if edges:
            print("\n".join(["", *edge_lines(progress)]))
    if found.truncated:
        say(f"There are more than {max_nodes} runs: see --max-nodes.")
