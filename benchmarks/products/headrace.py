"""headrace as the user gets it: its CLI starts the server, its SDK runs the work."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import grpc

from benchmarks.processes import free_port, running, wait_until_healthy
from benchmarks.products.product import NEWEST_LINES, OWN_PYTHON, Amounts, Database, Product, Server
from headrace.v1 import (
    log_pb2,
    log_service_pb2,
    log_service_pb2_grpc,
    run_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
    state_pb2,
)

__all__ = ["Headrace", "HeadraceServer", "healthy"]

_START_SECONDS = 30.0
_CALL_SECONDS = 30.0


class HeadraceServer(Server):
    """Asks over a channel of its own, so that what it sees is what any client sees."""

    def __init__(
        self, pid: int, environment: dict[str, str], folder: pathlib.Path, channel: grpc.Channel
    ) -> None:
        self.pid, self.environment, self.folder = pid, environment, folder
        self.address = environment["HEADRACE_API_URL"]
        self._runs = run_service_pb2_grpc.RunServiceStub(channel)
        self._logs = log_service_pb2_grpc.LogServiceStub(channel)

    def completed_tasks(self, flow_run_id: str) -> int:
        return self._completed(run_pb2.RunFilter(kinds=[run_pb2.RUN_KIND_TASK], root_run_ids=[flow_run_id]))

    def completed_flows(self, flow_name: str) -> int:
        return self._completed(run_pb2.RunFilter(kinds=[run_pb2.RUN_KIND_FLOW], flow_names=[flow_name]))

    def newest_log_lines(self, flow_run_id: str) -> list[str]:
        request = log_service_pb2.ListLogsRequest(
            filter=log_pb2.LogFilter(run_ids=[flow_run_id]),
            order=log_service_pb2.LOG_ORDER_NEWEST_FIRST,
            page_size=NEWEST_LINES,
        )
        return [line.message for line in self._logs.ListLogs(request, timeout=_CALL_SECONDS).logs]

    def count_log_lines(self, flow_run_id: str) -> int:
        request = log_service_pb2.ListLogsRequest(
            filter=log_pb2.LogFilter(run_ids=[flow_run_id]), page_size=1000
        )
        count = 0
        while True:
            page = self._logs.ListLogs(request, timeout=_CALL_SECONDS)
            count += len(page.logs)
            if not page.next_page_token:
                return count
            request.page_token = page.next_page_token

    def _completed(self, filter: run_pb2.RunFilter) -> int:
        filter.state_types.append(state_pb2.STATE_TYPE_COMPLETED)
        answer = self._runs.CountRuns(run_service_pb2.CountRunsRequest(filter=filter), timeout=_CALL_SECONDS)
        return sum(each.count for each in answer.counts)


class Headrace(Product):
    """The code of this checkout."""

    name = "headrace"
    package = "headrace"
    python = OWN_PYTHON
    amounts = Amounts(tasks=1000, flows=400, log_lines=10_000, visible_within_seconds=30)
    query_command = ("flow-run", "ls")

    def environment(self, home: pathlib.Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        return {**inherited, "HOME": str(home), "HEADRACE_HOME": str(home / "headrace")}

    @contextmanager
    def server(self, home: pathlib.Path, database: Database) -> Generator[HeadraceServer]:
        address = f"127.0.0.1:{free_port()}"
        environment = {**self.environment(home), "HEADRACE_API_URL": address}
        command = server_command(self.command, address, database)
        with running(command, environment, home / "server.log") as process:
            home_folder = pathlib.Path(environment["HEADRACE_HOME"])
            wait_until_healthy(process, lambda: healthy(home_folder), home / "server.log", _START_SECONDS)
            with grpc.insecure_channel(address) as channel:
                yield HeadraceServer(process.pid, environment, home, channel)


def server_command(cli: str, address: str, database: Database) -> Sequence[str]:
    """The command line of a server at `address` over `database`."""
    host, _, port = address.partition(":")
    command = [cli, "server", "start", "--host", host, "--port", port]
    return [*command, "--database-url", database.url] if database.url else command


def healthy(headrace_home: pathlib.Path) -> str | None:
    """The address that a healthy server of this home has published, if there is one."""
    try:
        return str(json.loads((headrace_home / "server.json").read_text())["address"])
    except (FileNotFoundError, json.JSONDecodeError):
        return None
