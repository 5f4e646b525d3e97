"""What is told of a run that somebody watches and that does not begin."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

from headrace.cli.output import say
from headrace.cli.text import clean
from headrace.core.errors import HeadraceException
from headrace.v1.run_service_pb2 import BlockingCause

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.v1.run_pb2 import Run

__all__ = ["telling_why"]

FIRST_SECONDS = 3.0
"""Before that a run is rather about to begin."""
AGAIN_SECONDS = 10.0


@contextlib.asynccontextmanager
async def telling_why(
    client: HeadraceClient, run: Run, is_waiting: Callable[[], bool]
) -> AsyncGenerator[None]:
    """While inside, tell on stderr why the run does not begin, and again whenever that is something else.

    Args:
        client: an open client.
        run: that is watched.
        is_waiting: whether it has still to begin.
    """
    task = asyncio.ensure_future(_tell(client, run, is_waiting))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _tell(client: HeadraceClient, run: Run, is_waiting: Callable[[], bool]) -> None:
    told = ""
    await asyncio.sleep(FIRST_SECONDS)
    while True:
        # A server that is away is told of by the watch itself.
        with contextlib.suppress(HeadraceException):
            if is_waiting():
                answer = await client.explain_run(run.id)
                why = f"{answer.message} {answer.remedy}".strip()
                if answer.cause != BlockingCause.BLOCKING_CAUSE_NONE and why != told and is_waiting():
                    say(f"Flow run {clean(run.name)} waits: {clean(why)}")
                    told = why
        await asyncio.sleep(AGAIN_SECONDS)
