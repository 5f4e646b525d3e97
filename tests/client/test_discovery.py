"""A local server, found or started when something needs one."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from headrace.client import get_client
from headrace.client.discovery import ensure_server
from headrace.core.errors import ConfigurationError, ServerUnavailable
from headrace.settings import temporary_settings

ROOT = pathlib.Path(__file__).parent.parent.parent
TIMEOUT = 60.0


@pytest.fixture
def home(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A home whose server, if one was started, ends with the test."""
    folder = tmp_path / "home"
    yield folder
    pid = pid_of(folder)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + TIMEOUT
        while (folder / "server.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)


def pid_of(home: pathlib.Path) -> int | None:
    try:
        return int(json.loads((home / "server.json").read_text())["pid"])
    except FileNotFoundError:
        return None


def test_a_server_is_started_once_and_shared(home: pathlib.Path) -> None:
    program = (
        "from headrace.client import get_client\n"
        "with get_client(sync_client=True) as client:\n"
        "    print(client.address, client.get_server_info().replica_id)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "HEADRACE_HOME": str(home)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    answers = {process.communicate(timeout=TIMEOUT)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(answers) == 1
    with temporary_settings({"home": home}) as settings:
        assert ensure_server(settings) == answers.pop().split()[0]


def test_a_server_that_does_not_start_shows_the_end_of_its_log(home: pathlib.Path) -> None:
    home.mkdir()
    (home / "server.log").write_text("an older server's last words\n")
    (home / "headrace.db").write_text("no database, but a text that is long enough to look at" * 100)
    with temporary_settings({"home": home}) as settings, pytest.raises(ServerUnavailable) as error:
        ensure_server(settings)
    assert "exit code" in str(error.value)
    assert "The end of" in str(error.value)
    assert "older" not in str(error.value)


def test_no_server_is_started_for_who_does_not_want_one(home: pathlib.Path) -> None:
    with (
        temporary_settings({"home": home}),
        pytest.raises(ServerUnavailable, match="headrace server start"),
        get_client(sync_client=True, start_server=False),
    ):
        pass
    assert not home.exists()


def test_a_note_of_a_process_that_is_no_server_is_not_believed(home: pathlib.Path) -> None:
    home.mkdir()
    (home / "server.json").write_text(json.dumps({"pid": os.getpid(), "address": "127.0.0.1:1"}))
    with (
        temporary_settings({"home": home}),
        pytest.raises(ServerUnavailable, match="No server runs"),
        get_client(sync_client=True, start_server=False),
    ):
        pass
    (home / "server.json").unlink()


def test_a_home_that_cannot_be_written_is_a_clear_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        temporary_settings({"home": tmp_path / "file" / "home"}) as settings,
        pytest.raises(ConfigurationError, match="HEADRACE_HOME"),
    ):
        ensure_server(settings)
