"""`headrace deployment backfill`, and the same by schedule: the runs of a range of the past."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli.as_json import to_json
from headrace.cli.backfill_views import details, is_well, progress, run_listing, state_word
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.finding_deployments import DeploymentArgument, find_deployment, name_of
from headrace.cli.options import Output
from headrace.cli.output import emit_document, emit_list, iterate, say
from headrace.cli.parameters import read_parameters
from headrace.cli.schedule_views import ScheduleArgument, find_schedule, label
from headrace.client import get_client
from headrace.core.errors import FieldsInvalid
from headrace.core.ids import new_id
from headrace.v1.backfill_pb2 import Backfill, BackfillOrder, BackfillRerun, BackfillState
from headrace.v1.schedule_pb2 import Schedule

if TYPE_CHECKING:
    from headrace.cli.options import Format
    from headrace.client.api import HeadraceClient
    from headrace.v1.deployment_pb2 import Deployment

__all__ = ["From", "To", "backfill", "backfill_schedule", "follow"]

_FIRST_POLL_SECONDS = 0.1
_LAST_POLL_SECONDS = 2.0
_LIVE = (
    BackfillState.BACKFILL_STATE_RUNNING,
    BackfillState.BACKFILL_STATE_PAUSED,
    BackfillState.BACKFILL_STATE_CANCELLING,
)
From = Annotated[
    str, Parameter(name="--from", help="First instant, an ISO 8601 time, UTC if it names no zone.")
]
To = Annotated[str, Parameter(help="Where the range ends; a fire at this instant is not in it.")]
Order = Annotated[Literal["oldest", "newest"], Parameter(help="Which runs are made first.")]
AtOnce = Annotated[
    int,
    Parameter(
        name="--limit",
        validator=Number(gte=1, lte=1000),
        help="How many of its runs may be unfinished at once.",
    ),
]
Params = Annotated[
    tuple[str, ...],
    Parameter(
        name=["--param", "-p"],
        help="A parameter over those of the schedule, as NAME=VALUE; {{ scheduled_time }} in it is the "
        "run's instant. Repeatable.",
    ),
]
Rerun = Annotated[
    Literal["none", "failed", "all"],
    Parameter(
        help="Which runs that exist and have ended are run again, with the parameters that they have: none, "
        "those that did not complete, or all."
    ),
]
Priority = Annotated[
    int,
    Parameter(validator=Number(gte=0, lte=9), help="Of the runs, from 0 to 9; 9 goes first."),
]
DryRun = Annotated[bool, Parameter(negative=(), help="Show what would be made; make nothing.")]
Watch = Annotated[bool, Parameter(negative=(), help="Follow it until it ends.")]


async def backfill(
    deployment: DeploymentArgument,
    /,
    *,
    from_: From,
    to: To,
    schedule: Annotated[
        str,
        Parameter(help="Slug or id of the schedule; needed if the deployment has more than one."),
    ] = "",
    order: Order = "oldest",
    limit: AtOnce = 100,
    param: Params = (),
    rerun: Rerun = "none",
    priority: Priority = 0,
    dry_run: DryRun = False,
    watch: Watch = False,
    output: Output = "table",
) -> int:
    """Make the runs that a schedule of a deployment would have made in a range of time.

    An instant that has a run already gets no other one. The server makes them, a few at a time, with the
    lowest priority unless told otherwise, and goes on with it when it was restarted: see `headrace
    backfill`.
    With --watch the exit code is 0 when all of its runs have completed, else 1.
    """
    asked = _asked(from_, to, order, limit, param, rerun, priority)
    async with get_client() as client:
        found = await find_deployment(client, deployment)
        asked.schedule_id = _schedule_of(found, schedule).id
        return await _begin(client, asked, name_of(found), output, dry_run=dry_run, watch=watch)


async def backfill_schedule(
    schedule: ScheduleArgument,
    /,
    *,
    from_: From,
    to: To,
    order: Order = "oldest",
    limit: AtOnce = 100,
    param: Params = (),
    rerun: Rerun = "none",
    priority: Priority = 0,
    dry_run: DryRun = False,
    watch: Watch = False,
    output: Output = "table",
) -> int:
    """Make the runs that a schedule would have made in a range of time.

    The same as `headrace deployment backfill`, for the schedule that is named.
    """
    asked = _asked(from_, to, order, limit, param, rerun, priority)
    async with get_client() as client:
        found = await find_schedule(client, schedule)
        asked.schedule_id = found.id
        name = name_of(await client.get_deployment(found.deployment_id))
        return await _begin(client, asked, name, output, dry_run=dry_run, watch=watch)


def _asked(
    from_: str, to: str, order: str, limit: int, param: tuple[str, ...], rerun: str, priority: int
) -> Backfill:
    asked = Backfill(
        id=new_id(),
        order=BackfillOrder.Value(f"BACKFILL_ORDER_{order.upper()}"),
        limit=limit,
        rerun=BackfillRerun.Value(f"BACKFILL_RERUN_{rerun.upper()}"),
        priority=priority,
    )
    given = read_parameters(param, None)
    if given:
        asked.parameters = json.dumps(given)
    getattr(asked, "from").FromDatetime(_instant(from_, "--from"))
    asked.until.FromDatetime(_instant(to, "--to"))
    return asked


def _instant(typed: str, option: str) -> datetime:
    try:
        time = datetime.fromisoformat(typed.strip())
    except ValueError:
        raise CliError(
            f"'{typed}' is not a time for {option}.",
            "Give one such as 2026-11-20T08:00.",
            code=ExitCode.USAGE,
        ) from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _schedule_of(deployment: Deployment, word: str) -> Schedule:
    """The schedule that is meant.

    Raises:
        CliError: the deployment has none, none of that name, or several.
    """
    known = list(deployment.schedules)
    name = name_of(deployment)
    if not known:
        raise CliError(
            f"Deployment '{name}' has no schedule.", "See `headrace schedule create`.", code=ExitCode.USAGE
        )
    labels = ", ".join(label(schedule) for schedule in known)
    if not word:
        if len(known) > 1:
            raise CliError(
                f"Deployment '{name}' has several schedules: {labels}.",
                "Name one with --schedule.",
                code=ExitCode.USAGE,
            )
        return known[0]
    for schedule in known:
        if word in (schedule.slug, schedule.id):
            return schedule
    hint = nearest(word, [schedule.slug for schedule in known]) or f"It has {labels}."
    raise CliError(f"Deployment '{name}' has no schedule '{word}'.", hint, code=ExitCode.NOT_FOUND)


async def _begin(
    client: HeadraceClient, asked: Backfill, name: str, output: Format, *, dry_run: bool, watch: bool
) -> int:
    try:
        answer = await client.create_backfill(asked, dry_run=dry_run)
    except FieldsInvalid as error:
        lines = "".join(f"\n  {v.field}: {v.description}" for v in error.violations)
        raise CliError(f"The backfill cannot be made:{lines or error}", code=ExitCode.USAGE) from None
    made = answer.backfill
    if dry_run:
        await emit_list(iterate(answer.runs), run_listing(planned=True), output)
        if made.counts.total > len(answer.runs):
            say(f"These are the first {len(answer.runs)} of {made.counts.total} instants.")
        return ExitCode.OK
    if not made.counts.total:
        say("The schedule does not fire in this range.")
    else:
        say(f"Backfill {made.id} makes the runs of {made.counts.total} instants, {made.limit} at once.")
    if watch:
        made = await follow(client, made)
    emit_document(to_json(made), lambda: details(made, name), output)
    return ExitCode.OK if not watch or is_well(made) else ExitCode.FAILED


async def follow(client: HeadraceClient, backfill: Backfill) -> Backfill:
    """Tell how far it is until it has ended; then as it is."""
    told, delay = "", _FIRST_POLL_SECONDS
    while backfill.state in _LIVE:
        line = f"{state_word(backfill)}: {progress(backfill)}"
        if line != told:
            say(line)
            told = line
        await asyncio.sleep(delay)
        delay = min(delay * 1.5, _LAST_POLL_SECONDS)
        backfill = await client.get_backfill(backfill.id)
    return backfill
