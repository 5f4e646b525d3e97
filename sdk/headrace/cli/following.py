"""`headrace flow-run watch`."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli.as_json import to_json
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.live import LineView, TreeView, View, can_draw
from headrace.cli.options import FlowRunArgument, Output
from headrace.cli.output import emit_json, say
from headrace.cli.progress import Progress
from headrace.cli.selecting import find_run
from headrace.cli.tailing import closing
from headrace.cli.waiting import telling_why
from headrace.client import get_client
from headrace.core.states import StateType
from headrace.v1.run_pb2 import RunFilter, RunKind

if TYPE_CHECKING:
    from headrace.cli.options import Format
    from headrace.cli.progress import Node
    from headrace.client.api import HeadraceClient
    from headrace.v1.run_pb2 import Run

__all__ = ["follow_to_end", "watch"]


async def watch(
    flow_run: FlowRunArgument,
    /,
    *,
    timeout: Annotated[
        float | None,
        Parameter(
            name="--timeout", validator=Number(gt=0), help="Give up after this many seconds; the run goes on."
        ),
    ] = None,
    output: Output = "table",
) -> int:
    """Follow a flow run until it ends.

    The exit code is 0 when it has completed, 1 when it has ended otherwise, 124 when --timeout has passed.
    -o jsonl prints each run of the tree whenever it changes, -o json the flow run when it has ended.
    """
    async with get_client() as client:
        run = await find_run(client, flow_run, RunKind.RUN_KIND_FLOW)
        return await follow_to_end(client, run, timeout, output)


async def follow_to_end(client: HeadraceClient, run: Run, timeout: float | None, output: Format) -> int:
    """Show the run until it ends; the exit code that says how it did.

    Args:
        client: an open client.
        run: the run.
        timeout: seconds; None: as long as it takes.
        output: how to show it.

    Raises:
        CliError: the time is over; the run goes on.
    """
    try:
        async with asyncio.timeout(timeout):
            await _follow(client, run, output)
    except TimeoutError:
        raise CliError(
            f"The flow run {run.name} ({run.id}) has not ended after {timeout:g} s.",
            f"It goes on: `headrace flow-run watch {run.id}`.",
            code=ExitCode.TIMEOUT,
        ) from None
    except asyncio.CancelledError:
        say(f"No longer watching the flow run {run.name} ({run.id}); it goes on.")
        raise
    ended = await client.get_run(run.id)
    if output == "json":
        emit_json(to_json(ended))
    is_completed = ended.state.type == StateType.COMPLETED.number
    return ExitCode.OK if is_completed else ExitCode.FAILED


async def _follow(client: HeadraceClient, run: Run, output: Format) -> None:
    progress = Progress()
    lock = threading.Lock()

    def top() -> list[Node]:
        return [progress.nodes[run.id]] if run.id in progress.nodes else []

    def is_waiting() -> bool:
        return any(node.state_type is StateType.SCHEDULED for node in top())

    view: View
    if output == "table" and can_draw():
        view = TreeView(progress, top, lock)
    else:
        view = LineView(sys.stdout if output == "table" else sys.stderr)
    filter = RunFilter(root_run_ids=[run.root_run_id or run.id])
    is_synced = False
    with view:
        async with telling_why(client, run, is_waiting), closing(client.watch_runs(filter)) as events:
            async for event in events:
                with lock:
                    if event.HasField("upsert"):
                        _take(progress, event.upsert, view, output)
                    elif event.HasField("bookmark"):
                        is_synced = is_synced or event.bookmark.initial_sync_done
                    elif event.removed_run_id:
                        progress.forget(event.removed_run_id)
                node = progress.nodes.get(run.id)
                if is_synced and node is None:
                    raise CliError(f"The flow run {run.id} was deleted.", code=ExitCode.NOT_FOUND)
                if is_synced and node is not None and node.is_final:
                    return


def _take(progress: Progress, run: Run, view: View, output: Format) -> None:
    changed = progress.take_run(run)
    if changed is not None:
        view.changed(changed)
    if output == "jsonl":
        emit_json(to_json(run), indent=None)
        sys.stdout.flush()
