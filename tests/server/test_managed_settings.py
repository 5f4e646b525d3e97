"""When a server works managed pools, and what their workers are given of it."""

from __future__ import annotations

import pathlib

import pytest

from headrace_services.loops.managed_pools import restart_delay_seconds
from headrace_services.loops.managed_workers import ManagedWorkerSettings
from headrace_services.settings import ServerSettings


@pytest.mark.parametrize(
    ("host", "enabled", "works"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("0.0.0.0", None, False),
        ("192.0.2.1", None, False),
        ("0.0.0.0", True, True),
        ("127.0.0.1", False, False),
    ],
)
def test_managed_pools_are_for_this_machine_unless_somebody_says_so(
    host: str, enabled: bool | None, works: bool
) -> None:
    refusal = ServerSettings(server_api_host=host, server_managed_pools_enabled=enabled).refuses_managed_pools
    assert (refusal == "") is works
    assert works or "HEADRACE_SERVER_MANAGED_POOLS_ENABLED" in refusal


def test_a_worker_is_given_what_is_named_and_nothing_else(tmp_path: pathlib.Path) -> None:
    settings = ManagedWorkerSettings(
        folder=tmp_path,
        address="127.0.0.1:1",
        credentials="managed:own",
        more_variables=("PIP_INDEX_URL",),
        cgroup="headrace",
        grace_seconds=1.0,
        keep_seconds=1.0,
        keep_bytes=1,
    )
    servers = {
        "PATH": "/bin",
        "LC_TIME": "C",
        "PIP_INDEX_URL": "http://index",
        "PIP_EXTRA_INDEX_URL": "http://user:password@other",
        "HOME": "/root",
        "HEADRACE_HOME": "/root/.headrace",
        "HEADRACE_API_AUTH_STRING": "operator:secret",
        "HEADRACE_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://user:password@db/headrace",
        "PGPASSWORD": "secret",
        "SSH_AUTH_SOCK": "/tmp/agent",
    }
    assert settings.environment(servers, tmp_path / "pool") == {
        "PATH": "/bin",
        "LC_TIME": "C",
        "PIP_INDEX_URL": "http://index",
        "HOME": str(tmp_path / "pool"),
        "HEADRACE_HOME": str(tmp_path / "pool" / ".headrace"),
        "HEADRACE_API_URL": "127.0.0.1:1",
        "HEADRACE_API_AUTH_STRING": "managed:own",
        "HEADRACE_WORKER_CGROUP": "headrace",
    }


def test_a_worker_that_ends_again_and_again_is_started_ever_later() -> None:
    assert [restart_delay_seconds(n) for n in (1, 2, 3, 6, 7, 1000)] == [1, 2, 4, 32, 60, 60]
