"""`headrace schedule`: when runs of deployments are made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.backfilling import backfill_schedule as backfill
from headrace.cli.changed import changed, show_changed
from headrace.cli.deleting import Doomed, delete_each
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.options import Limit, Output, Quiet, Yes
from headrace.cli.output import Listing, emit_document, emit_json, emit_list, first, iterate, page_size, say
from headrace.cli.parameters import read_parameters
from headrace.cli.schedule_views import (
    ScheduleArgument,
    details,
    find_schedule,
    in_zone,
    label,
    next_fire,
    row,
    typed_time,
    waits,
    with_names,
    zone_of,
)
from headrace.cli.skipping import skip, unskip
from headrace.cli.upcoming import upcoming
from headrace.client import get_client
from headrace.core.schedules import ScheduleInvalid
from headrace.schedules import Cron, Interval, RRule

if TYPE_CHECKING:
    from headrace.schedules import Schedule as Declared
    from headrace.v1.schedule_pb2 import Schedule
    from headrace.v1.schedule_service_pb2 import ScheduleFire

__all__ = [
    "backfill",
    "create",
    "delete",
    "inspect",
    "ls",
    "pause",
    "preview",
    "resume",
    "skip",
    "trigger",
    "unskip",
    "upcoming",
]

_ScheduleArguments = Annotated[
    tuple[str, ...],
    Parameter(name="SCHEDULE", help="Schedules: ids, unique beginnings of ids, slugs, or DEPLOYMENT/SLUG."),
]
_Deployment = Annotated[
    str, Parameter(name="DEPLOYMENT", help="The deployment: flow-name/deployment-name, or its id.")
]
_Cron = Annotated[str | None, Parameter(help="A cron expression of five fields, or @daily and its like.")]
_Interval = Annotated[
    str | None, Parameter(help="Between two fires: seconds, ISO 8601 such as PT15M, or HH:MM:SS.")
]
_RRule = Annotated[str | None, Parameter(help="An RFC 5545 recurrence rule, e.g. FREQ=MONTHLY;BYDAY=-1FR.")]
_Timezone = Annotated[str | None, Parameter(help="IANA name of the zone, e.g. Europe/Oslo. Without it: UTC.")]
_AnchorDate = Annotated[
    str | None,
    Parameter(help="With --interval, a time that the series goes through, e.g. 2026-01-01T09:00."),
]
_DayAnd = Annotated[
    bool,
    Parameter(
        negative=(),
        help="With --cron: days of the month and of the week must both fit. Without it either is enough.",
    ),
]
_Instant = Annotated[str | None, Parameter(help="An ISO 8601 time, in the schedule's zone if it names none.")]


async def ls(
    *,
    deployment: Annotated[
        tuple[str, ...], Parameter(name=["--deployment", "-d"], help="Only of this deployment. Repeatable.")
    ] = (),
    active: Annotated[bool, Parameter(negative=(), help="Only those that are not paused.")] = False,
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List schedules, oldest first."""
    now = datetime.now(UTC)
    names: dict[str, str] = {}
    listing: Listing[Schedule] = Listing(
        headers=("ID", "DEPLOYMENT", "SLUG", "SCHEDULE", "ZONE", "NEXT", "LAST"),
        row=lambda schedule: row(schedule, names, now),
        key=lambda schedule: schedule.id,
        json=to_json,
        none="No schedules. See `headrace schedule create --help`.",
        shrink=("DEPLOYMENT", "SCHEDULE"),
    )
    async with get_client() as client:
        ids = [(await client.get_deployment(word)).id for word in deployment]
        found = client.iter_schedules(ids, active_only=active, page_size=page_size(limit))
        await emit_list(with_names(client, first(limit, found), names), listing, output, quiet=quiet)


