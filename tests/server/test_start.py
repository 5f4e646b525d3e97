"""Starting, asking and stopping the server from the command line: real processes, real failures."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace_services.cli import main
from headrace_services.home import ServerNote, is_alive


def environment(home: Path, **variables: str) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**bare, "HEADRACE_HOME": str(home), "HEADRACE_SERVER_API_PORT": "0", **variables}


def run(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "headrace_services", *words],
        env=environment(home, **variables),
        cwd=home.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def started(home: Path, *words: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A server in the foreground, ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace_services", "server", "start", *words],
        env=environment(home, **variables),
        cwd=home.parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "headrace serves" in line, line + process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_from_start_to_stop(home: Path) -> None:
    with started(home) as process:
        note = ServerNote.read(home)
        assert note is not None
        assert (note.pid, note.database, note.idle_timeout_seconds) == (process.pid, "sqlite", None)
        status = run(home, "server", "status", "-o", "json")
        assert status.returncode == 0
        facts = json.loads(status.stdout)
        assert (facts["health"], facts["address"]) == ("serving", note.address)
        stop = run(home, "server", "stop")
        assert stop.returncode == 0, stop.stderr
        assert process.wait(60) == 0
    assert ServerNote.read(home) is None
    assert not is_alive(home)
    assert run(home, "server", "status").returncode == 1
    assert run(home, "server", "stop").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(home: Path, number: signal.Signals) -> None:
    with started(home) as process:
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert ServerNote.read(home) is None


def test_in_the_background(home: Path) -> None:
    begun = run(home, "server", "start", "--background")
    assert begun.returncode == 0, begun.stderr
    try:
        note = ServerNote.read(home)
        assert note is not None
        assert f"listens on {note.address}" in begun.stderr
        assert run(home, "server", "status", "--wait", "-t", "60").returncode == 0
        again = run(home, "server", "start", "--background")
        assert again.returncode == 1
        assert f"pid {note.pid}, at {note.address}" in again.stderr
    finally:
        assert run(home, "server", "stop").returncode == 0
    assert not is_alive(home)


def test_a_background_server_that_cannot_start_shows_its_log(home: Path) -> None:
    home.mkdir()
    (home / "headrace.db").write_bytes(b"this is no database" * 100)
    begun = run(home, "server", "start", "--background")
    assert begun.returncode == 1
    assert "is not a SQLite database" in begun.stderr


def test_one_server_per_home(home: Path) -> None:
    with started(home) as process:
        second = run(home, "server", "start")
        assert second.returncode == 1
        assert second.stderr.count("\n") == 1
        assert f"pid {process.pid}" in second.stderr
        assert "headrace server stop" in second.stderr


def test_an_on_demand_server_leaves_when_nobody_needs_it(home: Path) -> None:
    with started(home, "--on-demand", HEADRACE_SERVER_IDLE_TIMEOUT_SECONDS="1") as process:
        assert process.wait(60) == 0
    assert ServerNote.read(home) is None


@pytest.fixture
def command(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """One command to its end in this process, for those that start nothing."""

    def call(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        for name, value in {"HEADRACE_HOME": str(home), **variables}.items():
            monkeypatch.setenv(name, value)
        code = main(list(words))
        output = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, output.out, output.err)

    return call


Command = Callable[..., subprocess.CompletedProcess[str]]


def one_line(failed: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    """The command failed with one readable line that has these words."""
    assert failed.returncode == code, failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stderr.strip().count("\n") == 0, failed.stderr
    for word in words:
        assert word in failed.stderr


def test_a_port_that_is_taken(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = run(home, "server", "start", "--port", str(port))
    one_line(failed, f"127.0.0.1:{port}", "--port")


def test_another_address_than_loopback_needs_credentials(home: Path, command: Command) -> None:
    failed = command("server", "start", "--host", "0.0.0.0")
    one_line(failed, "HEADRACE_SERVER_API_AUTH_STRING", "127.0.0.1", code=2)
    with started(home, "--host", "0.0.0.0", HEADRACE_SERVER_API_AUTH_STRING="user:secret"):
        note = ServerNote.read(home)
        assert note is not None
        assert note.address.startswith("0.0.0.0:")


def test_a_home_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one_line(run(tmp_path, "server", "start", "--home", str(tmp_path / "file" / "home")), "HEADRACE_HOME")


def test_a_damaged_database(home: Path) -> None:
    home.mkdir()
    (home / "headrace.db").write_bytes(b"this is no database" * 100)
    one_line(run(home, "server", "start"), "headrace.db", "is not a SQLite database", "backup")


def test_a_database_from_a_newer_version(home: Path, command: Command) -> None:
    assert command("db", "upgrade").returncode == 0
    with sqlite3.connect(home / "headrace.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    one_line(run(home, "server", "start"), "9999", "Upgrade headrace")
    one_line(command("db", "upgrade"), "9999", "Upgrade headrace")
    one_line(command("db", "check"), "9999", "Upgrade headrace")


def test_the_schema_is_upgraded_and_checked_by_hand(command: Command) -> None:
    one_line(command("db", "check"), "has no schema yet", "headrace db upgrade")
    assert "Upgraded" in command("db", "upgrade").stderr
    assert "up to date" in command("db", "upgrade").stderr
    assert command("db", "check").returncode == 0


def test_a_server_that_may_not_upgrade_says_how(home: Path) -> None:
    failed = run(home, "server", "start", HEADRACE_SERVER_DATABASE_MIGRATE_ON_START="false")
    one_line(failed, "headrace db upgrade")


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite+aiosqlite:///"])
def test_a_database_url_that_is_none(command: Command, url: str) -> None:
    for words in (("server", "start"), ("db", "upgrade"), ("db", "check")):
        one_line(command(*words, "--database-url", url), "sqlite+aiosqlite:///", code=2)


def test_a_database_that_is_away(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"postgresql+asyncpg://user:hunter2@127.0.0.1:{port}/headrace"
    failed = run(home, "server", "start", "--database-url", url)
    one_line(failed, f"127.0.0.1:{port}", "No PostgreSQL answers")
    assert "hunter2" not in failed.stderr


def test_a_postgresql_database_that_does_not_exist(home: Path, postgresql_url: str) -> None:
    url = postgresql_url.rpartition("/")[0] + "/nowhere"
    one_line(run(home, "server", "start", "--database-url", url), "nowhere", "createdb")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"HEADRACE_SERVER_API_PORT": "99999"}, "65535"),
        ({"HEADRACE_SERVER_API_PORT": "http"}, "HEADRACE_SERVER_API_PORT"),
        ({"HEADRACE_SERVER_API_AUTH_STRING": "nocolon"}, "user:password"),
        ({"HEADRACE_SERVER_RECORDER_LEASE_SECONDS": "5"}, "twice"),
    ],
)
def test_a_setting_that_is_wrong(command: Command, variables: dict[str, str], words: str) -> None:
    one_line(command("server", "start", **variables), words, code=2)


def test_words_that_are_not_understood(command: Command) -> None:
    one_line(command("server", "start", "--prot", "1"), "--prot", code=2)


def test_it_starts_quickly_and_stays_small(home: Path) -> None:
    began = time.monotonic()
    with started(home) as process:
        took = time.monotonic() - began
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    # The gates are 1.5 s and 120 MB on a quiet machine; this notices a doubling, not a busy neighbour.
    assert took < 6
    assert pages * os.sysconf("SC_PAGESIZE") < 130 * 1024 * 1024
