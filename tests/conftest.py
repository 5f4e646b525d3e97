"""Fixtures that every area of the tests may use."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import pathlib
import re
import shutil
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import hypothesis
import pytest

from tests.support import databases
from tests.support.clusters import CLUSTERS, group_of
from tests.support.postgres import Cluster, provide_cluster
from tests.support.servers import ServerProcess

DIALECTS = ["sqlite", "postgresql"]
# What a change broke is told apart from what was never looked at: everybody runs the same examples, and
# HYPOTHESIS_PROFILE=explore looks at new ones.
hypothesis.settings.register_profile("same", derandomize=True, database=None)
hypothesis.settings.register_profile("explore", derandomize=False, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b|\bid='\d{9,}'")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names of tests that differ from process to process: they cannot be run in parallel."""
    for item in items:
        if _ADDRESS.search(item.nodeid):
            raise pytest.UsageError(f"{item.nodeid} has an address in its name: give its parameters `ids`")
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "one_event_loop")
    # The longest way first, and what shares a cluster one after the other.
    items.sort(key=lambda item: (group_of(item) is None, group_of(item) or ""))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """End a cluster after the last test that shares it: its processes are busy even when nobody asks."""
    yield
    group = group_of(item)
    if group is not None and (nextitem is None or group_of(nextitem) != group):
        CLUSTERS.stop(group)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write out what tests with odd text have logged: a parallel run cannot send it otherwise."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """grpc.aio runs on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
async def one_event_loop(anyio_backend: str) -> AsyncIterator[None]:
    """Keeps one loop for all coroutines among tests: gRPC's poller belongs to the process, and a server or
    a channel that is collected later wants its loop once more."""
    yield
    gc.collect()
    await asyncio.sleep(0)


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the settings, the server or the home folder of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
            patch.delenv(name)
        patch.setenv("HEADRACE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def headrace_home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A home folder for this test alone, already in the environment."""
    home = tmp_path / "headrace"
    home.mkdir()
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """A PostgreSQL server; started by the first test that asks for it, stopped with the session."""
    with provide_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def _postgres_template(postgres_cluster: Cluster) -> Iterator[str]:
    with postgres_cluster.template(databases.migrate) as name:
        yield name


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("template") / "headrace.db"
    databases.migrate(databases.sqlite_url(path))
    return path


@pytest.fixture
def postgresql_url(postgres_cluster: Cluster, _postgres_template: str) -> Iterator[str]:
    """URL of a fresh PostgreSQL database with the newest schema."""
    with postgres_cluster.database(_postgres_template) as url:
        yield url


@pytest.fixture
def sqlite_url(_sqlite_template: pathlib.Path, tmp_path: pathlib.Path) -> str:
    """URL of a fresh SQLite database with the newest schema."""
    path = tmp_path / "headrace.db"
    shutil.copyfile(_sqlite_template, path)
    return databases.sqlite_url(path)


@pytest.fixture
def empty_postgresql_url(postgres_cluster: Cluster) -> Iterator[str]:
    """URL of a fresh PostgreSQL database without any table."""
    with postgres_cluster.database() as url:
        yield url


@pytest.fixture
def empty_sqlite_url(tmp_path: pathlib.Path) -> str:
    """URL of a SQLite database that does not exist yet."""
    return databases.sqlite_url(tmp_path / "empty.db")


@pytest.fixture(params=DIALECTS)
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a fresh database with the newest schema, once on each dialect."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=DIALECTS)
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """URL of a fresh database without any table, once on each dialect."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[ServerProcess]:
    """A real server in its own process, on embedded SQLite in a home folder of its own."""
    with ServerProcess(tmp_path / "server") as running:
        yield running


@pytest.fixture
def server_on(tmp_path: pathlib.Path, database_url: str) -> Iterator[ServerProcess]:
    """A real server in its own process, once on each kind of database."""
    with ServerProcess(tmp_path / "server", database_url) as running:
        yield running


@pytest.fixture
def dask() -> Any:
    """A Dask cluster of two workers; tests that ask for it belong to the xdist group of that name."""
    return CLUSTERS.get("dask")


@pytest.fixture
def ray() -> Any:
    """Ray, initialised with two processors; tests that ask for it belong to the xdist group of that name."""
    return CLUSTERS.get("ray")