async def inspect(schedule: ScheduleArgument, /, *, output: Output = "table") -> None:
    """Show everything about one schedule, and its next fires."""
    async with get_client() as client:
        found = await find_schedule(client, schedule)
        is_idle = found.paused or bool(found.disabled_reason)
        count = 0 if is_idle else 5 + len(found.skipped_times)
        seen = await client.preview_fires(found.id, count) if count else []
        fires = [fire.fire_time.ToDatetime(UTC) for fire in seen if not fire.skipped][:5]
        names: dict[str, str] = {}
        _ = [one async for one in with_names(client, iterate([found]), names)]
    document = to_json(found) | {"next_fires": [fire.isoformat() for fire in fires]}
    emit_document(document, lambda: details(found, names[found.deployment_id], fires), output)


async def create(
    deployment: _Deployment,
    /,
    *,
    cron: _Cron = None,
    interval: _Interval = None,
    rrule: _RRule = None,
    timezone: _Timezone = None,
    anchor_date: _AnchorDate = None,
    day_and: _DayAnd = False,
    slug: Annotated[str | None, Parameter(help="Name of the schedule within the deployment.")] = None,
    paused: Annotated[bool, Parameter(negative=(), help="Make no runs until it is resumed.")] = False,
    param: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--param", "-p"],
            help="A parameter of its runs, as NAME=VALUE; a VALUE that is JSON is taken as JSON. Repeatable.",
        ),
    ] = (),
    params: Annotated[
        str | None, Parameter(help="Parameters as a JSON object; - reads it from standard input.")
    ] = None,
    start: _Instant = None,
    end: _Instant = None,
    jitter: Annotated[
        float, Parameter(help="Seconds by which runs start later at most.", validator=Number(gte=0))
    ] = 0.0,
    catch_up: Annotated[
        str, Parameter(help="What becomes of missed fires: skip, latest, all, or all(N) for at most N.")
    ] = "latest",
    overlap: Annotated[
        str | None,
        Parameter(
            help="What becomes of a fire while an earlier run goes on: allow, skip, queue, queue(N) or "
            "cancel-old. Without it: as the deployment says."
        ),
    ] = None,
    output: Output = "table",
) -> None:
    """Make a schedule of a deployment.

    Give one of --cron, --interval and --rrule. To make several runs of the past, see `headrace schedule
    backfill`; to see when a schedule would fire, `headrace schedule preview`.
    """
    declared = _declared(
        cron,
        interval,
        rrule,
        anchor_date,
        day_or=not day_and,
        timezone=timezone,
        slug=slug,
        active=not paused,
        parameters=read_parameters(param, params),
        start=typed_time(start, "--start"),
        end=typed_time(end, "--end"),
        jitter=jitter,
        catch_up=catch_up,
        overlap=overlap,
    )
    async with get_client() as client:
        message = declared.to_message()
        message.deployment_id = (await client.get_deployment(deployment)).id
        made = await client.create_schedule(message)
    show_changed(made, output)
    say(f"Schedule {label(made)} fires next {next_fire(made)}.")


async def pause(schedules: _ScheduleArguments, /, *, output: Output = "table") -> None:
    """Have schedules make no more runs; those that nobody has begun with go."""
    async with get_client() as client:
        with changed(output) as done:
            for word in schedules:
                done.append(found := await client.pause_schedule((await find_schedule(client, word)).id))
                say(f"Schedule {label(found)} is paused.")


async def resume(schedules: _ScheduleArguments, /, *, output: Output = "table") -> None:
    """Have schedules make runs again, from now on."""
    async with get_client() as client:
        with changed(output) as done:
            for word in schedules:
                done.append(found := await client.resume_schedule((await find_schedule(client, word)).id))
                say(f"Schedule {label(found)} fires next {next_fire(found)}.")


async def delete(schedules: _ScheduleArguments, /, *, yes: Yes = False, output: Output = "table") -> None:
    """Delete schedules; runs that have begun stay."""
    async with get_client() as client:
        found = [await find_schedule(client, word) for word in schedules]

        async def delete_one(thing: Doomed) -> None:
            await client.delete_schedule(thing.id)

        doomed = [Doomed(schedule.id, label(schedule)) for schedule in found]
        await delete_each(doomed, "schedule", delete_one, yes=yes, output=output)


