"""Log lines as they are written, until the run they belong to has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar, cast

from headrace.core.states import FINAL
from headrace.v1.run_pb2 import RunFilter

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.v1.log_pb2 import LogEntry, LogFilter
    from headrace.v1.run_pb2 import Run

__all__ = ["closing", "tail_until_final"]

T = TypeVar("T")

BACKFILL_MAX = 10_000
_FINAL_NUMBERS = frozenset(type.number for type in FINAL)


def closing(events: AsyncIterator[T]) -> aclosing[AsyncGenerator[T]]:
    """Ends the stream with the `async with` block, rather than whenever it is collected."""
    return aclosing(cast("AsyncGenerator[T]", events))


async def tail_until_final(
    client: HeadraceClient, run: Run, filter: LogFilter, backfill: int | None
) -> AsyncGenerator[LogEntry]:
    """Log lines as they are written, until `run` has ended and its last line is read.

    Args:
        client: of the server.
        run: whose end is waited for.
        filter: which lines.
        backfill: how many of those already written; None: as many as the server gives.
    """
    most = BACKFILL_MAX if backfill is None else min(backfill, BACKFILL_MAX)
    ended = asyncio.create_task(_until_final(client, run.id))
    token = ""
    try:
        async with closing(client.tail_logs(filter, backfill=most)) as responses:
            while True:
                reading = asyncio.ensure_future(anext(responses))
                # Without a token yet, there is no place to read on from.
                awaited = {reading, ended} if token else {reading}
                try:
                    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    # Also after Ctrl-C: a stream that is being read cannot be closed.
                    is_read = reading.done()
                    if not is_read:
                        reading.cancel()
                        await asyncio.gather(reading, return_exceptions=True)
                if not is_read:
                    break
                response = await reading
                token = response.resume_token or token
                for entry in response.logs:
                    yield entry
        ended.result()
        # A run's lines are durable before its last state is: one more reading from here has them all.
        async with closing(client.tail_logs(filter, backfill=most, resume_token=token)) as responses:
            async for response in responses:
                for entry in response.logs:
                    yield entry
                if response.HasField("bookmark") and response.bookmark.initial_sync_done:
                    return
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)


async def _until_final(client: HeadraceClient, run_id: str) -> None:
    async with closing(client.watch_runs(RunFilter(ids=[run_id]))) as events:
        async for event in events:
            is_final = event.HasField("upsert") and event.upsert.state.type in _FINAL_NUMBERS
            if is_final or event.removed_run_id == run_id:
                return
