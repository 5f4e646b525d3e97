"""`headrace schedule skip` and `unskip`: single instants of a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from cyclopts import Parameter

from headrace.cli.changed import show_changed
from headrace.cli.options import Output
from headrace.cli.output import say
from headrace.cli.schedule_views import (
    ScheduleArgument,
    find_schedule,
    in_zone,
    known_zone,
    label,
    next_fire,
    typed_time,
    zone_of,
)
from headrace.client import get_client

__all__ = ["skip", "unskip"]

_Times = Annotated[
    tuple[str, ...],
    Parameter(name="TIME", help="When it fires: ISO 8601 times, in its zone if they name none."),
]


async def skip(schedule: ScheduleArgument, times: _Times, /, *, output: Output = "table") -> None:
    """Have no run made for single instants to come.

    `headrace schedule preview SCHEDULE` shows the instants. A run that was made a moment before its instant
    goes, unless somebody has begun with it.
    """
    asked = [typed_time(time, "TIME") for time in times]
    async with get_client() as client:
        found = await find_schedule(client, schedule)
        for instant in _instants(asked, zone_of(found)):
            found = await client.skip_fire(found.id, instant)
            at = in_zone(instant, zone_of(found))
            said = f"No run is made for {at}. Schedule {label(found)} fires next {next_fire(found)}."
            say(said)
        show_changed(found, output)


async def unskip(schedule: ScheduleArgument, times: _Times, /, *, output: Output = "table") -> None:
    """Have runs made for instants that were skipped, those that are past excepted."""
    asked = [typed_time(time, "TIME") for time in times]
    async with get_client() as client:
        found = await find_schedule(client, schedule)
        for instant in _instants(asked, zone_of(found)):
            found = await client.unskip_fire(found.id, instant)
            at = in_zone(instant, zone_of(found))
            said = f"{at} is not skipped. Schedule {label(found)} fires next {next_fire(found)}."
            say(said)
        show_changed(found, output)


def _instants(asked: Sequence[datetime | None], zone: str) -> list[datetime]:
    """The times as instants; without a zone of their own they are the wall time of the schedule's."""
    return [time if time.tzinfo else time.replace(tzinfo=known_zone(zone)) for time in asked if time]
