"""The choice of gRPC's way to poll: made before its import, for this process, and only where it exists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.core import direct_polling as module
from headrace.core.direct_polling import direct_polling

VARIABLE = "GRPC_EXPERIMENTS"
CHOSEN = "-event_engine_client,-event_engine_listener"


@pytest.fixture(autouse=True)
def _without_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if gRPC had not been imported yet, in a version that has the choice."""
    for name in [name for name in sys.modules if name == "grpc"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(module, "version", lambda _: "1.85.1")


def _seen() -> str | None:
    with direct_polling():
        return os.environ.get(VARIABLE)


def test_it_is_chosen_for_the_import_and_not_left_to_child_processes() -> None:
    assert _seen() == CHOSEN
    assert VARIABLE not in os.environ


def test_it_is_taken_back_when_the_import_fails() -> None:
    with pytest.raises(ImportError), direct_polling():
        raise ImportError
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("given", ["", "something_else"])
def test_the_users_own_choice_stands(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, given)
    assert _seen() == given
    assert os.environ[VARIABLE] == given


def test_a_program_that_uses_grpc_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", sys)
    assert _seen() is None


@pytest.mark.parametrize(
    ("version", "is_chosen"),
    [
        *(("1.76.0", False), ("1.79.9", False), ("1.80.0", True), ("1.85.1", True), ("1.86.0", False)),
        *(("1.84.0rc1", True), ("2.0", False), ("unknown", False)),
    ],
)
def test_only_versions_that_know_the_choice_are_told(
    version: str, is_chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "version", lambda _: version)
    assert (_seen() == CHOSEN) is is_chosen


_WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print("grpc is imported with", os.environ.get("GRPC_EXPERIMENTS"))
sys.meta_path.insert(0, Watch())
"""
_SERVER = """
import socket
from headrace_services.cli import main
with socket.create_server(("127.0.0.1", 0)) as taken:
    assert main(["server", "start", "--port", str(taken.getsockname()[1])]) == 1
"""
_RECORDER = """
from headrace import flow
@flow
def nothing(): ...
try:
    nothing()
except Exception: ...  # nobody answers
"""


@pytest.mark.parametrize("program", [_SERVER, _RECORDER], ids=["server", "recorder"])
def test_it_is_chosen_by_the_server_and_by_the_recorder(program: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HEADRACE_HOME": str(tmp_path),
        "HEADRACE_API_URL": "127.0.0.1:1",
        "HEADRACE_API_CONNECT_TIMEOUT_SECONDS": "0.2",
    }
    command = [sys.executable, "-c", _WATCH + program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert f"grpc is imported with {CHOSEN}" in done.stdout, done.stderr
