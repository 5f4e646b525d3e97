"""Which schedule is meant, and how schedules are shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

from cyclopts import Parameter

from headrace.cli import text
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.core.errors import ObjectNotFound
from headrace.core.ids import is_id
from headrace.v1.schedule_pb2 import CatchUpMode, OverlapMode

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.v1.schedule_pb2 import Schedule
    from headrace.v1.schedule_service_pb2 import ScheduleFire

__all__ = [
    "ScheduleArgument",
    "ahead",
    "details",
    "find_schedule",
    "in_zone",
    "known_zone",
    "label",
    "next_fire",
    "row",
    "typed_time",
    "waits",
    "with_names",
    "zone_of",
]


ScheduleArgument = Annotated[
    str,
    Parameter(
        name="SCHEDULE", help="A schedule: its id, a unique beginning of it, its slug, or DEPLOYMENT/SLUG."
    ),
]


class Owned(Protocol):
    """Something of a deployment."""

    @property
    def deployment_id(self) -> str:
        """Of the deployment."""
        ...


OwnedThing = TypeVar("OwnedThing", bound=Owned)


async def find_schedule(client: HeadraceClient, word: str) -> Schedule:
    """The schedule that was typed.

    Raises:
        CliError: there is none, or more than one.
    """
    folded = word.strip().lower()
    if is_id(folded):
        return await client.get_schedule(folded)
    deployment, _, slug = word.strip().rpartition("/")
    if deployment and "/" not in deployment and not is_id(deployment.lower()):
        deployment, slug = word.strip(), ""  # of a deployment with one schedule, that one
    ids = [(await client.get_deployment(deployment)).id] if deployment else []
    known = [schedule async for schedule in client.iter_schedules(ids)]
    found = [schedule for schedule in known if schedule.slug == slug] if slug or not ids else known
    found = found or [schedule for schedule in known if len(folded) > 3 and schedule.id.startswith(folded)]
    if not found:
        hint = nearest(slug, [schedule.slug for schedule in known]) or "See `headrace schedule ls`."
        raise CliError(f"There is no schedule '{word}'.", hint, code=ExitCode.NOT_FOUND)
    if len(found) > 1:
        shown = ", ".join(schedule.id for schedule in found[:5])
        raise CliError(f"'{word}' means more than one schedule: {shown}.", "Give an id.", code=ExitCode.USAGE)
    return found[0]


async def with_names(
    client: HeadraceClient, things: AsyncIterator[OwnedThing], names: dict[str, str]
) -> AsyncIterator[OwnedThing]:
    """Schedules and the like, once `names` has the name of each one's deployment."""
    async for thing in things:
        if thing.deployment_id not in names:
            try:
                found = await client.get_deployment(thing.deployment_id)
                names[thing.deployment_id] = f"{found.flow_name}/{found.name}"
            except ObjectNotFound:
                names[thing.deployment_id] = thing.deployment_id
        yield thing


def typed_time(typed: str | None, name: str) -> datetime | None:
    """What was typed as a time, None for nothing.

    Raises:
        CliError: it is none; the message has `name`, that of the option or argument.
    """
    if typed is None:
        return None
    try:
        return datetime.fromisoformat(typed.strip())
    except ValueError:
        raise CliError(
            f"'{typed}' is not a time for {name}.",
            "Give one such as 2026-11-20T08:00.",
            code=ExitCode.USAGE,
        ) from None


# How schedules are shown


def label(schedule: Schedule) -> str:
    """How it is named to people."""
    return text.clean(schedule.slug) or schedule.id


def next_fire(schedule: Schedule) -> str:
    """When it fires next, in its own zone."""
    if not schedule.HasField("next_fire_time"):
        return "never"
    return in_zone(schedule.next_fire_time.ToDatetime(UTC), zone_of(schedule))


def what(schedule: Schedule) -> str:
    """The rule in one line."""
    kind = schedule.WhichOneof("timing")
    if kind == "cron":
        return text.clean(schedule.cron.cron)
    if kind == "rrule":
        return text.clean(schedule.rrule.rrule.replace("\n", " "))
    return f"every {schedule.interval.interval.ToTimedelta()}"


def zone_of(schedule: Schedule) -> str:
    """The name of its zone."""
    kind = schedule.WhichOneof("timing")
    return (getattr(schedule, kind).timezone if kind else "") or "UTC"


def row(schedule: Schedule, names: dict[str, str], now: datetime) -> Sequence[str]:
    """Its row in a list."""
    if schedule.paused:
        upcoming = "paused"
    elif schedule.disabled_reason:
        upcoming = "stopped"
    elif schedule.HasField("next_fire_time"):
        upcoming = ahead(schedule.next_fire_time.ToDatetime(UTC), now)
    else:
        upcoming = "-"
    last = text.age(schedule.last_fire_time, now) if schedule.HasField("last_fire_time") else "-"
    name = text.clean(names[schedule.deployment_id])
    return (schedule.id, name, text.clean(schedule.slug), what(schedule), zone_of(schedule), upcoming, last)


def waits(fire: ScheduleFire, now: datetime) -> str:
    """How long it is until a fire, unless it is skipped."""
    return "skipped" if fire.skipped else ahead(fire.fire_time.ToDatetime(UTC), now)


def ahead(fire: datetime, now: datetime) -> str:
    """How long it is until then, in two units."""
    seconds = int((fire - now).total_seconds())
    if seconds <= 0:
        return "-"
    units = (
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "m"),
        (seconds % 60, "s"),
    )
    return " ".join([f"{count}{unit}" for count, unit in units if count][:2])


def in_zone(fire: datetime, zone: str) -> str:
    """A fire as the wall of the zone shows it; in UTC where this machine does not know the zone."""
    return f"{fire.astimezone(known_zone(zone)):%a %Y-%m-%d %H:%M:%S %Z}"


def known_zone(zone: str) -> tzinfo:
    """The zone of the name; UTC where this machine does not know it."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def details(schedule: Schedule, deployment: str, fires: Sequence[datetime]) -> Sequence[tuple[str, str]]:
    """What `inspect` shows, with the name of its deployment."""
    zone = zone_of(schedule)
    overlap = OverlapMode.Name(schedule.overlap.mode).removeprefix("OVERLAP_MODE_").lower().replace("_", "-")
    catch_up = CatchUpMode.Name(schedule.catch_up.mode).removeprefix("CATCH_UP_MODE_").lower()
    pairs = [
        ("ID", schedule.id),
        ("Slug", text.clean(schedule.slug)),
        ("Deployment", text.clean(deployment)),
        ("Schedule", what(schedule)),
        ("Zone", zone),
        ("Paused", "yes" if schedule.paused else "no"),
        ("Stopped", text.clean(schedule.disabled_reason)),
        ("Parameters", text.clean(schedule.parameters)),
        ("Catch up", "latest" if catch_up == "unspecified" else catch_up),
        ("Overlap", "as the deployment says" if overlap == "unspecified" else overlap),
        ("Missed fires", str(schedule.missed_fires)),
        ("Skipped fires", str(schedule.skipped_fires)),
        ("Last skipped", text.clean(schedule.last_skip_reason)),
        (
            "Last fire",
            text.local_time(schedule.last_fire_time) if schedule.HasField("last_fire_time") else "",
        ),
        ("Next fires", "\n".join(in_zone(fire, zone) for fire in fires)),
        ("Skipped", "\n".join(in_zone(at.ToDatetime(UTC), zone) for at in schedule.skipped_times)),
    ]
    return [(label, value) for label, value in pairs if value]
