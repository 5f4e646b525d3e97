"""What tests of flows need from outside the flow: a server, and the runs that it has recorded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.client import get_client
from headrace.client.api import HeadraceClient
from headrace.logging import disable_run_logger
from headrace.recorder.process import release_home
from headrace.settings import process_settings
from headrace.testing.assertions import assert_does_not_warn
from headrace.testing.local_server import LocalServer
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run, RunFilter
from headrace.v1.run_service_pb2 import RUN_ORDER_CREATE_TIME_DESC

__all__ = [
    "Harness",
    "assert_does_not_warn",
    "disable_run_logger",
    "get_most_recent_flow_run",
    "headrace_test_harness",
]

_START_SECONDS: Final = 30.0
_OWN_SETTINGS: Final = ("api_auth_string", "api_offline")


@dataclass(frozen=True, slots=True)
class Harness:
    """What a test harness has set up.

    Attributes:
        home: the temporary home folder; it is removed at the end.
        address: `host:port` of the server.
    """

    home: Path
    address: str


@contextmanager
def headrace_test_harness(server_startup_timeout: float | None = _START_SECONDS) -> Generator[Harness]:
    """Runs are recorded by a server of their own, in a temporary home, while inside.

    It holds for the whole process, and for the processes that it starts: `HEADRACE_HOME` and
    `HEADRACE_API_URL` are set. Other settings stay. Harnesses may be nested; those of several threads must
    not overlap. At the end what was recorded is with the server, the server has ended, and the home is
    gone; so is it when this process is killed.

    Args:
        server_startup_timeout: how long the server may take to start, in seconds; None: 30.

    Raises:
        ServerUnavailable: the server did not start; the message has the end of its log.
    """
    seconds = _START_SECONDS if server_startup_timeout is None else server_startup_timeout
    with tempfile.TemporaryDirectory(prefix="headrace-test-", ignore_cleanup_errors=True) as folder:
        home = Path(folder).resolve()
        with LocalServer(home, seconds) as address:
            variables = {"HEADRACE_HOME": str(home), "HEADRACE_API_URL": address}
            with (
                _environment(variables, without=[f"HEADRACE_{name.upper()}" for name in _OWN_SETTINGS]),
                process_settings({"home": home, "api_url": address}, restore_defaults=_OWN_SETTINGS),
            ):
                try:
                    yield Harness(home, address)
                finally:
                    release_home(home)


@contextmanager
def _environment(variables: Mapping[str, str], without: list[str]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in [*variables, *without]}
    os.environ.update(variables)
    for name in without:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


async def get_most_recent_flow_run(client: HeadraceClient | None = None, flow_name: str | None = None) -> Run:
    """The flow run that was created last.

    Args:
        client: an open client; None: one of the settings in force.
        flow_name: look at the runs of this flow only.

    Raises:
        LookupError: there is none.
    """
    if client is None:
        async with get_client() as own:
            return await get_most_recent_flow_run(own, flow_name)
    names = [flow_name] if flow_name else []
    filter = RunFilter(kinds=[RUN_KIND_FLOW], flow_names=names)
    async for run in client.iter_runs(filter, order=RUN_ORDER_CREATE_TIME_DESC, page_size=1):
        return run
    raise LookupError(f"There is no flow run{f' of {flow_name}' if flow_name else ''} yet.")