async def preview(
    schedule: Annotated[
        str | None,
        Parameter(
            name="SCHEDULE", help="A schedule that exists; without it, give --cron, --interval or --rrule."
        ),
    ] = None,
    /,
    *,
    cron: _Cron = None,
    interval: _Interval = None,
    rrule: _RRule = None,
    timezone: _Timezone = None,
    anchor_date: _AnchorDate = None,
    day_and: _DayAnd = False,
    count: Annotated[
        int, Parameter(name=["--count", "-n"], validator=Number(gte=1, lte=1000), help="How many.")
    ] = 10,
    after: Annotated[
        str | None, Parameter(help="From this instant on, an ISO 8601 time. Without it: now.")
    ] = None,
    output: Output = "table",
) -> None:
    """Show when a schedule fires: one that exists, or one that is only thought of."""
    start = _aware(typed_time(after, "--after"))
    if schedule is not None:
        async with get_client() as client:
            found = await find_schedule(client, schedule)
            fires = await client.preview_fires(found.id, count, start=start)
        zone = zone_of(found)
    else:
        declared = _declared(cron, interval, rrule, anchor_date, day_or=not day_and, timezone=timezone)
        fires = [_thought_of(fire) for fire in declared.next(count, after=_just_before(start))]
        zone = timezone or "UTC"
    now = datetime.now(UTC)
    listing: Listing[ScheduleFire] = Listing(
        headers=("UTC", zone.upper(), "IN"),
        row=lambda fire: (
            f"{fire.fire_time.ToDatetime():%Y-%m-%d %H:%M:%S}",
            in_zone(fire.fire_time.ToDatetime(UTC), zone),
            waits(fire, now),
        ),
        key=lambda fire: fire.fire_time.ToJsonString(),
        json=lambda fire: _fire_json(fire, zone),
        none="It does not fire any more.",
    )
    await emit_list(iterate(fires), listing, output)


def _thought_of(fire: datetime) -> ScheduleFire:
    from headrace.v1.schedule_service_pb2 import ScheduleFire

    said = ScheduleFire()
    said.fire_time.FromDatetime(fire)
    return said


def _fire_json(fire: ScheduleFire, zone: str) -> dict[str, Any]:
    at = fire.fire_time.ToDatetime(UTC)
    said: dict[str, Any] = {"fire_time": at.isoformat(), "local_time": in_zone(at, zone)}
    return said | {"run_id": fire.run_id, "skipped": fire.skipped} if fire.run_id else said


async def trigger(schedule: ScheduleArgument, /, *, output: Output = "table", quiet: Quiet = False) -> None:
    """Make one run now, with the schedule's parameters; the schedule may be paused."""
    async with get_client() as client:
        found = await find_schedule(client, schedule)
        run = await client.trigger_schedule(found.id)
    if quiet:
        print(run.id)
    elif output == "table":
        say(f"Flow run {text.clean(run.name)} ({run.id}) is scheduled for now.")
    else:
        emit_json(to_json(run), indent=2 if output == "json" else None)


# What was typed


def _declared(
    cron: str | None,
    interval: str | None,
    rrule: str | None,
    anchor: str | None,
    *,
    day_or: bool,
    **more: Any,
) -> Declared:
    given = {"--cron": cron, "--interval": interval, "--rrule": rrule}
    said = [name for name, value in given.items() if value is not None]
    if len(said) != 1:
        raise CliError("Give one of --cron, --interval and --rrule.", code=ExitCode.USAGE)
    if anchor is not None and interval is None:
        raise CliError("--anchor-date goes with --interval.", code=ExitCode.USAGE)
    if not day_or and cron is None:
        raise CliError("--day-and goes with --cron.", code=ExitCode.USAGE)
    try:
        if cron is not None:
            return Cron(cron, day_or=day_or, **more)
        if rrule is not None:
            return RRule(rrule, **more)
        return Interval(interval or "", anchor_date=typed_time(anchor, "--anchor-date"), **more)
    except ScheduleInvalid as error:
        raise CliError(f"{error}.", code=ExitCode.USAGE) from None


def _aware(time: datetime | None) -> datetime | None:
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time


def _just_before(instant: datetime | None) -> datetime:
    """So that a fire at the instant itself is seen."""
    return (instant or datetime.now(UTC)) - timedelta(microseconds=1)
