"""`headrace task-run`: the steps of flow runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from headrace.cli.as_json import to_json
from headrace.cli.logs import logs_of_task_run as logs
from headrace.cli.options import (
    Limit,
    NameContains,
    Output,
    Quiet,
    Since,
    StateNames,
    StateTypes,
    Tags,
    TaskRunArgument,
)
from headrace.cli.output import emit_document, emit_list, first, page_size, say
from headrace.cli.run_views import run_details, task_run_listing
from headrace.cli.selecting import doubtful_states, find_run, parse_since, state_names, state_types
from headrace.client import get_client
from headrace.v1.run_pb2 import RunFilter, RunKind, TimeRange

__all__ = ["inspect", "logs", "ls"]


async def ls(
    *,
    flow_run: Annotated[
        str | None,
        Parameter(help="Only those called in the body of this flow run: an id, a prefix or a name."),
    ] = None,
    flow_name: Annotated[tuple[str, ...], Parameter(help="Only in runs of this flow. Repeatable.")] = (),
    task_name: Annotated[tuple[str, ...], Parameter(help="Only runs of this task. Repeatable.")] = (),
    state: StateNames = (),
    state_type: StateTypes = (),
    tag: Tags = (),
    name: NameContains = "",
    since: Since = None,
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List task runs, newest first."""
    now = datetime.now(UTC)
    filter = RunFilter(
        kinds=[RunKind.RUN_KIND_TASK],
        flow_names=flow_name,
        task_names=task_name,
        state_names=state_names(state),
        state_types=state_types(state_type),
        tags_all=tag,
        name_contains=name,
    )
    if since is not None:
        filter.create_time.CopyFrom(TimeRange(**{"from": parse_since(since, now)}))
    async with get_client() as client:
        if flow_run is not None:
            parent = await find_run(client, flow_run, RunKind.RUN_KIND_FLOW)
            filter.parent_run_ids.append(parent.id)
        listed = first(limit, client.iter_runs(filter, page_size=page_size(limit)))
        found = await emit_list(listed, task_run_listing(now), output, quiet=quiet)
    if not found and (question := doubtful_states(state)):
        say(question)


async def inspect(task_run: TaskRunArgument, /, *, output: Output = "table") -> None:
    """Show everything about one task run."""
    async with get_client() as client:
        run = await find_run(client, task_run, RunKind.RUN_KIND_TASK)
    emit_document(to_json(run), lambda: run_details(run, datetime.now(UTC)), output)
