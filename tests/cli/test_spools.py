"""What is left in spools: listed, and handed to the server."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.support.servers import ServerProcess, run_headrace

SCRIPT = """
import sys, time
from headrace import flow

@flow
def left(seconds: float) -> None:
    print("recording", flush=True)
    time.sleep(seconds)

left(float(sys.argv[1]))
"""


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "left.py").write_text(SCRIPT)
    return tmp_path / "home"


def _environment(home: pathlib.Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    return {**kept, "HEADRACE_HOME": str(home)}


def _record(home: pathlib.Path, seconds: float = 0) -> subprocess.Popen[str]:
    """A program that records without a server in reach; returns when it has begun."""
    process = subprocess.Popen(
        [sys.executable, str(home.parent / "left.py"), str(seconds)],
        env=_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "recording\n"
    return process


def _states(home: pathlib.Path) -> list[str]:
    done = run_headrace("spool", "ls", "-o", "json", environment=_environment(home))
    assert done.returncode == 0, done.stderr
    spools = json.loads(done.stdout)
    assert all(spool["entries"] > 0 and spool["size_bytes"] > 0 for spool in spools)
    return sorted(spool["state"] for spool in spools)


def test_spools_of_the_living_the_ended_and_the_dead(home: pathlib.Path) -> None:
    assert _states(home) == []
    _record(home).communicate()
    with _record(home, 60) as dead:
        dead.kill()
    with _record(home, 60) as living:
        assert _states(home) == ["ended", "left", "recording"]
        living.kill()


def test_flush_hands_them_to_the_server_they_are_for(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    _record(home).communicate()
    with ServerProcess(tmp_path / "elsewhere") as server:
        _readdress(home, server.address)
        done = run_headrace("spool", "flush", "-o", "json", environment=_environment(home))
        assert done.returncode == 0, done.stderr
        outcomes = json.loads(done.stdout)
        assert [(outcome["address"], outcome["error"]) for outcome in outcomes] == [(server.address, "")]
        assert _states(home) == []
        found = run_headrace("flow-run", "ls", "-o", "json", environment=server.environment)
        assert [run["state"]["type"] for run in json.loads(found.stdout)] == ["COMPLETED"]


def _readdress(home: pathlib.Path, address: str) -> pathlib.Path:
    """Make the only spool one that was written for another server."""
    folder = next((home / "spool").iterdir())
    meta = folder / "meta.json"
    meta.write_text(meta.read_text().replace('"auto"', f'"{address}"'))
    return folder


def test_what_cannot_be_delivered_stays(home: pathlib.Path) -> None:
    environment = _environment(home)
    _record(home).communicate()
    folder = _readdress(home, "127.0.0.1:1")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    done = run_headrace("spool", "flush", "-o", "json", environment=environment)
    assert done.returncode == 1
    assert "does not answer" in json.loads(done.stdout)[0]["error"]
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
