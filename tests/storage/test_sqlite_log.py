"""The write-ahead log of SQLite is made long at once, and nothing that is in it suffers."""

from __future__ import annotations

import pathlib
import resource
import shutil
import sqlite3
import subprocess
import sys

import pytest

from headrace_services.storage.sqlite_log import LOG_BYTES, lengthen_log
from headrace_services.storage.sqlite_store import open_connection

_ROWS = "SELECT count(*) FROM facts"


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "headrace.db"


def _log(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + "-wal")


def _written(path: pathlib.Path, count: int) -> sqlite3.Connection:
    connection = open_connection(path)
    connection.execute("CREATE TABLE facts (value BLOB)")
    for _ in range(count):
        connection.execute("INSERT INTO facts VALUES (randomblob(3000))")
    return connection


def test_a_log_is_as_long_as_it_gets_and_stays_so(path: pathlib.Path) -> None:
    connection = _written(path, 10)
    before = _log(path).stat().st_size
    lengthen_log(connection, path)
    assert before < _log(path).stat().st_size == LOG_BYTES
    for _ in range(60):  # a third more than fits
        connection.execute("INSERT INTO facts VALUES (randomblob(100000))")
    assert _log(path).stat().st_size == LOG_BYTES  # it begins again before its end
    lengthen_log(connection, path)
    assert _log(path).stat().st_size == LOG_BYTES
    assert connection.execute(_ROWS).fetchone() == (70,)
    connection.close()


def test_what_was_committed_before_and_after_survives_the_death_of_the_process(
    path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    connection = _written(path, 5)
    lengthen_log(connection, path)
    connection.execute("INSERT INTO facts VALUES ('after')")
    # What a killed process leaves: the files as they are, and nobody who has them open.
    left = tmp_path / "left"
    left.mkdir()
    for file in (path, _log(path)):
        shutil.copy(file, left / file.name)
    connection.close()
    found = sqlite3.connect(left / path.name)
    assert found.execute(_ROWS).fetchone() == (6,)
    assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found.close()


def test_a_log_that_was_just_emptied_is_lengthened_as_well(path: pathlib.Path) -> None:
    connection = _written(path, 5)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert _log(path).stat().st_size == 0
    lengthen_log(connection, path)
    other = open_connection(path)
    assert other.execute(_ROWS).fetchone() == (5,)
    other.execute("INSERT INTO facts VALUES ('of another')")
    assert connection.execute(_ROWS).fetchone() == (6,)
    other.close()
    connection.close()


def test_nothing_is_done_while_another_program_writes(path: pathlib.Path) -> None:
    connection = _written(path, 1)
    connection.execute("PRAGMA busy_timeout=0")
    other = open_connection(path)
    other.execute("BEGIN IMMEDIATE")
    before = _log(path).stat().st_size
    lengthen_log(connection, path)
    assert _log(path).stat().st_size == before
    other.execute("INSERT INTO facts VALUES ('of another')")
    other.execute("COMMIT")
    assert connection.execute(_ROWS).fetchone() == (2,)
    other.close()
    connection.close()


_WITHOUT_ROOM = """
import pathlib, resource, signal, sys
from headrace_services.storage.sqlite_log import lengthen_log
from headrace_services.storage.sqlite_store import open_connection
path = pathlib.Path(sys.argv[1])
log = path.with_name(path.name + "-wal")
connection = open_connection(path)
connection.execute("CREATE TABLE facts (value BLOB)")
before = log.stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
lengthen_log(connection, path)
assert log.stat().st_size == before, log.stat().st_size
connection.execute("INSERT INTO facts VALUES (1)")
print(connection.execute("SELECT count(*) FROM facts").fetchone()[0])
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit for the size of files here")
def test_a_disk_without_room_keeps_the_log_as_it_was(path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_ROOM, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
