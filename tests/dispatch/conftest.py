"""A server inside the test's process, with a work pool, on each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace_services.settings import ServerSettings
from tests.dispatch.stand import Stand
from tests.rpc.servers import serving, settings_for


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> ServerSettings:
    """Settings of a server on a fresh database, once on each dialect."""
    return settings_for(
        tmp_path / "home",
        database_url,
        server_worker_heartbeat_seconds=0.5,
        server_worker_reply_seconds=1.0,
        server_recorder_lease_seconds=2.0,
        server_recorder_renew_seconds=0.5,
    )


@pytest.fixture
async def stand(settings: ServerSettings, one_event_loop: None) -> AsyncIterator[Stand]:
    """A server on a fresh database with the pool `default`."""
    async with serving(settings) as client:
        stand = Stand(client)
        await stand.make_pool()
        yield stand
