"""One connection for many small calls, each of which would otherwise open its own.

Everything in here belongs to the background loop (`headrace.client.background`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from headrace.client import get_client
from headrace.core.errors import ServerUnavailable
from headrace.settings import Settings, get_current_settings

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient

__all__ = ["lasting_client"]

_IDLE_SECONDS: Final = 10.0
_Server: TypeAlias = tuple[object, ...]


@dataclass(slots=True)
class _Kept:
    """A client that is open, or is being opened.

    Attributes:
        opening: ends with the client.
        users: calls that are under way.
        closing: closes it when nobody has used it for a while.
    """

    opening: asyncio.Task[HeadraceClient]
    users: int = 0
    closing: asyncio.TimerHandle | None = None


_kept: dict[_Server, _Kept] = {}
os.register_at_fork(after_in_child=_kept.clear)


@asynccontextmanager
async def lasting_client(settings: Settings | None = None) -> AsyncGenerator[HeadraceClient]:
    """A client of the server that the settings name; it stays open for a while.

    Args:
        settings: instead of those in force.

    Raises:
        ServerUnavailable: there is no server, and none can be started.
    """
    settings = settings or get_current_settings()
    server = (settings.api_url, settings.api_auth_string, settings.home, settings.api_request_timeout_seconds)
    kept = _kept.get(server)
    if kept is None:
        kept = _kept[server] = _Kept(asyncio.ensure_future(_opened(settings)))
    if kept.closing is not None:
        kept.closing.cancel()
        kept.closing = None
    kept.users += 1
    try:
        # Others wait for it, too: it is opened whoever gives up.
        yield await asyncio.shield(kept.opening)
    except ServerUnavailable:
        # The next one may be somewhere else.
        if _kept.get(server) is kept:
            del _kept[server]
        raise
    finally:
        kept.users -= 1
        if not kept.users:
            delay = _IDLE_SECONDS if _kept.get(server) is kept else 0
            kept.closing = asyncio.get_running_loop().call_later(delay, _close, server, kept)


async def _opened(settings: Settings) -> HeadraceClient:
    return await get_client(settings).__aenter__()


def _close(server: _Server, kept: _Kept) -> None:
    if _kept.get(server) is kept:
        del _kept[server]
    opening = kept.opening
    if opening.done() and not opening.cancelled() and opening.exception() is None:
        task = asyncio.ensure_future(opening.result().__aexit__(None, None, None))
        _closing.add(task)
        task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()
"""The loop alone would let them be collected before they have ended."""
