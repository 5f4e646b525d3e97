"""The server, for what cannot be done without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from headrace.client import get_client
from headrace.core.errors import ServerUnavailable
from headrace.recorder import get_recorder
from headrace.settings import get_current_settings

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient

__all__ = ["recorded_everything", "require_server", "server_for"]

_LATEST_SECONDS: Final = 5.0
"""How much longer than a connection may take the recorder waits for the server's first answer."""


def require_server(what: str) -> None:
    """See that there may be a server.

    Raises:
        ServerUnavailable: it is switched off.
    """
    if get_current_settings().api_url == "off":
        raise ServerUnavailable(
            f"{what} needs a server, and HEADRACE_API_URL is off. Unset it to have one started, or start one "
            "with `headrace server start` and set HEADRACE_API_URL to its address."
        )


@asynccontextmanager
async def server_for(what: str) -> AsyncGenerator[HeadraceClient]:
    """A client of the server; one is started for the address `auto` when none runs.

    Args:
        what: needs it, as the beginning of a sentence, e.g. "Pausing a flow run".

    Raises:
        ServerUnavailable: there is no server to be had.
    """
    require_server(what)
    async with get_client() as client:
        yield client


async def recorded_everything() -> None:
    """Wait until the server has everything that this process has recorded so far.

    Raises:
        ServerUnavailable: no server answers.
        ServiceError: the server refuses what this process records.
    """
    recorder = get_recorder()
    patience = get_current_settings().api_connect_timeout_seconds + _LATEST_SECONDS
    try:
        async with asyncio.timeout(patience):
            await asyncio.wrap_future(recorder.connected())
            await asyncio.wrap_future(recorder.durable(recorder.last_seq))
    except TimeoutError:
        raise ServerUnavailable(
            f"No server has taken the records of this run within {patience:g} s. "
            "Start one with `headrace server start`."
        ) from None
