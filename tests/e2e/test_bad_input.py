"""Bad input: every kind, each with a clear error that says what to do, no traceback, and nothing lost.

One table, `ROWS`. Each row is done by real processes: the command line, clients over a socket, servers on
SQLite and PostgreSQL. After each row the server that was asked still answers and still has what it had.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.client import get_client
from headrace.client.api import HeadraceClient
from headrace.client.errors import from_status
from headrace.core.errors import ServiceError
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.log_pb2 import LogEntry
from headrace.v1.payload_pb2 import Payload
from headrace.v1.record_service_pb2 import RecordBatchRequest, RecordEntries, RecordEntry, RecorderOpen
from headrace.v1.run_pb2 import Run, RunFilter, RunKind
from headrace.v1.run_service_pb2 import CreateRunRequest, ListRunsRequest
from tests.support.postgres import Cluster
from tests.support.proxy import Proxy
from tests.support.servers import ServerProcess, run_headrace

SHOP = """
from headrace import flow

@flow
def sell(count: int, to: str = "you") -> int:
    return count
"""


@dataclass(frozen=True)
class Told:
    """What came of it.

    Attributes:
        code: an exit code, or the reason of a `ServiceError`.
        text: everything that was said.
    """

    code: int | str
    text: str


class World:
    """A folder with flows, and one server that has recorded one run; more when a row needs them."""

    def __init__(self, folder: pathlib.Path, server: ServerProcess, cluster: Cluster) -> None:
        self.folder = folder
        self.server = server
        self.cluster = cluster

    def cli(
        self, *words: str, server: ServerProcess | None = None, settings: Mapping[str, str] | None = None
    ) -> Told:
        """Run a command as a process."""
        environment = {**(server or self.server).environment, **(settings or {})}
        done = run_headrace(*words, environment=environment, cwd=self.folder)
        return Told(done.returncode, done.stdout + done.stderr)

    def call(self, what: Callable[[HeadraceClient], Awaitable[object]]) -> Told:
        """Call the server as a client does."""

        async def ask() -> Told:
            with temporary_settings({"api_url": self.server.address}):
                async with get_client() as client:
                    try:
                        return Told("OK", str(await what(client)))
                    except ServiceError as error:
                        said = [str(error), *(f"{v.field}: {v.description}" for v in error.violations)]
                        return Told(error.reason, "\n".join(said))

        return asyncio.run(ask())

    def record(self, *entries: RecordEntry) -> Told:
        """Record entries as an executor does, in one batch."""
        request = RecordBatchRequest(open=_opening(), entries=RecordEntries(first_seq=1, entries=entries))
        request.recorder_id = request.open.recorder_id

        async def send(client: HeadraceClient) -> object:
            answer = await client.record_batch(request)
            # One bad entry is left out and said so; the others are taken.
            assert answer.ack.durable_seq == len(entries)
            for result in answer.ack.results:
                raise from_status(result.error)
            return answer

        return self.call(send)


def _opening(protocol: int = 1) -> RecorderOpen:
    return RecorderOpen(protocol_min=protocol, protocol_max=protocol, recorder_id=new_id())


def _flow_run(**fields: Any) -> Run:
    run = Run(id=new_id(), kind=RunKind.RUN_KIND_FLOW, name="bad", flow_name="sell", **fields)
    run.root_run_id = run.id
    return run


async def _token_of_another_filter(client: HeadraceClient) -> object:
    for name in ("one", "two"):
        await client.create_run(
            CreateRunRequest(run=Run(id=new_id(), kind=RunKind.RUN_KIND_FLOW, name=name, flow_name="paged"))
        )
    first = await client.list_runs(ListRunsRequest(filter=RunFilter(flow_names=["paged"]), page_size=1))
    assert first.next_page_token
    other = RunFilter(flow_names=["sell"])
    return await client.list_runs(ListRunsRequest(filter=other, page_token=first.next_page_token))


def _large_message(world: World) -> Told:
    run = _flow_run(labels={"x": "y" * 9_000_000})
    return world.call(lambda client: client.create_run(CreateRunRequest(run=run)))


def _large_parameters(world: World) -> Told:
    run = _flow_run(parameters=Payload(encoding="json", inline=b'"' + b"x" * 70_000 + b'"'))
    return world.call(lambda client: client.create_run(CreateRunRequest(run=run)))


def _large_log_line(world: World) -> Told:
    run = _flow_run()
    line = LogEntry(run_id=run.id, root_run_id=run.id, level=20, logger="x", message="m" * 40_000)
    line.time.CopyFrom(Timestamp(seconds=1))
    return world.record(RecordEntry(run=run), RecordEntry(log=line))


def _newer_protocol(world: World) -> Told:
    request = RecordBatchRequest(open=_opening(protocol=99), recorder_id=new_id())
    request.recorder_id = request.open.recorder_id
    return world.call(lambda client: client.record_batch(request))


def _unknown_enum(world: World) -> Told:
    unknown: Any = [77]
    request = ListRunsRequest(filter=RunFilter(state_types=unknown))
    return world.call(lambda client: client.list_runs(request))


def _old_server(world: World) -> Told:
    """A server from before `ListRuns`: it knows no service at all."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        return world.cli("flow-run", "ls", settings={"HEADRACE_API_URL": f"127.0.0.1:{port}"})
    finally:
        server.stop(None).wait()


