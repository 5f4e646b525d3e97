"""`headrace backfill`: ranges of the past of schedules, made up for."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from headrace.cli.as_json import to_json
from headrace.cli.backfill_views import details, find_backfill, progress, row, run_listing, state_word
from headrace.cli.candidates import deployment_names
from headrace.cli.changed import changed
from headrace.cli.finding_deployments import find_deployment
from headrace.cli.options import Limit, Output, Quiet
from headrace.cli.output import Listing, emit_document, emit_list, first, iterate, page_size, say
from headrace.cli.schedule_views import with_names
from headrace.client import get_client
from headrace.v1.backfill_pb2 import Backfill, BackfillState

__all__ = ["cancel", "inspect", "ls", "pause", "resume", "runs"]

_BackfillArgument = Annotated[
    str, Parameter(name="BACKFILL", help="A backfill: its id, or a unique beginning of it.")
]
_BackfillArguments = Annotated[
    tuple[str, ...], Parameter(name="BACKFILL", help="Backfills: ids, or unique beginnings of ids.")
]
_State = Literal["running", "paused", "cancelling", "completed", "cancelled", "failed"]


async def ls(
    *,
    deployment: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--deployment", "-d"],
            help="Only of this deployment. Repeatable.",
            completer=deployment_names,
        ),
    ] = (),
    state: Annotated[tuple[_State, ...], Parameter(help="Only in this state. Repeatable.")] = (),
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List backfills, newest first."""
    names: dict[str, str] = {}
    listing: Listing[Backfill] = Listing(
        headers=("ID", "DEPLOYMENT", "SCHEDULE", "RANGE (UTC)", "STATE", "PROGRESS"),
        row=lambda backfill: row(backfill, names),
        key=lambda backfill: backfill.id,
        json=to_json,
        none="No backfills. See `headrace deployment backfill --help`.",
        shrink=("DEPLOYMENT", "SCHEDULE"),
    )
    states = [BackfillState.Value(f"BACKFILL_STATE_{word.upper()}") for word in state]
    async with get_client() as client:
        ids = [(await find_deployment(client, word)).id for word in deployment]
        found = client.iter_backfills(ids, states=states, page_size=page_size(limit))
        await emit_list(with_names(client, first(limit, found), names), listing, output, quiet=quiet)


async def inspect(backfill: _BackfillArgument, /, *, output: Output = "table") -> None:
    """Show everything about one backfill, and how its runs have ended."""
    names: dict[str, str] = {}
    async with get_client() as client:
        found = await find_backfill(client, backfill)
        async for _ in with_names(client, iterate([found]), names):
            pass
    emit_document(to_json(found), lambda: details(found, names[found.deployment_id]), output)


async def runs(
    backfill: _BackfillArgument, /, *, limit: Limit = 50, output: Output = "table", quiet: Quiet = False
) -> None:
    """List the instants that a backfill has come to, oldest first."""
    async with get_client() as client:
        found = await find_backfill(client, backfill)
        listed = client.iter_backfill_runs(found.id, page_size=page_size(limit))
        await emit_list(first(limit, listed), run_listing(planned=False), output, quiet=quiet)


async def pause(backfills: _BackfillArguments, /, *, output: Output = "table") -> None:
    """Make no more runs of backfills for now; those that were made go on."""
    async with get_client() as client:
        with changed(output) as done:
            for word in backfills:
                found = await find_backfill(client, word)
                done.append(await client.pause_backfill(found.id))
                _tell(done[-1])


async def resume(backfills: _BackfillArguments, /, *, output: Output = "table") -> None:
    """Go on with backfills that were paused."""
    async with get_client() as client:
        with changed(output) as done:
            for word in backfills:
                found = await find_backfill(client, word)
                done.append(await client.resume_backfill(found.id))
                _tell(done[-1])


async def cancel(backfills: _BackfillArguments, /, *, output: Output = "table") -> None:
    """Make no more runs of backfills, and cancel those that have not started.

    Those that have started go on; cancel them with `headrace flow-run cancel`.
    """
    async with get_client() as client:
        with changed(output) as done:
            for word in backfills:
                found = await find_backfill(client, word)
                done.append(await client.cancel_backfill(found.id))
                _tell(done[-1])


def _tell(backfill: Backfill) -> None:
    say(f"Backfill {backfill.id} is {state_word(backfill)}: {progress(backfill)}.")
