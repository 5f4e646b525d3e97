"""Waiting for runs that other processes execute."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from headrace.client.calls import is_transient
from headrace.core.errors import ObjectNotFound, ServiceError
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.state_pb2 import STATE_TYPE_PENDING

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient

__all__ = ["ended_run"]

_log = logging.getLogger("headrace.flow_runs")


async def ended_run(
    client: HeadraceClient, run_id: str, interval_seconds: float = 1.0, *, log_states: bool = False
) -> Run:
    """The run, in full, once nothing more happens to it.

    Args:
        client: asked; breaks of its connection are outlasted.
        run_id: the run.
        interval_seconds: between two tries to watch while the server is away.
        log_states: write each state that the run enters to the log.

    Raises:
        ObjectNotFound: there is no such run, or it was deleted meanwhile.
    """
    run: Run | None = None
    seen = ""
    while True:
        try:
            run = run or await client.get_run(run_id)
            async with aclosing(cast("Any", client.watch_runs(RunFilter(ids=[run_id])))) as events:
                async for event in events:
                    if event.WhichOneof("event") == "removed_run_id":
                        raise ObjectNotFound.of("run", run_id)
                    if event.HasField("upsert"):
                        run = cast("Run", event.upsert)
                        if log_states and run.state.id != seen:
                            seen = run.state.id
                            said = "Flow run %r is in state %r"
                            _log.info(said, run.name, run.state.name, extra={"send_to_api": False})
                    if _has_ended(run):
                        return await client.get_run(run_id)
        except ServiceError as error:
            if not is_transient(error):
                raise
        await asyncio.sleep(interval_seconds)


def _has_ended(run: Run) -> bool:
    """Whether it has, or will not start because of an upstream."""
    return run.HasField("end_time") or (run.state.type == STATE_TYPE_PENDING and run.state.name == "NotReady")
