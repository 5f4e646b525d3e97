"""Prefect on the same work: its own interpreter, its own server, its own home folder."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from benchmarks.processes import BenchmarkError, free_port, running, wait_until_healthy
from benchmarks.products.product import NEWEST_LINES, Amounts, Database, Product, Server

__all__ = ["Prefect", "install"]

_VERSION = "3.9.1"
_PINS = f"prefect=={_VERSION}\n"
_CONSTRAINTS = "fastapi<0.150\n"
_OVERRIDES = "certifi\n"
_FOLDER = pathlib.Path(__file__).parents[2] / ".tools" / "prefect"
_START_SECONDS = 90.0
_CALL_SECONDS = 60.0
_PAGE = 200


def install() -> pathlib.Path:
    """The interpreter of an environment that holds Prefect, made on first use.

    Its server does not start with fastapi 0.150, and certifi's floor is newer than what some package
    mirrors hold; certificates play no part here.

    Raises:
        BenchmarkError: there is no `uv`, or it could not install.
    """
    python = _FOLDER / "bin" / "python"
    if (_FOLDER / f"installed-{_VERSION}").exists():
        return python
    uv = shutil.which("uv") or shutil.which("uv", path=str(pathlib.Path(sys.executable).parent))
    if uv is None:
        raise BenchmarkError("the peer is installed with uv, which is not on PATH (pip install uv)")
    _FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in (("pins", _PINS), ("constraints", _CONSTRAINTS), ("overrides", _OVERRIDES)):
        (_FOLDER / f"{name}.txt").write_text(text)
    _run([uv, "venv", "--allow-existing", "--python", sys.executable, str(_FOLDER)])
    options = ["--constraint", "constraints.txt", "--override", "overrides.txt", "-r", "pins.txt"]
    _run([uv, "pip", "install", "--python", str(python), *options])
    (_FOLDER / f"installed-{_VERSION}").touch()
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{done.stderr}")


class PrefectServer(Server):
    """Asks the HTTP interface."""

    def __init__(self, pid: int, environment: dict[str, str], folder: pathlib.Path) -> None:
        self.pid, self.environment, self.folder = pid, environment, folder
        self.address = environment["PREFECT_API_URL"]

    def completed_tasks(self, flow_run_id: str) -> int:
        flow_runs = {"id": {"any_": [flow_run_id]}}
        return int(self._post("task_runs/count", flow_runs=flow_runs, task_runs=_COMPLETED))

    def completed_flows(self, flow_name: str) -> int:
        flows = {"name": {"any_": [flow_name]}}
        return int(self._post("flow_runs/count", flows=flows, flow_runs=_COMPLETED))

    def newest_log_lines(self, flow_run_id: str) -> list[str]:
        lines = self._log_page(flow_run_id, sort="TIMESTAMP_DESC", limit=NEWEST_LINES)
        return [line["message"] for line in lines]

    def count_log_lines(self, flow_run_id: str) -> int:
        count = 0
        while page := self._log_page(flow_run_id, sort="TIMESTAMP_ASC", limit=_PAGE, offset=count):
            count += len(page)
        return count

    def _log_page(self, flow_run_id: str, **how: object) -> list[dict[str, Any]]:
        logs = {"flow_run_id": {"any_": [flow_run_id]}}
        lines: list[dict[str, Any]] = self._post("logs/filter", logs=logs, **how)
        return lines

    def _post(self, path: str, **body: object) -> Any:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.address}/{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=_CALL_SECONDS) as answer:
            return json.load(answer)


_COMPLETED = {"state": {"type": {"any_": ["COMPLETED"]}}}


class Prefect(Product):
    """The peer. Less work per repeat, because a unit of it takes so much longer."""

    name = f"Prefect {_VERSION}"
    package = "prefect"
    amounts = Amounts(tasks=250, flows=20, log_lines=2000, visible_within_seconds=240)
    query_command = ("flow-run", "ls")

    def __init__(self) -> None:
        self.python = install()

    def environment(self, home: pathlib.Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        quiet = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        return {**inherited, **quiet, "HOME": str(home), "PREFECT_HOME": str(home / "prefect")}

    @contextmanager
    def server(self, home: pathlib.Path, database: Database) -> Generator[PrefectServer]:
        port = free_port()
        environment = self.environment(home)
        if database.url:
            environment["PREFECT_API_DATABASE_CONNECTION_URL"] = database.url
        command = [self.command, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        with running(command, environment, home / "server.log") as process:
            url = f"http://127.0.0.1:{port}/api"
            wait_until_healthy(process, lambda: _healthy(url), home / "server.log", _START_SECONDS)
            yield PrefectServer(process.pid, {**environment, "PREFECT_API_URL": url}, home)


def _healthy(url: str) -> bool | None:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None
