"""Which backfill is meant, and how backfills are shown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING

from headrace.cli import text
from headrace.cli.as_json import enum_word, to_json
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.output import Listing
from headrace.core.ids import is_id
from headrace.v1.backfill_pb2 import (
    BACKFILL_STATE_COMPLETED,
    Backfill,
    BackfillAction,
    BackfillOrder,
    BackfillRerun,
    BackfillRun,
    BackfillState,
)
from headrace.v1.state_pb2 import StateType

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from headrace.client.api import HeadraceClient

__all__ = ["details", "find_backfill", "instants", "is_well", "progress", "row", "run_listing", "state_word"]

_FEWEST = 4
_PARTS = ("made", "rerun", "existed")
_ENDS = ("unfinished", "completed", "failed", "crashed", "cancelled", "deleted")


async def find_backfill(client: HeadraceClient, word: str) -> Backfill:
    """The backfill that was typed.

    Raises:
        CliError: there is none, or more than one.
    """
    folded = word.strip().lower()
    if is_id(folded):
        return await client.get_backfill(folded)
    known = [backfill async for backfill in client.iter_backfills()]
    found = [backfill for backfill in known if len(folded) >= _FEWEST and backfill.id.startswith(folded)]
    if not found:
        raise CliError(
            f"There is no backfill '{word}'.", "See `headrace backfill ls`.", code=ExitCode.NOT_FOUND
        )
    if len(found) > 1:
        shown = ", ".join(backfill.id for backfill in found[:5])
        raise CliError(f"'{word}' means more than one backfill: {shown}.", "Give an id.", code=ExitCode.USAGE)
    return found[0]


def is_well(backfill: Backfill) -> bool:
    """It has ended, and nothing that it has started has failed."""
    counts = backfill.counts
    bad = counts.failed + counts.crashed + counts.cancelled
    return backfill.state == BACKFILL_STATE_COMPLETED and not bad


def state_word(backfill: Backfill) -> str:
    """Its state in one word."""
    return (enum_word(BackfillState.DESCRIPTOR, backfill.state) or "-").lower()


def progress(backfill: Backfill) -> str:
    """How far it is, in a few words."""
    counts = backfill.counts
    ends = [f"{getattr(counts, name)} {name}" for name in _ENDS if getattr(counts, name)]
    done = counts.made + counts.rerun + counts.existed - counts.unfinished
    return ", ".join([f"{done} of {counts.total} done", *ends])


def instants(backfill: Backfill) -> str:
    """Its range."""
    return f"{_utc(getattr(backfill, 'from'))} to {_utc(backfill.until)}"


def _utc(instant: Timestamp) -> str:
    return f"{instant.ToDatetime(UTC):%Y-%m-%d %H:%M}"


def row(backfill: Backfill, names: dict[str, str]) -> Sequence[str]:
    """Its row in a list."""
    return (
        backfill.id,
        text.clean(names[backfill.deployment_id]),
        text.clean(backfill.schedule_slug) or backfill.schedule_id,
        instants(backfill),
        state_word(backfill),
        progress(backfill),
    )


def details(backfill: Backfill, name: str) -> Sequence[tuple[str, str]]:
    """What `inspect` shows."""
    counts = backfill.counts
    come_to = sum(getattr(counts, part) for part in _PARTS)
    order = enum_word(BackfillOrder.DESCRIPTOR, backfill.order) or "-"
    rerun = enum_word(BackfillRerun.DESCRIPTOR, backfill.rerun) or "-"
    pairs = [
        ("ID", backfill.id),
        ("Deployment", text.clean(name)),
        ("Schedule", text.clean(backfill.schedule_slug) or backfill.schedule_id),
        ("Range (UTC)", instants(backfill)),
        ("Order", f"{order.lower()} first"),
        ("Limit", str(backfill.limit)),
        ("Priority", str(backfill.priority)),
        ("Parameters", text.clean(backfill.parameters)),
        ("Rerun", rerun.lower()),
        ("By", text.clean(backfill.created_by)),
        ("Created", text.local_time(backfill.create_time)),
        ("Ended", text.local_time(backfill.end_time) if backfill.HasField("end_time") else ""),
        ("State", state_word(backfill)),
        ("Reason", text.clean(backfill.reason)),
        ("Instants", str(counts.total)),
        *((f"  {part}", str(getattr(counts, part))) for part in _PARTS),
        ("  to come", str(counts.total - come_to)),
        ("Runs", str(counts.made + counts.rerun)),
        *((f"  {end}", str(getattr(counts, end))) for end in _ENDS),
    ]
    return [(label, value) for label, value in pairs if value]


_WORDS = {"MAKE": "made", "RERUN": "run again", "LEAVE": "existed"}
_PLANNED = {"MAKE": "would be made", "RERUN": "would be run again", "LEAVE": "exists"}


def run_listing(*, planned: bool) -> Listing[BackfillRun]:
    """How instants are listed.

    Args:
        planned: they are what would become of them.
    """
    words = _PLANNED if planned else _WORDS

    def cells(run: BackfillRun) -> Sequence[str]:
        action = words.get(enum_word(BackfillAction.DESCRIPTOR, run.action) or "", "-")
        fire = f"{run.fire_time.ToDatetime(UTC):%Y-%m-%d %H:%M:%S}"
        return (fire, run.run_id, action) if planned else (fire, run.run_id, action, _outcome(run))

    headers = ("FIRE (UTC)", "RUN", "WHAT")
    none = "The schedule does not fire in this range." if planned else "It has not come to any instant yet."
    return Listing(
        headers=headers if planned else (*headers, "OUTCOME"),
        row=cells,
        key=lambda run: run.run_id,
        json=to_json,
        none=none,
    )


def _outcome(run: BackfillRun) -> str:
    if run.unfinished:
        return "unfinished"
    return (enum_word(StateType.DESCRIPTOR, run.outcome) or "-").lower()
