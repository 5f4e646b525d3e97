"""`headrace schedule upcoming`: the next runs of all schedules together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli import text
from headrace.cli.options import Output, Quiet
from headrace.cli.output import Listing, emit_list, iterate
from headrace.cli.schedule_views import in_zone, label, waits, zone_of
from headrace.client import get_client

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from headrace.client.api import HeadraceClient
    from headrace.v1.schedule_pb2 import Schedule
    from headrace.v1.schedule_service_pb2 import ScheduleFire

__all__ = ["upcoming"]

_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class _Fire:
    """One run that a schedule will make, or would, were it not skipped."""

    fire: ScheduleFire
    deployment: str
    schedule: Schedule

    @property
    def at(self) -> datetime:
        """When."""
        return self.fire.fire_time.ToDatetime(UTC)


async def upcoming(
    *,
    deployment: Annotated[
        tuple[str, ...], Parameter(name=["--deployment", "-d"], help="Only of this deployment. Repeatable.")
    ] = (),
    limit: Annotated[
        int,
        Parameter(name=["--limit", "-n"], validator=Number(gte=1, lte=_MOST), help="At most this many."),
    ] = 20,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List the next runs of all schedules, soonest first.

    They are computed, and made when they are due; the ids of the runs are known. What is paused makes none.
    """
    async with get_client() as client:
        ids = [(await client.get_deployment(word)).id for word in deployment]
        fires = await _next_fires(client, ids, limit)
    now = datetime.now(UTC)
    listing: Listing[_Fire] = Listing(
        headers=("TIME", "IN", "DEPLOYMENT", "SCHEDULE"),
        row=lambda fire: (
            in_zone(fire.at, zone_of(fire.schedule)),
            waits(fire.fire, now),
            text.clean(fire.deployment),
            label(fire.schedule),
        ),
        key=lambda fire: fire.schedule.id,
        json=_json,
        none="No schedule is going to make a run. See `headrace schedule ls`.",
        shrink=("DEPLOYMENT", "SCHEDULE"),
    )
    await emit_list(iterate(fires), listing, output, quiet=quiet)


async def _next_fires(client: HeadraceClient, deployment_ids: Sequence[str], limit: int) -> list[_Fire]:
    """The first fires, soonest first; of schedules that fire later than `limit` others none is among them."""
    active = [
        schedule
        async for schedule in client.iter_schedules(deployment_ids, active_only=True)
        if schedule.HasField("next_fire_time")
    ]
    active.sort(key=lambda schedule: _first(schedule).ToMicroseconds())
    names: dict[str, str] = {}
    fires: list[_Fire] = []
    asked = 0
    for schedule in active:
        if asked == limit:
            break
        if schedule.deployment_id not in names:
            found = await client.get_deployment(schedule.deployment_id)
            names[schedule.deployment_id] = "" if found.paused else f"{found.flow_name}/{found.name}"
        name = names[schedule.deployment_id]
        if not name:
            continue
        asked += 1
        seen = await client.preview_fires(schedule.id, limit, start=_first(schedule).ToDatetime(UTC))
        fires += [_Fire(fire, name, schedule) for fire in seen]
    fires.sort(key=lambda fire: (fire.at, fire.deployment, fire.schedule.id))
    return fires[:limit]


def _first(schedule: Schedule) -> Timestamp:
    """Its next fire, or one before that which is skipped."""
    times = (schedule.next_fire_time, *schedule.skipped_times[:1])
    return min(times, key=lambda time: time.ToMicroseconds())


def _json(fire: _Fire) -> dict[str, Any]:
    return {
        "fire_time": fire.at.isoformat(),
        "local_time": in_zone(fire.at, zone_of(fire.schedule)),
        "run_id": fire.fire.run_id,
        "skipped": fire.fire.skipped,
        "deployment": fire.deployment,
        "schedule_id": fire.schedule.id,
        "slug": fire.schedule.slug,
    }
