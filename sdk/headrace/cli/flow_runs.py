"""`headrace flow-run`: what ran, what is running, and what came of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from headrace.cli.as_json import to_json
from headrace.cli.cancelling import cancel
from headrace.cli.candidates import flow_names
from headrace.cli.deleting import Doomed, delete_each
from headrace.cli.executing import execute
from headrace.cli.family import Family
from headrace.cli.following import watch
from headrace.cli.graph import graph
from headrace.cli.logs import logs_of_flow_run as logs
from headrace.cli.options import (
    FlowRunArgument,
    FlowRunArguments,
    Limit,
    NameContains,
    Output,
    Quiet,
    Since,
    StateNames,
    StateTypes,
    Tags,
    Yes,
)
from headrace.cli.output import emit_document, emit_list, first, page_size, say
from headrace.cli.pausing import pause, resume, suspend
from headrace.cli.rerunning import explain, reschedule, retry
from headrace.cli.run_views import flow_run_listing, run_details, span_listing, state_listing
from headrace.cli.selecting import doubtful_states, find_run, parse_since, state_names, state_types
from headrace.client import get_client
from headrace.core.limits import PAGE_SIZE_MAX
from headrace.v1.run_pb2 import RunFilter, RunKind, TimeRange
from headrace.v1.span_service_pb2 import SpanFilter

__all__ = [
    "cancel",
    "delete",
    "execute",
    "explain",
    "graph",
    "inspect",
    "logs",
    "ls",
    "pause",
    "reschedule",
    "resume",
    "retry",
    "spans",
    "states",
    "suspend",
    "watch",
]


async def ls(
    *,
    flow_name: Annotated[
        tuple[str, ...], Parameter(help="Only runs of this flow. Repeatable.", completer=flow_names)
    ] = (),
    state: StateNames = (),
    state_type: StateTypes = (),
    tag: Tags = (),
    name: NameContains = "",
    since: Since = None,
    top_level: Annotated[bool, Parameter(help="Leave out subflow runs.")] = False,
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List flow runs, newest first."""
    now = datetime.now(UTC)
    filter = RunFilter(
        kinds=[RunKind.RUN_KIND_FLOW],
        flow_names=flow_name,
        state_names=state_names(state),
        state_types=state_types(state_type),
        tags_all=tag,
        name_contains=name,
        top_level_only=top_level,
    )
    if since is not None:
        filter.create_time.CopyFrom(TimeRange(**{"from": parse_since(since, now)}))
    async with get_client() as client:
        listed = first(limit, client.iter_runs(filter, page_size=page_size(limit)))
        found = await emit_list(listed, flow_run_listing(now), output, quiet=quiet)
    if not found and (question := doubtful_states(state)):
        say(question)


async def inspect(flow_run: FlowRunArgument, /, *, output: Output = "table") -> None:
    """Show everything about one flow run."""
    async with get_client() as client:
        run = await find_run(client, flow_run, RunKind.RUN_KIND_FLOW)
    emit_document(to_json(run), lambda: run_details(run, datetime.now(UTC)), output)


async def states(flow_run: FlowRunArgument, /, *, output: Output = "table", quiet: Quiet = False) -> None:
    """Show the states a flow run went through."""
    async with get_client() as client:
        run = await find_run(client, flow_run, RunKind.RUN_KIND_FLOW)
        listing = state_listing(datetime.now(UTC))
        await emit_list(client.iter_states(run.id, page_size=PAGE_SIZE_MAX), listing, output, quiet=quiet)


async def spans(flow_run: FlowRunArgument, /, *, output: Output = "table", quiet: Quiet = False) -> None:
    """Show the OpenTelemetry spans of a flow run and of every run below it."""
    async with get_client() as client:
        run = await find_run(client, flow_run, RunKind.RUN_KIND_FLOW)
        family = Family(client, run)
        listed = client.iter_spans(SpanFilter(root_run_ids=[family.root_run_id]), page_size=PAGE_SIZE_MAX)
        found = (span async for span in listed if await family.has(span.run_id))
        await emit_list(found, span_listing(), output, quiet=quiet)


async def delete(
    flow_runs: FlowRunArguments,
    /,
    *,
    force: Annotated[
        bool, Parameter(help="Also while a process may be executing it; what it then writes is refused.")
    ] = False,
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """Delete flow runs with everything below them."""
    async with get_client() as client:
        runs = [await find_run(client, word, RunKind.RUN_KIND_FLOW) for word in flow_runs]

        async def delete_one(thing: Doomed) -> int:
            return (await client.delete_run(thing.id, force=force)).deleted_runs

        doomed = [Doomed(run.id, run.name) for run in runs]
        await delete_each(doomed, "flow run", delete_one, along="everything below", yes=yes, output=output)
