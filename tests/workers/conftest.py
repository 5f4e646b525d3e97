"""A server for the runs of this folder's tests, and runs on it."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest

from headrace.client import get_client
from headrace.client.api import HeadraceClient
from headrace.settings import process_settings
from tests.support.engine import ContainerEngine, require_podman
from tests.support.registry import ImageRegistry
from tests.support.servers import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture(scope="module")
def settings(server: ServerProcess) -> Iterator[None]:
    """The settings of a client of the server, for the whole process."""
    from headrace.recorder.process import release_home

    home: pathlib.Path = server.home
    with process_settings({"home": str(home), "api_url": server.address}):
        yield
        release_home(home, 2.0)


@pytest.fixture(scope="module")
async def client(settings: None, one_event_loop: None) -> AsyncIterator[HeadraceClient]:
    async with get_client() as opened:
        yield opened


@pytest.fixture(scope="session")
def registry() -> Iterator[ImageRegistry]:
    require_podman()
    with ImageRegistry() as serving:
        yield serving


@pytest.fixture(scope="session")
def engine(registry: ImageRegistry) -> Iterator[ContainerEngine]:
    with ContainerEngine(registry.address) as started:
        yield started
