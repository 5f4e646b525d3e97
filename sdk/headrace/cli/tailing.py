"""Streams that are followed: the changes of runs, the lines of logs. A lost connection is taken up again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from headrace.cli.output import say
from headrace.core.errors import ResumeTokenExpired, ServerDraining, ServerUnavailable
from headrace.core.states import FINAL
from headrace.v1.log_service_pb2 import TailLogsRequest
from headrace.v1.run_pb2 import RunFilter
from headrace.v1.run_service_pb2 import WatchRunsRequest

if TYPE_CHECKING:
    from headrace.cli.session import Session
    from headrace.v1.log_pb2 import LogEntry, LogFilter
    from headrace.v1.log_service_pb2 import TailLogsResponse
    from headrace.v1.run_pb2 import Run
    from headrace.v1.run_service_pb2 import WatchRunsResponse

__all__ = ["tail_until_final", "watch_runs"]

BACKFILL_MAX = 10_000
_FINAL_NUMBERS = frozenset(type.number for type in FINAL)
_PATIENCE_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


class _Patience:
    """Pauses between attempts to reconnect, until there were too many in a row."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._pause = _FIRST_PAUSE_SECONDS

    def restore(self) -> None:
        self.__init__()

    async def after(self, error: Exception) -> None:
        """Wait a while; raise `error` when patience is at its end."""
        if self._spent >= _PATIENCE_SECONDS:
            raise error
        if not self._spent:
            say(f"{error} Trying again for {_PATIENCE_SECONDS:.0f} s.")
        await asyncio.sleep(self._pause)
        self._spent += self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)


async def watch_runs(session: Session, filter: RunFilter) -> AsyncGenerator[WatchRunsResponse]:
    """The runs of `filter` as they are, a bookmark, then each change, without end."""
    token = ""
    patience = _Patience()
    while True:
        try:
            async for event in session.runs.WatchRuns(WatchRunsRequest(filter=filter, resume_token=token)):
                patience.restore()
                token = event.resume_token or token
                yield event
        except ResumeTokenExpired:
            token = ""
        except (ServerUnavailable, ServerDraining) as error:
            await patience.after(error)


async def _tail(
    session: Session, filter: LogFilter, token: str, backfill: int
) -> AsyncGenerator[TailLogsResponse]:
    patience = _Patience()
    while True:
        request = TailLogsRequest(filter=filter, resume_token=token, backfill=0 if token else backfill)
        try:
            async for response in session.logs.TailLogs(request):
                patience.restore()
                token = response.resume_token or token
                yield response
        except (ServerUnavailable, ServerDraining) as error:
            await patience.after(error)


async def tail_until_final(
    session: Session, run: Run, filter: LogFilter, backfill: int | None
) -> AsyncGenerator[LogEntry]:
    """Log lines as they are written, until `run` has ended and its last line is read.

    Args:
        session: the server.
        run: whose end is waited for.
        filter: which lines.
        backfill: how many of those already written; None: as many as the server gives.
    """
    most = BACKFILL_MAX if backfill is None else min(backfill, BACKFILL_MAX)
    ended = asyncio.create_task(_until_final(session, run.id))
    token = ""
    try:
        async with aclosing(_tail(session, filter, "", most)) as responses:
            while True:
                reading = asyncio.ensure_future(anext(responses))
                await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done() and ended.done():
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                    break
                response = await reading
                token = response.resume_token or token
                for entry in response.logs:
                    yield entry
        ended.result()
        # A run's lines are durable before its last state is: one more reading from here has them all.
        async with aclosing(_tail(session, filter, token, most)) as responses:
            async for response in responses:
                for entry in response.logs:
                    yield entry
                if response.HasField("bookmark") and response.bookmark.initial_sync_done:
                    return
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)


async def _until_final(session: Session, run_id: str) -> None:
    async with aclosing(watch_runs(session, RunFilter(ids=[run_id]))) as events:
        async for event in events:
            if event.HasField("upsert") and event.upsert.state.type in _FINAL_NUMBERS:
                return
            if event.removed_run_id == run_id:
                return
