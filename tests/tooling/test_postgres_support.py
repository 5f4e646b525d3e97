"""The test database server itself: isolation of databases, and no server left behind."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.postgres import Cluster, provide_cluster

HOLD_A_CLUSTER = """
import sys
from tests.support.postgres import provide_cluster
with provide_cluster() as cluster:
    print(cluster.admin_url, flush=True)
    sys.stdin.read()
"""
ROOT = pathlib.Path(__file__).resolve().parents[2]


async def test_databases_do_not_share_tables(postgres_cluster: Cluster) -> None:
    with postgres_cluster.database() as first, postgres_cluster.database() as second:
        await _fetch(first, "CREATE TABLE only_here (id int)")
        [[found]] = await _fetch(second, "SELECT count(*) FROM pg_tables WHERE tablename = 'only_here'")
    assert found == 0


async def test_a_template_is_migrated_once_and_cloned(postgres_cluster: Cluster) -> None:
    migrated: list[str] = []
    with postgres_cluster.template(migrated.append) as template:
        await _fetch(migrated[0], "CREATE TABLE from_the_template (id int)")
        with postgres_cluster.database(template) as one, postgres_cluster.database(template) as two:
            for url in (one, two):
                assert await _fetch(url, "SELECT * FROM from_the_template") == []
    assert len(migrated) == 1


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_server_outlives_the_test_process(end: signal.Signals) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TEST_DATABASE_URL"}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment,
        text=True,
    )
    assert holder.stdout is not None
    port = urlsplit(holder.stdout.readline().strip()).port
    assert port is not None
    assert _accepts(port)
    holder.send_signal(end)
    holder.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while _accepts(port):
        assert time.monotonic() < deadline, f"PostgreSQL still listens on {port}"
        time.sleep(0.02)


def test_the_named_server_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", "postgresql+asyncpg://me@db.example:5433/maintenance")
    with provide_cluster() as cluster:
        assert cluster.admin_url == "postgresql://me@db.example:5433/maintenance"
        assert cluster.url_of("other") == "postgresql+asyncpg://me@db.example:5433/other"


async def _fetch(url: str, statement: str) -> list[Any]:
    connection: Any = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        rows: list[Any] = await connection.fetch(statement)
        return rows
    finally:
        await connection.close()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
