"""Watching: the current set, a bookmark, then every change, until the caller leaves.

Nothing is queued for a watcher. It holds a resume token; when something was committed it reads which runs
changed since, then those runs as they are by then. A slow watcher so sees the newest state of each run once
instead of every step, and costs no memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from headrace.core import limits
from headrace.core.clock import Clock
from headrace.core.errors import ServerDraining
from headrace.v1.log_pb2 import LogEntry
from headrace.v1.log_service_pb2 import LOG_ORDER_NEWEST_FIRST, TailLogsRequest, TailLogsResponse
from headrace.v1.run_pb2 import RUN_VIEW_FULL, Run
from headrace.v1.run_service_pb2 import (
    RUN_ORDER_CREATE_TIME_ASC,
    Bookmark,
    WatchRunsRequest,
    WatchRunsResponse,
)
from headrace_services.rpc.drain import Drain
from headrace_services.storage.database import Database

__all__ = ["LogTail", "Pace", "RunWatch", "WatchSettings", "bookmark_at"]

_PAGE: Final = 200
_KNOWN_MAX: Final = 100_000
_BACKFILL_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """What all watches of a server share.

    Attributes:
        clock: what the time is.
        drain: ends every watch when the server stops.
        bookmark_seconds: the longest silence.
        poll_seconds: how often to look without having been woken.
        gap_seconds: the least time between two looks, in which changes of one run become one.
    """

    clock: Clock
    drain: Drain
    bookmark_seconds: float = 10.0
    poll_seconds: float = 2.0
    gap_seconds: float = 0.05


@dataclass(slots=True)
class Pace:
    """When a watch looks again, and when it is time for a sign of life."""

    database: Database
    settings: WatchSettings
    seen: int = field(init=False)
    _looked_at: float = field(init=False)
    _spoke_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.seen = self.database.signals.count
        self._looked_at = self._spoke_at = self.settings.clock.monotonic()

    def spoke(self) -> None:
        """Something was sent."""
        self._spoke_at = self.settings.clock.monotonic()

    @property
    def bookmark_due(self) -> bool:
        """Whether nothing was sent for too long."""
        return self.settings.clock.monotonic() - self._spoke_at >= self.settings.bookmark_seconds

    async def wait(self) -> None:
        """Returns when it is worth looking.

        Raises:
            ServerDraining: the server stops; the caller resumes at another.
        """
        since = self.settings.clock.monotonic() - self._looked_at
        if since < self.settings.gap_seconds:
            await self.settings.drain.sleep(self.settings.gap_seconds - since)
        if not self.settings.drain.begun:
            quiet = self.settings.clock.monotonic() - self._spoke_at
            timeout = min(self.settings.poll_seconds, self.settings.bookmark_seconds - quiet)
            self.seen = await self.database.signals.wait(self.seen, max(timeout, 0.0))
        if self.settings.drain.begun:
            raise ServerDraining
        self._looked_at = self.settings.clock.monotonic()


class RunWatch:
    """One `WatchRuns` call."""

    def __init__(self, database: Database, settings: WatchSettings, request: WatchRunsRequest) -> None:
        self._reader = database.reader
        self._pace = Pace(database, settings)
        self._clock = settings.clock
        self._filter = request.filter
        self._full = request.view == RUN_VIEW_FULL
        self._token = request.resume_token
        self._wanted = frozenset(request.filter.ids)
        # The runs the watcher has been told of; None: unknown, because it resumes or there are too many.
        self._known: set[str] | None = None

    async def responses(self) -> AsyncIterator[WatchRunsResponse]:
        """Everything to send, until the server stops.

        Raises:
            ResumeTokenInvalid, ResumeTokenExpired: watch again without a token.
            ServerDraining: the server stops.
        """
        if not self._token:
            self._known = set()
            token = await self._reader.latest_token()
            async for run in self._snapshot():
                yield WatchRunsResponse(upsert=run)
            self._token = token
        synced = False
        while True:
            async for response in self._look():
                yield response
            if not synced or self._pace.bookmark_due:
                synced = True
                yield self._bookmark()
            await self._pace.wait()

    async def _look(self) -> AsyncIterator[WatchRunsResponse]:
        """What changed since the token, which then moves on.

        Only the last message carries the new token: whoever loses the stream before it gets the same
        changes again.
        """
        changes = await self._reader.changes_since(self._token)
        if changes.token == self._token:
            return
        last: WatchRunsResponse | None = None
        async for response in self._changes(changes.run_ids, changes.deleted):
            if last is not None:
                yield last
            last = response
        self._token = changes.token
        if last is not None:
            last.resume_token = self._token
            self._pace.spoke()
            yield last

    async def _snapshot(self) -> AsyncIterator[Run]:
        page_token = ""
        while True:
            runs, page_token = await self._reader.list_runs(
                self._filter, RUN_ORDER_CREATE_TIME_ASC, _PAGE, page_token, full=self._full
            )
            for run in runs:
                self._remember(run.id)
                yield run
            if not page_token:
                return

    async def _changes(
        self, changed: Sequence[str], deleted: Sequence[str]
    ) -> AsyncIterator[WatchRunsResponse]:
        relevant = self._relevant(changed)
        for start in range(0, len(relevant), _PAGE):
            gone = dict.fromkeys(relevant[start : start + _PAGE])
            for run in await self._reader.get_runs(list(gone), self._filter, full=self._full):
                self._remember(run.id)
                gone.pop(run.id, None)
                yield WatchRunsResponse(upsert=run, resume_token=self._token)
            for run_id in gone:
                if self._forget(run_id):
                    yield WatchRunsResponse(removed_run_id=run_id, resume_token=self._token)
        for run_id in self._relevant(deleted):
            if self._forget(run_id):
                yield WatchRunsResponse(removed_run_id=run_id, resume_token=self._token)

    def _relevant(self, run_ids: Sequence[str]) -> list[str]:
        return [i for i in run_ids if not self._wanted or i in self._wanted]

    def _remember(self, run_id: str) -> None:
        if self._known is not None:
            self._known.add(run_id)
            if len(self._known) > _KNOWN_MAX:
                self._known = None

    def _forget(self, run_id: str) -> bool:
        """Whether the watcher may know the run; after this it does not."""
        if self._known is None:
            return True
        if run_id in self._known:
            self._known.remove(run_id)
            return True
        return False

    def _bookmark(self) -> WatchRunsResponse:
        self._pace.spoke()
        return WatchRunsResponse(bookmark=bookmark_at(self._clock.now()), resume_token=self._token)


class LogTail:
    """One `TailLogs` call."""

    def __init__(self, database: Database, settings: WatchSettings, request: TailLogsRequest) -> None:
        self._reader = database.reader
        self._pace = Pace(database, settings)
        self._clock = settings.clock
        self._filter = request.filter
        self._backfill = request.backfill
        self._token = request.resume_token
        # Lines sent as backfill that may come again as new ones, because they were written meanwhile.
        self._sent: set[bytes] = set()

    async def responses(self) -> AsyncIterator[TailLogsResponse]:
        """Everything to send, until the server stops.

        Raises:
            ResumeTokenInvalid: tail again without a token.
            ServerDraining: the server stops.
        """
        if not self._token:
            self._token = await self._reader.latest_log_token()
            async for response in self._last_lines():
                yield response
        synced = False
        while True:
            logs, token = await self._reader.logs_since(self._filter, self._token)
            if token != self._token:
                self._token = token
                fresh = [line for line in logs if not self._was_sent(line)] if self._sent else logs
                for response in _messages(fresh, token):
                    self._pace.spoke()
                    yield response
                continue
            self._sent.clear()
            if not synced or self._pace.bookmark_due:
                synced = True
                yield self._bookmark()
            await self._pace.wait()

    async def _last_lines(self) -> AsyncIterator[TailLogsResponse]:
        newest: list[list[LogEntry]] = []
        left, page_token = self._backfill, ""
        while left > 0:
            logs, page_token = await self._reader.list_logs(
                self._filter, LOG_ORDER_NEWEST_FIRST, min(left, _BACKFILL_PAGE), page_token
            )
            self._sent.update(line.SerializeToString(deterministic=True) for line in logs)
            newest.append(logs)
            left -= len(logs)
            if not page_token:
                break
        for page in reversed(newest):
            for response in _messages(page[::-1], ""):
                yield response

    def _was_sent(self, line: LogEntry) -> bool:
        return line.SerializeToString(deterministic=True) in self._sent

    def _bookmark(self) -> TailLogsResponse:
        self._pace.spoke()
        return TailLogsResponse(bookmark=bookmark_at(self._clock.now()), resume_token=self._token)


def _messages(lines: Sequence[LogEntry], token: str) -> Iterator[TailLogsResponse]:
    """The lines in messages that can travel; only the last one has the token."""
    response, size = TailLogsResponse(), 0
    for line in lines:
        length = line.ByteSize()
        if response.logs and size + length > limits.MESSAGE_BYTES:
            yield response
            response, size = TailLogsResponse(), 0
        response.logs.append(line)
        size += length
    if response.logs:
        response.resume_token = token
        yield response


def bookmark_at(now: int) -> Bookmark:
    """The bookmark of the instant `now`, microseconds."""
    bookmark = Bookmark(initial_sync_done=True)
    bookmark.server_time.FromMicroseconds(now)
    return bookmark