def _taken_port(world: World) -> Told:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home = world.folder / "second-home"
        return world.cli("server", "start", "--port", str(port), settings={"HEADRACE_HOME": str(home)})


def _database_that_is_away_at_the_start(world: World) -> Told:
    url = "postgresql+asyncpg://somebody:secret@127.0.0.1:1/headrace"
    home = world.folder / "third-home"
    told = world.cli(
        "server", "start", "--port", "0", "--database-url", url, settings={"HEADRACE_HOME": str(home)}
    )
    assert "secret" not in told.text
    return told


def _database_that_goes_away(world: World) -> Told:
    """The way to PostgreSQL is cut while the server serves; when it is back, so is everything."""
    with world.cluster.database() as url:
        parts = urlsplit(url)
        with contextlib.ExitStack() as stack:
            proxy = stack.enter_context(Proxy(f"{parts.hostname}:{parts.port}"))
            through = parts._replace(netloc=parts.netloc.rpartition("@")[0] + "@" + proxy.address).geturl()
            server = stack.enter_context(ServerProcess(world.folder / "on-postgresql", through))
            assert world.cli("run", "shop.py:sell", "-p", "count=1", server=server).code == 0
            before = world.cli("flow-run", "ls", "-q", server=server)
            patience = {"HEADRACE_API_REQUEST_TIMEOUT_SECONDS": "1"}
            proxy.cut()
            told = world.cli("flow-run", "ls", server=server, settings=patience)
            proxy.restore()
            assert world.cli("flow-run", "ls", "-q", server=server) == before
            assert "Traceback" not in server.log
        return told


def _wrong_credentials(world: World) -> Told:
    with ServerProcess(
        world.folder / "closed", settings={"HEADRACE_SERVER_API_AUTH_STRING": "me:right"}
    ) as server:
        told = world.cli("flow-run", "ls", server=server, settings={"HEADRACE_API_AUTH_STRING": "me:wrong"})
        assert world.cli("flow-run", "ls", server=server).code == 4
        right = {"HEADRACE_API_AUTH_STRING": "me:right"}
        assert world.cli("flow-run", "ls", server=server, settings=right).code == 0
    return told


