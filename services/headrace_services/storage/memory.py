"""What the last commits left behind, so that the next transaction need not load it again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from headrace_services.storage.rows import RecorderRow, RunRow
from headrace_services.storage.work import Work

__all__ = ["Memory"]

_RUNS: Final = 4096
_FLOWS: Final = 4096
_STATES: Final = 64
"""A run that has entered more states than this since it was made is known without its history."""


class Memory:
    """Recorders, unfinished runs and flows, as of the last commit of this server.

    None of it is trusted: another server may have gone on from there. Every write names the version, or the
    sequence number, that it was decided on, and what was only read is confirmed in the same statement. A
    transaction that went by something out of date fails there, whereupon everything is forgotten.
    """

    def __init__(self) -> None:
        self._recorders: dict[str, RecorderRow] = {}
        # In the order of their last use: the first one goes when there are too many.
        self._runs: dict[str, RunRow] = {}
        self._flows: set[str] = set()

    @property
    def runs(self) -> Mapping[str, RunRow]:
        """Unfinished runs, with everything that a load would bring."""
        return self._runs

    def recorders(self, ids: Iterable[str]) -> dict[str, RecorderRow]:
        """Those of the recorders that are known."""
        return {id: self._recorders[id] for id in ids if id in self._recorders}

    def flows(self, ids: Collection[str]) -> set[str]:
        """Those of the flows that were there."""
        return self._flows.intersection(ids)

    def forget(self) -> None:
        """A transaction failed: what it had at hand is not what the database has."""
        self._recorders.clear()
        self._runs.clear()
        self._flows.clear()

    def forget_recorders(self, ids: Iterable[str]) -> None:
        """Something is about to be decided for which these must be loaded."""
        for id in ids:
            self._recorders.pop(id, None)

    def keep(self, work: Work) -> None:
        """Take over what the transaction has made of its rows: they will be so once it is committed."""
        for recorder in work.recorders.values():
            self._keep_recorder(recorder)
        for run in work.runs.values():
            if run is not None:
                self._runs.pop(run.id, None)
                if work.is_optimistic:
                    self._keep_run(run)
        for row in work.writes.deleted_runs:
            self._runs.pop(row[0], None)
        while len(self._runs) > _RUNS:
            del self._runs[next(iter(self._runs))]
        self._keep_flows(work)

    def _keep_recorder(self, recorder: RecorderRow) -> None:
        recorder.is_new = recorder.writes_lease = False
        recorder.is_remembered = True
        recorder.stored_seq = recorder.durable_seq
        self._recorders[recorder.id] = recorder
        if recorder.expires_at is None:  # sealed, or given up: it may never be heard of again
            del self._recorders[recorder.id]

    def _keep_run(self, run: RunRow) -> None:
        type = run.books.type
        if type is not None and type.is_final:
            return
        if run.stored_version is None:
            run.is_history_known = True
        if len(run.entered) > _STATES:
            run.is_history_known = False
            run.entered = []
        run.stored_version, run.stored_tags = run.version, run.tags
        run.stored_type = 0 if type is None else type.number
        run.writes_spec = run.writes_full_spec = False
        run.requeue = None
        run.full_spec = None  # it can be large, and is hardly ever needed again
        self._runs[run.id] = run

    def _keep_flows(self, work: Work) -> None:
        if work.writes.deleted_flows or len(self._flows) > _FLOWS:
            self._flows.clear()
        elif work.is_optimistic:
            self._flows |= work.known_flows
