"""Which entries are taken when room is short: spans go first, then log lines, never facts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from headrace.core.errors import StorageFull
from headrace.recorder.entries import Encoded, Weight, dropped_notice
from headrace.recorder.notices import Notices
from headrace.recorder.spool import SpoolWriter

__all__ = ["LOGS_UNTIL", "SPANS_UNTIL", "Admission"]

SPANS_UNTIL: Final = 0.8
"""The share of the budget above which spans are left out."""
LOGS_UNTIL: Final = 0.9
"""The share of the budget above which log lines are left out."""
_RETRY_SECONDS: Final = 0.1


class Admission:
    """Stands before a spool. The caller holds the lock of `room` around every method.

    Args:
        spool: what there must be room in.
        budget_bytes: how much it may hold.
        raise_when_full: raise instead of waiting.
        room: notified when a server has taken something, or when the recorder is closed.
        notices: for what the user should know.
    """

    def __init__(
        self,
        spool: SpoolWriter,
        budget_bytes: int,
        *,
        raise_when_full: bool,
        room: threading.Condition,
        notices: Notices,
    ) -> None:
        self._spool = spool
        self._budget_bytes = budget_bytes
        self._raise_when_full = raise_when_full
        self._room = room
        self._notices = notices
        self._dropped = {Weight.LOG: 0, Weight.SPAN: 0}

    @property
    def is_short(self) -> bool:
        """Whether some entries may have to be left out."""
        return self._spool.size > self._budget_bytes * SPANS_UNTIL

    def with_notice(self, encoded: Sequence[Encoded]) -> Sequence[Encoded]:
        """The entries, after the notice of what was left out before them, if anything was."""
        logs, spans = self._dropped[Weight.LOG], self._dropped[Weight.SPAN]
        return [dropped_notice(logs, spans), *encoded] if logs or spans else encoded

    def noticed(self) -> None:
        """The notice is in the spool."""
        self._dropped = dict.fromkeys(self._dropped, 0)

    def admit(
        self, encoded: Sequence[Encoded], durable: Callable[[], int], *, is_disk_full: bool
    ) -> Sequence[Encoded]:
        """The entries to keep; waits for room, or raises, when even facts have none.

        Args:
            encoded: what is to be recorded.
            durable: up to where a server has everything: that can be freed.
            is_disk_full: writing has just failed.

        Raises:
            StorageFull: there is no room, and waiting is not wanted.
        """
        self._spool.reclaim(durable())
        kept = [entry for entry in encoded if self._keeps(entry.weight, is_disk_full)]
        needed = sum(len(entry.data) for entry in kept)
        if not kept or not (is_disk_full or self._is_over_budget(needed)):
            return kept
        what = "its disk is full" if is_disk_full else f"it holds {self._spool.size >> 20} MiB"
        message = f"The spool {self._spool.folder} takes no more records: {what}, and no server has them."
        if self._raise_when_full:
            raise StorageFull(f"{message} Make room, or start the server that is to take them.")
        self._notices.once("full", f"{message} Recording waits until there is room.")
        self._room.wait(_RETRY_SECONDS)
        while not is_disk_full and self._spool.is_open and self._is_over_budget(needed):
            self._room.wait(_RETRY_SECONDS)
            self._spool.reclaim(durable())
        return kept

    def _is_over_budget(self, needed: int) -> bool:
        return self._spool.size + needed > self._budget_bytes

    def _keeps(self, weight: Weight, is_disk_full: bool) -> bool:
        used = 1.0 if is_disk_full else self._spool.size / self._budget_bytes
        limits = {Weight.SPAN: SPANS_UNTIL, Weight.LOG: LOGS_UNTIL}
        if used <= limits.get(weight, used):
            return True
        self._dropped[weight] += 1
        self._notices.once("dropped", "The spool is nearly full: spans and log lines are left out.")
        return False