def _small_disk(folder: pathlib.Path, size: str) -> tuple[str, ...]:
    """Words before a command, for which `folder` is then a file system of that size."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("needs unshare and user namespaces, to mount a small file system")
    folder.mkdir()
    mount = f'mount -t tmpfs -o size={size} tmpfs {folder} && exec "$0" "$@"'
    return ("unshare", "-rm", "sh", "-c", mount)


def _full_home(world: World) -> Told:
    """The home of the program itself is full: neither spool nor server has room."""
    home = world.folder / "full-home"
    prefix = _small_disk(home, "256k")
    fill = f"head -c 1M /dev/zero > {home}/filler 2>/dev/null"
    script = f"{fill}; exec {sys.executable} -m headrace run shop.py:sell -p count=1"
    environment = {**world.server.environment, "HEADRACE_HOME": str(home)}
    done = subprocess.run(
        [*prefix, "sh", "-c", script],
        env=environment,
        cwd=world.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return Told(done.returncode, done.stdout + done.stderr)


def _full_disk(world: World) -> Told:
    """The database is on a file system of 2 MiB: what was taken before it was full stays readable."""
    prefix = _small_disk(disk := world.folder / "disk", "2m")
    url = f"sqlite+aiosqlite:///{disk}/headrace.db"
    with ServerProcess(world.folder / "small", url, prefix=prefix) as server:

        async def fill(client: HeadraceClient) -> str:
            created: list[str] = []
            parameters = Payload(encoding="json", inline=b'"' + b"x" * 60_000 + b'"')
            try:
                while len(created) < 1000:
                    run = _flow_run(parameters=parameters)
                    await client.create_run(CreateRunRequest(run=run))
                    created.append(run.id)
            except ServiceError as error:
                for run_id in created:
                    assert (await client.get_run(run_id)).parameters == parameters
                assert created
                assert "Traceback" not in server.log
                raise error from None
            return "the disk was never full"

        return World(world.folder, server, world.cluster).call(fill)


def _broken(file: str, content: str, *words: str) -> Callable[[World], Told]:
    def do(world: World) -> Told:
        home = world.folder / "broken-home"
        work = world.folder / "broken-work"
        home.mkdir(exist_ok=True)
        work.mkdir(exist_ok=True)
        path = (home if file == "profiles.toml" else work) / file
        path.write_text(content)
        try:
            environment = {**world.server.environment, "HEADRACE_HOME": str(home)}
            done = run_headrace(*words, environment=environment, cwd=work)
        finally:
            path.unlink()
        return Told(done.returncode, done.stdout + done.stderr)

    return do


@dataclass(frozen=True)
class Row:
    """One kind of bad input.

    Attributes:
        name: of the test.
        do: brings it about.
        code: the exit code, or the reason of the error.
        says: what the text must hold: what is wrong, and what to do.
    """

    name: str
    do: Callable[[World], Told]
    code: int | str
    says: tuple[str, ...]


def _cli(*words: str, **settings: str) -> Callable[[World], Told]:
    return lambda world: world.cli(*words, settings=settings)


ROWS = [
    Row(
        "flow that was never run",
        _cli("flow", "inspect", "sel"),
        3,
        ("no flow 'sel'", "Did you mean 'sell'?"),
    ),
    Row(
        "flow that is not in the file",
        _cli("run", "shop.py:sel"),
        3,
        ("no flow 'sel'", "Did you mean 'sell'?"),
    ),
    Row("file that is not there", _cli("run", "shp.py:sell"), 3, ("not there", "Did you mean 'shop.py'?")),
    Row(
        "parameter of the wrong type",
        _cli("run", "shop.py:sell", "-p", "count=many", "-p", "to=3"),
        2,
        ("count: Input should be a valid integer", "to: Input should be a valid string"),
    ),
    Row(
        "parameter that does not exist",
        _cli("run", "shop.py:sell", "-p", "count=1", "-p", "too=me"),
        2,
        ("too: there is no such parameter", "Did you mean 'to'?"),
    ),
    Row(
        "page token from another filter",
        lambda world: world.call(_token_of_another_filter),
        "PAGE_TOKEN_INVALID",
        ("Start from the first page",),
    ),
    Row("message over the transport's limit", _large_message, "MESSAGE_TOO_LARGE", ("larger",)),
    Row("value over its limit", _large_parameters, "PAYLOAD_TOO_LARGE", ("65536",)),
    Row("log line over its limit", _large_log_line, "FIELD_INVALID", ("message", "32768")),
    Row(
        "malformed id",
        lambda world: world.call(lambda client: client.get_run("not-an-id")),
        "FIELD_INVALID",
        ("run_id", "UUID"),
    ),
    Row("malformed id, typed", _cli("flow-run", "inspect", "not-an-id"), 3, ("no flow run 'not-an-id'",)),
    Row("unknown enum", _unknown_enum, "FIELD_INVALID", ("state_types",)),
    Row(
        "unknown enum, typed", _cli("flow-run", "ls", "--state-type", "FALED"), 2, ("Did you mean 'FAILED'?",)
    ),
    Row(
        "database away at the start",
        _database_that_is_away_at_the_start,
        1,
        ("No PostgreSQL answers", "Start it"),
    ),
    Row("database away", _database_that_goes_away, 1, ("cannot reach its database", "try again")),
    Row("port taken", _taken_port, 1, ("port", "in use")),
    Row("wrong credentials", _wrong_credentials, 4, ("HEADRACE_API_AUTH_STRING",)),
    Row("full disk at home", _full_home, 1, ("full", "space")),
    Row("full disk", _full_disk, "STORAGE_FULL", ("full", "free some space")),
    Row(
        "broken profiles.toml",
        _broken("profiles.toml", "active = \n", "flow-run", "ls"),
        2,
        ("profiles.toml, line 1",),
    ),
    Row(
        "broken headrace.toml",
        _broken("headrace.toml", "api_ulr = 'x'\n", "flow-run", "ls"),
        2,
        ("headrace.toml", "Did you mean api_url?"),
    ),
    Row(
        "server does not start with a broken file",
        _broken("headrace.toml", "server_api_port = 'x'\n", "server", "start"),
        2,
        ("server_api_port", "a whole number"),
    ),
    Row(
        "server that is not there",
        _cli("flow-run", "ls", HEADRACE_API_URL="127.0.0.1:1"),
        1,
        ("does not answer",),
    ),
    Row(
        "address that is none",
        _cli("flow-run", "ls", HEADRACE_API_URL="nonsense"),
        2,
        ("give auto, off, or",),
    ),
    Row("old server, new client", _old_server, 1, ("older than this client",)),
    Row(
        "client of a protocol that the server does not speak",
        _newer_protocol,
        "PROTOCOL_VERSION_UNSUPPORTED",
        ("Upgrade",),
    ),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres_cluster: Cluster) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("bad-input")
    (folder / "shop.py").write_text(SHOP)
    with ServerProcess(folder / "server") as server:
        world = World(folder, server, postgres_cluster)
        assert world.cli("run", "shop.py:sell", "-p", "count=1", "--name", "kept").code == 0
        yield world


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_input(row: Row, world: World) -> None:
    told = row.do(world)
    assert told.code == row.code, told.text
    for said in row.says:
        assert said in told.text
    assert "Traceback" not in told.text
    assert not re.search(r"\bsite-packages\b|\bgrpc_status\b", told.text)
    assert "Traceback" not in world.server.log
    kept = world.cli("flow-run", "inspect", "kept", "-o", "json")
    assert kept.code == 0
    assert '"COMPLETED"' in kept.text
