"""Locks in files: between processes, and after the death of one."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from headrace.locking.filesystem import FileSystemLockManager
from headrace.locking.owners import Owner
from tests.support.processes import dead_process

_COUNT = """
import pathlib, sys
from headrace.locking.filesystem import FileSystemLockManager
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
locks = FileSystemLockManager(folder / "locks")
for _ in range(25):
    assert locks.acquire_lock("count", name, acquire_timeout=60)
    count = folder / "count"
    count.write_text(str(int(count.read_text()) + 1))
    locks.release_lock("count", name)
"""
_HOLD = """
import sys
from headrace.locking.filesystem import FileSystemLockManager
assert FileSystemLockManager(sys.argv[1]).acquire_lock("key", "child")
print("held", flush=True)
sys.stdin.read()
"""


def _record(folder: pathlib.Path, **changes: Any) -> None:
    record = {"key": "key", "holder": "a", "expires_at": None, "owner": Owner.this().to_json()}
    (folder / "key.lock").write_text(json.dumps({**record, **changes}) + "\n")


def test_processes_exclude_each_other(tmp_path: pathlib.Path) -> None:
    (tmp_path / "count").write_text("0")
    children = [
        subprocess.Popen([sys.executable, "-c", _COUNT, str(tmp_path), f"child {number}"])
        for number in range(4)
    ]
    assert [child.wait(timeout=60) for child in children] == [0] * 4
    assert (tmp_path / "count").read_text() == "100"
    assert list((tmp_path / "locks").iterdir()) == []


def test_the_lock_of_a_killed_process_is_free(tmp_path: pathlib.Path) -> None:
    locks = FileSystemLockManager(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert not locks.acquire_lock("key", "parent", acquire_timeout=0)
        os.kill(child.pid, signal.SIGKILL)
        # A zombie until it is waited for: dead all the same.
        assert locks.acquire_lock("key", "parent", acquire_timeout=60)
    locks.release_lock("key", "parent")


def test_a_process_that_took_over_the_number_is_another_one(tmp_path: pathlib.Path) -> None:
    owner = Owner.this().to_json()
    _record(tmp_path, owner=owner)
    assert FileSystemLockManager(tmp_path).is_lock_holder("key", "a")
    _record(tmp_path, owner={**owner, "started": "1"})
    assert not FileSystemLockManager(tmp_path).is_locked("key")


def test_another_machine_is_given_its_hold_timeout(tmp_path: pathlib.Path) -> None:
    locks = FileSystemLockManager(tmp_path)
    owner = {"machine": "elsewhere", "pid": dead_process(), "started": "1"}
    _record(tmp_path, owner=owner)
    assert locks.is_locked("key")
    _record(tmp_path, owner=owner, expires_at=time.time() + 3600)
    assert not locks.acquire_lock("key", "b", acquire_timeout=0)
    _record(tmp_path, owner=owner, expires_at=time.time() - 1)
    assert locks.acquire_lock("key", "b", acquire_timeout=0)


@pytest.mark.parametrize("left", [b"", b"{", b"[]\n", b'{"holder": "a"}\n', b"\xff\n"])
def test_a_torn_record_locks_nothing(tmp_path: pathlib.Path, left: bytes) -> None:
    (tmp_path / "key.lock").write_bytes(left)
    locks = FileSystemLockManager(tmp_path)
    assert not locks.is_locked("key")
    assert locks.acquire_lock("key", "b", acquire_timeout=0)


@pytest.mark.parametrize(
    "key", ["", ".", "..", "../out", "a/b", "a" * 300, "schlüssel", "nul\0", "~x", "a b"]
)
def test_every_key_is_a_file_in_the_folder(tmp_path: pathlib.Path, key: str) -> None:
    folder = tmp_path / "locks"
    locks = FileSystemLockManager(folder)
    assert locks.acquire_lock(key, "a")
    assert [path.parent for path in tmp_path.rglob("*.lock")] == [folder]
    assert FileSystemLockManager(folder).is_lock_holder(key, "a")
    locks.release_lock(key, "a")


def test_managers_of_one_folder_are_equal(tmp_path: pathlib.Path) -> None:
    assert FileSystemLockManager(tmp_path) == FileSystemLockManager(str(tmp_path / "a" / ".."))
    assert FileSystemLockManager(tmp_path) != FileSystemLockManager(tmp_path / "a")
