"""What can be asked of backfills: that there is one, that it pauses, goes on, or ends."""

from __future__ import annotations

from typing import Final, NamedTuple

from headrace.core.errors import FieldsInvalid, ObjectNotFound, PreconditionFailed, RequestIdReused
from headrace.v1.backfill_pb2 import (
    BACKFILL_STATE_CANCELLING,
    BACKFILL_STATE_PAUSED,
    BACKFILL_STATE_RUNNING,
    Backfill,
    BackfillRun,
    BackfillState,
)
from headrace_services.domain.backfills import FIRES_MAX, Rest
from headrace_services.storage.backfill_rows import (
    BackfillRow,
    BackfillRunRow,
    asked_only,
    backfill_message,
    is_newest_first,
    run_message,
)
from headrace_services.storage.backfilling import STEP_RUNS, Progress, advance
from headrace_services.storage.command import Command
from headrace_services.storage.entities import Lock
from headrace_services.storage.instants import micros
from headrace_services.storage.schedule_firing import owned_schedule
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["FORESEEN", "BackfillMade", "CreateBackfill", "SetBackfillState", "range_of"]

FORESEEN: Final = 1000
"""How many instants are told of what would become of them."""


class BackfillMade(NamedTuple):
    """What has become of the wish for a backfill.

    Attributes:
        backfill: as it is, or as it would be.
        foreseen: what becomes of its first instants, if that was asked for.
    """

    backfill: Backfill
    foreseen: list[BackfillRun]


def range_of(backfill: Backfill) -> Rest:
    """The range that is asked for.

    Raises:
        FieldsInvalid: it ends before it begins.
    """
    rest = Rest(micros(getattr(backfill, "from")), micros(backfill.until))
    if rest.is_empty:
        raise FieldsInvalid.of("backfill.until", "must come after `from`")
    return rest


class CreateBackfill(Command[BackfillMade]):
    """A backfill begins, with its first step. Asked for twice with one id, it is one.

    Args:
        asked: what is asked, checked.
        spec: of its schedule, as it was counted by.
        total: how many instants the range has.
        actor: who asks.
        dry_run: nothing is made.
        at_once: all of its instants, at most `FORESEEN`, in this transaction; they are told.

    Raises:
        ObjectNotFound: there is no such schedule.
        FieldsInvalid: the range is none, or has too many instants.
        RequestIdReused: there is a backfill of the id that says something else.
    """

    is_solo = True

    def __init__(
        self,
        asked: Backfill,
        spec: bytes,
        total: int,
        actor: str,
        *,
        dry_run: bool = False,
        at_once: bool = False,
    ) -> None:
        super().__init__()
        self._asked = asked_only(asked)
        self._spec = spec
        self._total = total
        self._actor = actor
        self._dry_run = dry_run
        self._at_once = at_once

    def apply(self, work: Work) -> Steps[BackfillMade]:
        asked = self._asked
        before = yield from work.rows.one(BackfillRow, [("id", "=", asked.id)])
        if before is not None:
            return BackfillMade(self._same(before), (yield from self._told(work)))
        schedule, _ = yield from owned_schedule(work, asked.schedule_id)
        row = self._row(work.now, schedule.deployment_id, schedule.slug or "")
        progress = Progress(work, row)
        foreseen: list[BackfillRun] = []
        if self._dry_run or self._at_once:
            foreseen = [run_message(found) for found in (yield from progress.foresee(FORESEEN))]
        if not self._dry_run:
            yield from advance(progress, FORESEEN if self._at_once else STEP_RUNS)
        return BackfillMade(backfill_message(row), foreseen)

    def _told(self, work: Work) -> Steps[list[BackfillRun]]:
        """What was made, when it was and the answer to it was lost."""
        if not self._at_once:
            return []
        order = ["fire_time DESC" if is_newest_first(self._asked) else "fire_time"]
        where = [("backfill_id", "=", self._asked.id)]
        rows = yield from work.rows.find(BackfillRunRow, where, order=order, lock=Lock.NONE)
        return [run_message(row) for row in rows]

    def _same(self, row: BackfillRow) -> Backfill:
        found = backfill_message(row)
        if asked_only(found) != self._asked:
            raise RequestIdReused(
                f"There is a backfill '{row.id}' already, of other instants or with other settings.",
                facts={"backfill_id": row.id},
            )
        return found

    def _row(self, now: int, deployment_id: str, slug: str) -> BackfillRow:
        most = FORESEEN if self._at_once else FIRES_MAX
        if self._total > most:
            raise FieldsInvalid.of(
                "backfill.until", f"there are more than {most:,} instants in this range: take it in parts"
            )
        rest = range_of(self._asked)
        said = Backfill(schedule_slug=slug, created_by=self._actor)
        said.MergeFrom(self._asked)
        said.counts.total = self._total
        return BackfillRow(
            id=said.id,
            deployment_id=deployment_id,
            schedule_id=said.schedule_id,
            state=BACKFILL_STATE_RUNNING,
            is_ready=True,
            rest_from=rest.begin,
            rest_until=rest.end,
            create_time=now,
            update_time=now,
            end_time=None,
            spec=said.SerializeToString(),
            schedule_spec=self._spec,
        )


_VERBS: Final = {
    BACKFILL_STATE_PAUSED: "paused",
    BACKFILL_STATE_RUNNING: "resumed",
    BACKFILL_STATE_CANCELLING: "cancelled",
}


class SetBackfillState(Command[Backfill]):
    """A backfill is to pause, to go on, or to end. Being so already, it is left alone.

    Args:
        backfill_id: of the backfill.
        state: PAUSED, RUNNING or CANCELLING.

    Raises:
        ObjectNotFound: there is none.
        PreconditionFailed: it has ended, or is being cancelled.
    """

    is_solo = True

    def __init__(self, backfill_id: str, state: BackfillState.ValueType) -> None:
        super().__init__()
        self._id = backfill_id.lower()
        self._state = state

    def apply(self, work: Work) -> Steps[Backfill]:
        row = yield from work.rows.one(BackfillRow, [("id", "=", self._id)])
        if row is None:
            raise ObjectNotFound.of("backfill", self._id)
        if row.state == self._state:
            return backfill_message(row)
        if not row.is_live or row.state == BACKFILL_STATE_CANCELLING:
            name = BackfillState.Name(BackfillState.ValueType(row.state)).removeprefix("BACKFILL_STATE_")
            raise PreconditionFailed(
                f"The backfill is {name} and cannot be {_VERBS[self._state]}.",
                facts={"backfill_id": row.id, "state": name},
            )
        Progress(work, row).turn(self._state)
        return backfill_message(row)
