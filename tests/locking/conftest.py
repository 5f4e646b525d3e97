"""A server for the tests of locks that are kept in one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.settings import process_settings
from tests.support.servers import ServerProcess


@pytest.fixture(scope="module")
def lock_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that this process and its threads use."""
    with (
        ServerProcess(tmp_path_factory.mktemp("server")) as server,
        process_settings({"home": str(server.home), "api_url": server.address}),
    ):
        yield server
