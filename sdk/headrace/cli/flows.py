"""`headrace flow`: what has been run at least once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.candidates import flow_names
from headrace.cli.deleting import Doomed, delete_each
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.options import Limit, Output, Quiet, Yes
from headrace.cli.output import Listing, emit_document, emit_list, first, page_size
from headrace.cli.run_views import state_of, state_word
from headrace.cli.serving import serve
from headrace.client import get_client
from headrace.core.errors import ObjectNotFound
from headrace.core.ids import is_id
from headrace.core.limits import PAGE_SIZE_MAX

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.v1.flow_pb2 import Flow
    from headrace.v1.flow_service_pb2 import GetFlowResponse

__all__ = ["delete", "inspect", "ls", "serve"]


async def ls(
    *,
    name: Annotated[str, Parameter(help="Only flows whose name contains this text.")] = "",
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List flows by name."""
    now = datetime.now(UTC)
    listing: Listing[Flow] = Listing(
        headers=("ID", "NAME", "LAST RUN", "STATE", "WHEN"),
        row=lambda flow: (flow.id, flow.name, *_last_run(flow, now)),
        key=lambda flow: flow.id,
        json=to_json,
        none="No flows. They appear with their first run: see `headrace run --help`.",
        shrink=("LAST RUN", "NAME"),
    )
    async with get_client() as client:
        listed = first(limit, client.iter_flows(name, page_size=page_size(limit)))
        await emit_list(listed, listing, output, quiet=quiet)


async def inspect(
    flow: Annotated[str, Parameter(name="FLOW", help="The flow: its name or id.", completer=flow_names)],
    /,
    *,
    output: Output = "table",
) -> None:
    """Show a flow and how its runs ended."""
    async with get_client() as client:
        found = await _get(client, flow)
    counts = {state_word(c.state_type) or "UNKNOWN": c.count for c in found.run_counts}
    document = to_json(found.flow) | {"run_counts": counts}
    emit_document(document, lambda: _details(found.flow, counts), output)


async def delete(
    flows: Annotated[
        tuple[str, ...], Parameter(name="FLOW", help="The flows: names or ids.", completer=flow_names)
    ],
    /,
    *,
    force: Annotated[
        bool,
        Parameter(help="Also while a process may be executing one of the runs; what it writes is refused."),
    ] = False,
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """Delete flows with all their runs."""
    async with get_client() as client:
        found = [(await _get(client, word)).flow for word in flows]

        async def delete_one(thing: Doomed) -> int:
            return (await client.delete_flow(id=thing.id, force=force)).deleted_runs

        doomed = [Doomed(flow.id, flow.name) for flow in found]
        await delete_each(doomed, "flow", delete_one, along="all their runs", yes=yes, output=output)


async def _get(client: HeadraceClient, word: str) -> GetFlowResponse:
    try:
        folded = word.lower()
        return await (client.get_flow(id=folded) if is_id(folded) else client.get_flow(name=word))
    except ObjectNotFound:
        names = [flow.name async for flow in first(PAGE_SIZE_MAX, client.iter_flows(page_size=PAGE_SIZE_MAX))]
        hint = nearest(word, names) or "See `headrace flow ls`."
        raise CliError(f"There is no flow '{word}'.", hint, code=ExitCode.NOT_FOUND) from None


def _last_run(flow: Flow, now: datetime) -> tuple[str, str, str]:
    if not flow.HasField("last_run"):
        return "-", "-", "-"
    run = flow.last_run
    return run.name, state_of(run), text.age(run.create_time, now)


def _details(flow: Flow, counts: dict[str, int]) -> Sequence[tuple[str, str]]:
    now = datetime.now(UTC)
    last = _last_run(flow, now)
    return [
        ("ID", flow.id),
        ("Name", flow.name),
        ("First seen", f"{text.local_time(flow.create_time)} ({text.age(flow.create_time, now)})"),
        ("Last run", f"{last[0]} {last[1]} {last[2]}" if flow.HasField("last_run") else ""),
        ("Runs", ", ".join(f"{count} {word.capitalize()}" for word, count in counts.items()) or "none"),
    ]
