"""A server inside the test's process, for what needs its loops at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace_services.settings import ServerSettings
from tests.rpc.servers import Client, serving, settings_for


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> ServerSettings:
    """Settings of a server on a fresh database, once on each dialect."""
    return settings_for(tmp_path / "home", database_url)


@pytest.fixture
async def client(settings: ServerSettings, one_event_loop: None) -> AsyncIterator[Client]:
    """A server on a fresh database, once on each dialect, and what one can ask it."""
    async with serving(settings) as running:
        yield running
