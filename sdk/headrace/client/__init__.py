"""Talking to a server: `get_client`."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Literal, overload

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.client.sync_client import SyncHeadraceClient
    from headrace.settings import Settings

__all__ = ["get_client"]

# Both are read once by gRPC's core, so they are set before anything here imports it. Without the first it
# tells the user's terminal of every connection that closes. With its fork support about one child in five,
# forked while a stream is open, dies of SIGSEGV.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def _is_news(record: logging.LogRecord) -> bool:
    """False for what asyncio says when gRPC's poller, which all event loops of a process share, is late.

    It wakes a loop for an answer that another has taken, or has an answer for a loop that was closed
    meanwhile. Nobody loses anything by it (github.com/grpc/grpc/issues/25364).
    """
    error = record.exc_info[1] if record.exc_info else None
    is_late = isinstance(error, BlockingIOError) or str(error) == "Event loop is closed"
    return not (is_late and "PollerCompletionQueue" in record.getMessage())


logging.getLogger("asyncio").addFilter(_is_news)


@overload
def get_client(
    settings: Settings | None = None, *, sync_client: Literal[False] = False, start_server: bool = True
) -> HeadraceClient: ...
@overload
def get_client(
    settings: Settings | None = None, *, sync_client: Literal[True], start_server: bool = True
) -> SyncHeadraceClient: ...
def get_client(
    settings: Settings | None = None, *, sync_client: bool = False, start_server: bool = True
) -> HeadraceClient | SyncHeadraceClient:
    """A client of the server that the settings name; open it with `async with`, the sync one with `with`.

    Args:
        settings: instead of those in force.
        sync_client: a client whose methods block, for code without an event loop.
        start_server: whether a server may be started for the address `auto` when none runs.
    """
    if sync_client:
        from headrace.client.sync_client import SyncHeadraceClient

        return SyncHeadraceClient(settings, start_server=start_server)
    from headrace.client.api import HeadraceClient

    return HeadraceClient(settings, start_server=start_server)
